//! `salmon init` and `salmon check`: a folder that works as it stands, and everything that can be wrong with one.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::cli_support::{Ran, batch, parquet, salmon, salmon_in, starter, tiny};

fn check(folder: &Path, more: &[&str]) -> Ran {
    salmon_in(folder, &[&["check"], more].concat(), "")
}

/// The findings: standard error without its last line, which counts them.
#[track_caller]
fn findings(ran: Ran) -> Vec<String> {
    assert_eq!(ran.code, 2, "{ran:?}");
    let mut lines: Vec<String> =
        ran.err.lines().filter(|line| !line.starts_with("note: ")).map(str::to_string).collect();
    let last = lines.pop().unwrap();
    let plural = if lines.len() == 1 { "" } else { "s" };
    assert_eq!(last, format!("salmon: salmon.toml: {} finding{plural}", lines.len()), "{lines:#?}");
    lines
}

fn edit(folder: &Path, file: &str, changes: &[(&str, &str)]) {
    let path = folder.join(file);
    let mut text = fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    fs::write(path, text).unwrap();
}

/// The line of the first text in the file that holds `what`.
fn line_of(folder: &Path, file: &str, what: &str) -> usize {
    let text = fs::read_to_string(folder.join(file)).unwrap();
    1 + text.lines().position(|line| line.contains(what)).unwrap()
}

