//! Bad input to `salmon run`: one line that says what, where and what to do, an exit code by kind, no panic; nothing
//! half-committed, so that the run after the repair goes on.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::Value;
use tch::Tensor;

use super::real_support::Desk;

/// Small enough to come to the end quickly.
const SETS: [&str; 6] = [
    "self_align.prompts=4",
    "self_align.max_tokens=16",
    "sft.batch_size=2",
    "sft.num_train_epochs=2",
    "reward_pretraining.max_rows=6",
    "templates.folder=templates",
];

/// Runs up to `stages` and checks the one line.
fn refused(desk: &Desk, stages: &[&str], more: &[&str], code: i32, says: &[&str]) {
    let sets = SETS.iter().chain(more).flat_map(|set| ["--set", set]);
    let arguments = [&["run"], stages, sets.collect::<Vec<_>>().as_slice()].concat();
    let output = desk.salmon(&arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("salmon: ")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    assert_eq!(said.lines().last(), errors.last().copied(), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for text in says {
        assert!(errors[0].contains(text), "{text:?} is not in: {}", errors[0]);
    }
    assert!(output.stdout.is_empty());
}

/// Puts `bytes` in place of a file for one run.
fn refused_with(desk: &Desk, file: &str, bytes: impl AsRef<[u8]>, stages: &[&str], code: i32, says: &[&str]) {
    let before = desk.path(file).exists().then(|| desk.read(file));
    desk.write(file, bytes);
    refused(desk, stages, &[], code, says);
    match before {
        Some(before) => desk.write(file, before),
        None => std::fs::remove_file(desk.path(file)).unwrap(),
    }
}

fn desk() -> Desk {
    let desk = Desk::new(8192);
    std::fs::create_dir(desk.path("templates")).unwrap();
    desk
}

/// After the repair the run comes to `stages`, and a second one has nothing to do.
fn goes_on(desk: &Desk, stages: &[&str]) {
    let arguments =
        [&["run"], stages, SETS.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>().as_slice()].concat();
    desk.ok(&arguments);
    let again = desk.ok(&arguments);
    assert!(again.contains("nothing to do"), "{again}");
}

#[test]
fn configuration_principles_and_templates() {
    let desk = desk();
    let recipe = String::from_utf8(desk.read("salmon.toml")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(recipe.contains(from), "{from}");
        recipe.replace(from, to)
    };
    let at = |line: &str| format!("salmon.toml:{}", 1 + recipe.lines().position(|l| l == line).unwrap());
    let bad = |text: String, says: &[&str]| refused_with(&desk, "salmon.toml", text, &[], 2, says);
    bad(with("seed = 1", "seed = = 1"), &[&at("seed = 1")]);
    bad(with("seed = 1", "seeed = 1"), &[&at("seed = 1"), "seeed"]);
    bad(with("passes = 2", "passes = \"two\""), &[&at("passes = 2"), "two"]);
    bad(with("passes = 2", "noise = 2.0"), &["salmon.toml", "preferences.noise", "between 0 and 1"]);
    bad(with("\"harmless\"]\n\n[self", "\"harmful\"]\n\n[self"), &["harmful"]);
    bad(with("[\"No Self-Praise\"]", "[\"No Self-Prays\"]"), &["policies.harmless", "No Self-Prays", "No Self-Praise"]);
    bad(with("draw_set = \"harmless\"", "draw_set = \"harmles\""), &["policies.harmless", "harmles"]);
    let undrawn = with(
        "principles = [\"No Self-Praise\"]\ndraw_set = \"harmless\"",
        "principles = []\ndraw_set = \"interventions\"",
    );
    bad(undrawn, &["policies.harmless.draw_set", "weight"]);
    bad(with("[evaluate]", "[templates]\njudge = \"juge\"\n\n[evaluate]"), &["juge", "judge"]);
    bad(with("[evaluate]", "[judge]\nanswers = [\"quite surely\", \"b\"]\n\n[evaluate]"), &["judge.answers", "one"]);
    refused(&desk, &[], &["ppo.kl_coef.x"], 2, &["--set ppo.kl_coef.x", "key=value"]);
    refused(&desk, &["sfd"], &[], 2, &["sfd", "sft"]);

    let principle = "[[principle]]\nname = \"Mine\"\ndefinition = \"Be mine.\"\nsets = [\"reward\"]\n";
    desk.write("salmon.toml", with("\"harmless\"]\n\n[self", "\"harmless\", \"mine.toml\"]\n\n[self"));
    refused(&desk, &[], &[], 2, &["mine.toml"]);
    refused_with(&desk, "mine.toml", principle.replace("sets", "setts"), &[], 2, &["mine.toml:4", "setts"]);
    refused_with(&desk, "mine.toml", principle, &[], 2, &["mine.toml:2", "negative"]);
    desk.write("salmon.toml", &recipe);
    refused_with(&desk, "templates/chat.jinja", "{{ instruction", &[], 2, &["chat.jinja"]);
    refused_with(&desk, "templates/chat.jinja", "{{ instructions }}", &[], 2, &["chat.jinja", "instructions"]);
    std::fs::remove_file(desk.path("salmon.toml")).unwrap();
    refused(&desk, &[], &[], 2, &["salmon.toml", "salmon init"]);
    desk.write("salmon.toml", recipe);
    assert!(!desk.path("runs/main/tables").exists());
    goes_on(&desk, &["prompts"]);
}

#[test]
fn models() {
    let desk = desk();
    let config: Value = serde_json::from_slice(&desk.read("random/config.json")).unwrap();
    let with = |field: &str, value: Value| {
        let mut config = config.clone();
        config[field] = value;
        config.to_string()
    };
    let file = "random/config.json";
    refused(&desk, &[], &["model.base=elsewhere"], 4, &["elsewhere", "config.json"]);
    refused_with(&desk, file, "{", &[], 4, &[file, "JSON"]);
    refused_with(&desk, file, with("hidden_size", Value::Null), &[], 4, &[file, "hidden_size"]);
    refused_with(&desk, file, with("eos_token_id", Value::Null), &[], 4, &[file, "eos_token_id"]);
    refused_with(&desk, file, with("architectures", serde_json::json!(["OtherModel"])), &[], 4, &[file, "OtherModel"]);
    refused_with(&desk, file, with("vocab_size", 300.into()), &[], 4, &["tokenizer.json", "300"]);
    let stages = ["demonstrations"];
    refused_with(&desk, file, with("num_hidden_layers", 3.into()), &stages, 4, &["model.layers.2."]);
    refused_with(&desk, file, with("intermediate_size", 40.into()), &stages, 4, &["mlp.", "40"]);
    refused_with(&desk, "random/tokenizer.json", "{\"model\": 1}", &[], 4, &["random/tokenizer.json"]);
    let tensors = "random/model.safetensors";
    let whole = desk.read(tensors);
    refused_with(&desk, tensors, &whole[..whole.len() / 2], &stages, 4, &[tensors]);
    let mut broken = Tensor::read_safetensors(desk.path(tensors)).unwrap();
    for (name, tensor) in &mut broken {
        if name == "model.norm.weight" {
            let _ = tensor.fill_(f64::NAN);
        }
    }
    Tensor::write_safetensors(&broken, desk.path(tensors)).unwrap();
    refused(&desk, &stages, &[], 4, &[tensors, "model.norm.weight", "NaN"]);
    desk.write(tensors, whole);
    goes_on(&desk, &["demonstrations"]);
}

/// A prompts file of `rows` rows, without one column, and with other values in some cells `(column, row, value)`.
fn prompts(desk: &Desk, rows: usize, without: &str, cells: &[(&str, usize, Option<&str>)]) {
    let mut columns: Vec<(&str, ArrayRef)> = vec![("length_bonus", Arc::new(Float64Array::from(vec![1.0; rows])))];
    for name in ["prompt_id", "instruction", "source", "kind", "language", "split"] {
        let mut values: Vec<Option<String>> = (0..rows).map(|row| Some(format!("{name} {row}"))).collect();
        if name == "split" {
            values.fill(Some("train".into()));
        }
        for (_, row, value) in cells.iter().filter(|(column, ..)| *column == name) {
            values[*row] = value.map(String::from);
        }
        columns.push((name, Arc::new(StringArray::from(values))));
    }
    let columns = columns.into_iter().filter(|(name, _)| *name != without).map(|(name, column)| (name, column, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let file = File::create(desk.path("prompts.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn data() {
    let desk = desk();
    let good = desk.read("prompts.parquet");
    let file = "prompts.parquet";
    refused(&desk, &[], &["data.prompts=[]"], 2, &["data.prompts", "salmon import"]);
    refused(&desk, &[], &["data.prompts=[\"none.parquet\"]"], 3, &["none.parquet", "data.prompts"]);
    refused_with(&desk, file, "{\"instruction\": \"Hm?\"}\n", &["prompts"], 3, &[file, "Parquet"]);
    refused_with(&desk, file, &good[..good.len() - 9], &["prompts"], 3, &[file, "Parquet"]);
    let stages = ["prompts"];
    prompts(&desk, 3, "instruction", &[]);
    refused(&desk, &stages, &[], 3, &[file, "no column `instruction`"]);
    prompts(&desk, 3, "", &[("instruction", 1, None)]);
    refused(&desk, &stages, &[], 3, &["prompts.parquet, row 2", "instruction"]);
    prompts(&desk, 3, "", &[("split", 2, Some("dev"))]);
    refused(&desk, &stages, &[], 3, &["prompts.parquet, row 3", "`split` is `dev`"]);
    prompts(&desk, 0, "", &[]);
    refused(&desk, &stages, &[], 3, &["data.prompts", "no prompts"]);
    // Test prompts only: nothing to learn a reward from.
    prompts(&desk, 1, "", &[("split", 0, Some("test"))]);
    refused(&desk, &["reward"], &["reward_pretraining.trainer.batch_size=3"], 3, &["stage reward", "no preference"]);
    desk.write(file, good);
    let pairs = desk.read("preferences.parquet");
    desk.write("preferences.parquet", desk.read(file));
    refused(&desk, &["reward_pretraining"], &[], 3, &["preferences.parquet", "no column `prompt`"]);
    desk.write("preferences.parquet", pairs);
    goes_on(&desk, &["sft"]);
}

#[test]
fn training_that_explodes() {
    let desk = desk();
    refused(&desk, &["sft"], &["sft.learning_rate=1e30"], 7, &["sft step", "lower the learning rate"]);
    refused(&desk, &["sft"], &["sft.learning_rate=-1"], 2, &["sft.learning_rate", "at least 0"]);
    let before = desk.rows("select name from runs order by name");
    let names: Vec<&str> = before.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, ["demonstrations", "prompts"]);
    goes_on(&desk, &["sft"]);
    // A run in the place of which there is a file.
    desk.write("occupied", "a file");
    let output = desk.salmon(&["run", "--run", "occupied", "prompts"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("occupied") && !said.contains("panicked"), "{said}");
}