#[test]
fn a_starter_passes_the_check_and_says_what_it_costs() {
    let folder = starter();
    let ran = check(folder.path(), &[]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let ok: Vec<&str> = ran.out.lines().filter(|line| line.starts_with("ok  ")).collect();
    assert_eq!(ok.len(), 5, "{}", ran.out);
    assert!(ok[3].contains("prompts.parquet: 275 rows, 215 train and 60 test prompts"), "{}", ran.out);
    assert!(ok[4].contains("38 tensors, 0.2 M parameters") && ok[4].ends_with("context 256"), "{}", ran.out);
    let cost = |stage: &str| {
        let line = ran.out.lines().find(|line| line.split_whitespace().next() == Some(stage)).unwrap();
        line.trim_start_matches(stage)
            .trim()
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect::<Vec<_>>()
    };
    // 215 prompts, 5 answers; 3 rounds of 2; a pair each; 10 principles in two orders; 12 passes.
    assert_eq!(cost("demonstrations")[..2], ["1 075", "1 075"]);
    assert_eq!(cost("responses")[..2], ["1 290", "1 290"]);
    assert_eq!(cost("pairs")[..2], ["645", "0"]);
    assert_eq!(cost("judgments")[..2], ["6 450", "12 900"]);
    assert_eq!(cost("preferences")[..2], ["7 740", "0"]);
    assert_eq!(cost("policy:brief")[0], "2 560");
    assert_eq!(cost("evaluate:policy:sft")[..2], ["240", "720"]);
}

#[test]
fn a_starter_shows_every_section() {
    let folder = starter();
    let text = fs::read_to_string(folder.path().join("salmon.toml")).unwrap();
    let config = salmon::config::Config { reward_pretraining: Some(Default::default()), ..Default::default() };
    let all: toml::Table = toml::from_str(&config.to_toml().unwrap()).unwrap();
    for (key, value) in &all {
        let shown = if value.is_table() || key == "policies" { format!("[{key}]") } else { format!("\n{key} = ") };
        assert!(text.contains(&shown), "{shown}");
    }
    salmon::config::parse("starter", &text, &[]).unwrap();
}

#[test]
fn init_does_not_overwrite_unless_forced() {
    let folder = starter();
    edit(folder.path(), "salmon.toml", &[("seed = 1", "seed = 2")]);
    let refused = salmon_in(folder.path(), &["init"], "").failed(2);
    assert!(refused.contains("is there already"), "{refused}");
    assert_eq!(line_of(folder.path(), "salmon.toml", "seed = 2"), line_of(folder.path(), "salmon.toml", "seed = "));
    let wrote = salmon_in(folder.path(), &["init", "--force"], "").ok();
    assert_eq!(wrote, "./salmon.toml\n./principles.toml\n./prompts.parquet\n");
    assert!(fs::read_to_string(folder.path().join("salmon.toml")).unwrap().contains("\nseed = 1\n"));
    salmon_in(folder.path(), &["init", "deeper/down"], "").ok();
    assert!(folder.path().join("deeper/down/prompts.parquet").exists());
}

#[test]
fn all_findings_come_at_once_with_their_lines() {
    let folder = starter();
    let here = folder.path();
    edit(
        here,
        "salmon.toml",
        &[
            ("[\"Creative\", \"Humble\"]", "[\"Creative\", \"Humbel\"]"),
            ("\"Short And Friendly\"]\ndraw = 0", "\"Short And Friendly\"]\ndraw = 40\ndraw_set = \"rl\""),
            ("[\"Concise\", \"Polite\"]\ndraw", "[\"Concise\", \"Brave\"]\ndraw"),
            ("judge = \"pocket_judge\"", "judge = \"my_judge\""),
            ("base = \"pocket\"", "base = \"model\""),
            ("prompts = [\"prompts.parquet\"]", "prompts = [\"gone.parquet\"]"),
        ],
    );
    edit(
        here,
        "principles.toml",
        &[("\nnegative_definition = \"the", "\nsets = [\"rewards\"]\nnegative_definition = \" the")],
    );
    let at = |what: &str| format!("salmon.toml:{}: ", line_of(here, "salmon.toml", what));
    let own = |what: &str| format!("principles.toml:{}: ", line_of(here, "principles.toml", what));
    let ran = check(here, &[]);
    assert!(ran.out.starts_with("ok  salmon.toml: every key and value\n"), "{}", ran.out);
    let found = findings(ran);
    for (place, says) in [
        (own("sets = "), "there is no set `rewards`"),
        (own("negative_definition = \" "), "has white space around it"),
        (at("Humbel"), "there is no principle `Humbel`"),
        (at("Brave"), "there is no principle `Brave`"),
        (at("draw = 40"), "40 principles are to be drawn from the set `rl`"),
        (at("my_judge"), "there is no template `my_judge`"),
        (at("base = "), "there is no model folder"),
        (at("gone.parquet"), "cannot be opened"),
    ] {
        let hit = found.iter().any(|line| line.contains(&place) && line.contains(says));
        assert!(hit, "{place}{says}: {found:#?}");
    }
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn what_set_gave_is_named_as_such() {
    let folder = starter();
    let found = findings(check(folder.path(), &["--set", "principles.judge_set=\"rewards\""]));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("--set principles.judge_set: principles.judge_set: no principle is in"), "{found:#?}");
}

fn prompt(change: Value) -> Value {
    let mut row = json!({"prompt_id": "p", "instruction": "tell me .", "source": "s", "kind": "general",
        "language": null, "length_bonus": 1.0, "split": "train"});
    for (key, value) in change.as_object().unwrap() {
        row[key] = value.clone();
    }
    row
}

#[test]
fn bad_rows_are_named_by_their_number() {
    let folder = starter();
    let path = folder.path().join("prompts.parquet");
    let rows = [
        prompt(json!({})),
        prompt(json!({"prompt_id": "q", "instruction": " \n"})),
        prompt(json!({"prompt_id": "r", "instruction": null})),
        prompt(json!({"prompt_id": "s", "instruction": null, "kind": "odd"})),
        prompt(json!({"prompt_id": "t", "split": "dev", "length_bonus": null})),
    ];
    parquet(&path, &batch("prompts", &rows));
    let found = findings(check(folder.path(), &[]));
    let mut says = vec![
        "row 2: instruction is empty",
        "row 3: instruction is null (and 1 more rows)",
        "row 4: kind is `odd`; it must be one of general, reasoning, red_teaming",
        "row 5: length_bonus is null",
        "row 5: split is `dev`; it must be train or test",
    ];
    says.retain(|says| !found.contains(&format!("./prompts.parquet: {says}")));
    assert!(says.is_empty() && found.len() == 5, "{says:?} of {found:#?}");

    let whole = batch("prompts", &rows);
    parquet(&path, &whole.project(&[0, 2, 3, 4, 5]).unwrap());
    let found = findings(check(folder.path(), &[]));
    let columns = "has no column `instruction`; it has prompt_id, source, kind, language, length_bonus";
    assert!(found.contains(&format!("./prompts.parquet: {columns}")), "{found:#?}");
    assert!(found.iter().any(|line| line.contains("has no column `split`")), "{found:#?}");

    parquet(&path, &batch("prompts", &[]));
    assert!(findings(check(folder.path(), &[]))[0].contains("holds no rows"));
    fs::write(&path, "no parquet").unwrap();
    assert!(findings(check(folder.path(), &[]))[0].contains("is not Parquet that can be read"));
}

#[test]
fn a_run_without_test_prompts_is_only_noted() {
    let folder = starter();
    parquet(&folder.path().join("prompts.parquet"), &batch("prompts", &[prompt(json!({}))]));
    let ran = check(folder.path(), &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.err.starts_with("note: salmon.toml:") && ran.err.contains("no prompt has split = 'test'"),
        "{}",
        ran.err
    );
}

/// A copy of the toy world's model in the starter's folder.
fn with_model(folder: &Path) {
    let base = salmon::world::base::folder().unwrap();
    fs::create_dir(folder.join("model")).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(base.join(file), folder.join("model").join(file)).unwrap();
    }
    edit(folder, "salmon.toml", &[("base = \"pocket\"", "base = \"model\"")]);
}

#[test]
fn a_model_is_checked_by_its_files() {
    let folder = starter();
    with_model(folder.path());
    let ran = check(folder.path(), &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("ok  model: model: 38 tensors"), "{}", ran.out);

    edit(folder.path(), "model/config.json", &[("\"intermediate_size\": 192", "\"intermediate_size\": 256")]);
    let found = findings(check(folder.path(), &[]));
    // Three projections of each of the four layers.
    assert_eq!(found.len(), 12, "{found:#?}");
    assert!(
        found[0].contains("mlp.gate_proj.weight has shape [192, 64]; config.json asks for [256, 64]"),
        "{found:#?}"
    );
    let back = ("\"intermediate_size\": 256", "\"intermediate_size\": 192");
    edit(folder.path(), "model/config.json", &[back, ("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3")]);
    let found = findings(check(folder.path(), &[]));
    assert!(found.len() == 9 && found[0].contains("has no place in this model"), "{found:#?}");
    edit(folder.path(), "model/config.json", &[("\"eos_token_id\": 2", "\"eos_token_id\": null")]);
    assert!(findings(check(folder.path(), &[])).iter().any(|line| line.contains("has no eos_token_id")));
    fs::remove_file(folder.path().join("model/tokenizer.json")).unwrap();
    assert!(findings(check(folder.path(), &[])).iter().any(|line| line.contains("tokenizer.json: cannot read")));
    fs::write(folder.path().join("model/model.safetensors"), "short").unwrap();
    assert!(findings(check(folder.path(), &[]))[0].contains("is cut short: it has 5 of 8 bytes"));
}

#[test]
fn a_value_that_is_not_finite_is_found_before_a_run() {
    let folder = starter();
    with_model(folder.path());
    let path = folder.path().join("model/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    // The last value, a bfloat16.
    bytes[end - 2..].copy_from_slice(&0x7fc0u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let found = findings(check(folder.path(), &[]));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("model.safetensors: tensor model.") && found[0].contains("not finite"), "{found:#?}");
}

#[test]
fn answers_must_be_one_token_and_templates_must_fit() {
    let folder = starter();
    let found = findings(check(folder.path(), &["--set", "judge.answers=[\"a b\", \"c\"]"]));
    assert!(found[0].contains("`a b` is 2 tokens of the model; it must be one"), "{found:#?}");
    with_model(folder.path());
    let context = |tokens: &str| {
        let change = format!("\"max_position_embeddings\": {tokens}");
        let path = folder.path().join("model/config.json");
        let text = fs::read_to_string(&path).unwrap();
        let start = text.find("\"max_position_embeddings\"").unwrap();
        let end = start + text[start..].find(',').unwrap();
        fs::write(path, format!("{}{change}{}", &text[..start], &text[end..])).unwrap();
        check(folder.path(), &[])
    };
    let tight = context("120");
    assert_eq!(tight.code, 0, "{tight:?}");
    assert!(tight.err.contains("note: templates.judge: ") && tight.err.contains("context is 120"), "{}", tight.err);
    let found = findings(context("30"));
    assert!(found.iter().any(|line| line.starts_with("templates.judge: is ")), "{found:#?}");
}

#[test]
fn a_base_that_the_run_makes_is_a_stage_with_a_cost() {
    let folder = starter();
    let out = check(folder.path(), &["--set", "model.base=pretrain"]).ok();
    assert!(out.lines().any(|line| line.starts_with("base ") && line.ends_with(" M")), "{out}");
}

#[test]
fn a_check_against_a_run_says_what_it_has() {
    let config = format!("{}/config.toml", tiny());
    let ran = salmon(&["check", "--config", &config, "--run", tiny()]);
    assert_eq!(ran.out.lines().filter(|line| line.ends_with("  cached")).count(), 16, "{}", ran.out);
    let to_do = ran.out.lines().last().unwrap();
    assert_eq!(to_do.split_whitespace().collect::<Vec<_>>(), ["to", "do", "0", "0"]);
    let more = salmon(&["check", "--config", &config, "--run", tiny(), "--set", "evaluate.samples=2"]);
    assert_eq!(
        more.out.lines().filter(|line| line.contains("would run: parameter samples 1 -> 2")).count(),
        3,
        "{}",
        more.out
    );
    let new = salmon(&["check", "--config", &config, "--run", "not-there-yet"]);
    assert_eq!(new.out.lines().filter(|line| line.contains("would run: no version yet")).count(), 16);
}
