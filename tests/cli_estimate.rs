//! `salmon check --hardware`: what a run takes, before it runs and before the weights are there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use serde_json::json;

use crate::cli_support::{Ran, batch, parquet, salmon_in, starter};
use crate::random_llama;

fn check(folder: &Path, more: &[&str]) -> Ran {
    salmon_in(folder, &[&["check"], more].concat(), "")
}

/// FLOPs, GB of a device and time of every stage, from the second table.
fn estimates(out: &str) -> BTreeMap<String, (f64, f64, String)> {
    let table = out.split("\non ").nth(1).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let at = cells.iter().position(|cell| cell.contains('e') && cell.parse::<f64>().is_ok())?;
        let time = cells[at + 2..at + 4].join(" ");
        Some((cells[..at].join(" "), (cells[at].parse().ok()?, cells[at + 1].parse().ok()?, time)))
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// Calls and tokens of a stage, from the first table.
fn cost(out: &str, stage: &str) -> (f64, f64) {
    let line = out.lines().find(|line| line.split_whitespace().next() == Some(stage)).unwrap();
    let cells: Vec<&str> =
        line.trim_start_matches(stage).split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let (number, unit) = cells[2].split_once(' ').unwrap();
    let unit = BTreeMap::from([("k", 1e3), ("M", 1e6), ("G", 1e9)])[unit];
    (cells[1].replace(' ', "").parse().unwrap(), number.parse::<f64>().unwrap() * unit)
}

/// Per token of `sft` on the toy world's base: what torch's FlopCounterMode counts (`scripts/fixtures/flops.py`), which
/// takes attention over all pairs of positions where a causal one looks at half of them.
#[test]
fn flops_are_those_that_torch_counts() {
    let folder = starter();
    let of = |more: &[&str]| {
        let out = check(folder.path(), &[&["--hardware", "A100-80GB"], more].concat()).ok();
        let (calls, tokens) = cost(&out, "sft");
        assert_eq!((tokens / calls).round(), 77.0, "the script counts another length");
        estimates(&out)["sft"].0 / tokens
    };
    let close = |found: f64, counted: f64, what: &str| {
        assert!((0.9..=1.0).contains(&(found / counted)), "{what}: {found} a token, torch counts {counted}");
    };
    close(of(&[]), 1_589_732.2, "all weights");
    let lora = ["--set", "model.lora.r=8"];
    let plain = of(&lora);
    close(plain, 1_356_792.1, "LoRA");
    // One more forward pass over the layers.
    let again = of(&[&lora[..], &["--set", "sft.gradient_checkpointing=true"]].concat()) - plain;
    assert!((0.35..0.5).contains(&(again / plain)), "{again} of {plain}");
}

#[test]
fn quantisation_and_adapters_take_less_memory() {
    let folder = starter();
    let of = |more: &[&str]| {
        estimates(&check(folder.path(), &[&["--hardware", "1xH100-80GB"], more].concat()).ok())["policy:brief"].1
    };
    assert!(of(&["--set", "model.lora.r=4"]) < of(&[]));
    let this = check(folder.path(), &["--hardware", "this"]).ok();
    assert!(this.contains("\non this machine, ") && this.contains(" GFLOP/s, "), "{this}");
    let error = check(folder.path(), &["--hardware", "8xB9000"]);
    assert_eq!(error.code, 2);
    assert!(error.err.contains("`8xB9000` is none of `this` and A100-40GB"), "{}", error.err);
}

/// The recipe's folder as it is before the weights are downloaded.
fn dromedary() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(root.join("recipes/dromedary-2.toml"), here.join("salmon.toml")).unwrap();
    let model = here.join("Llama-2-70b-hf");
    // A vocabulary learned from the built-in principles is about as good on the templates as that of LLaMA.
    let mut texts: Vec<String> = ["principles", "templates"]
        .iter()
        .flat_map(|inner| fs::read_dir(root.join(inner)).unwrap())
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .collect();
    texts.sort();
    let small = random_llama::Shape { vocab: 6000, hidden: 8, layers: 1, context: 64 };
    random_llama::write(&here.join("small"), &texts, small, 1).unwrap();
    fs::create_dir(&model).unwrap();
    fs::copy(here.join("small/tokenizer.json"), model.join("tokenizer.json")).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000, "hidden_size": 8192,
        "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16"
    });
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    let prompt = |i: usize| {
        let split = if i.is_multiple_of(10) { "test" } else { "train" };
        json!({"prompt_id": format!("p{i}"), "instruction": format!("Explain in a few words what the number {i} stands for."),
            "source": "s", "kind": "general", "language": null, "length_bonus": 1.0, "split": split})
    };
    parquet(&here.join("prompts.parquet"), &batch("prompts", &(0..1000).map(prompt).collect::<Vec<_>>()));
    let texts = |text: &str| Arc::new(StringArray::from(vec![text; 2000])) as ArrayRef;
    let columns = [("prompt", texts("q")), ("chosen", texts("yes")), ("rejected", texts("no"))];
    parquet(&here.join("preferences.parquet"), &RecordBatch::try_from_iter(columns).unwrap());
    folder
}

#[test]
fn the_recipe_of_the_paper_passes_without_weights() {
    let folder = dromedary();
    let ran = check(folder.path(), &["--hardware", "8xA100-80GB"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // 68.98 thousand million numbers of two bytes.
    assert!(ran.err.contains("Llama-2-70b-hf: has no weights; a run needs its *.safetensors, 138.0 GB"), "{}", ran.err);
    assert!(ran.out.contains("config.json and tokenizer, no weights, 68976.6 M parameters"), "{}", ran.out);
    let stages = estimates(&ran.out);
    // 576 rollouts and 900 prompts twice: four steps.
    let rows = ran.out.lines().find(|line| line.starts_with("policy:dromedary-2")).unwrap();
    assert!(rows.contains("2 304"), "{rows}");
    for (stage, (flops, gigabytes, time)) in &stages {
        assert!(*flops > 0.0 && *gigabytes > 0.0 && !time.starts_with("0.0 "), "{stage}: {flops} {gigabytes} {time}");
    }
    // The reward model: NF4 in 4.127 bits, embedding and unembedding in bf16, 0.83 thousand million numbers of adapter with
    // gradient and moments, and a micro-batch of 4096 tokens with one layer's activations and 80 layers' inputs.
    let base = 68.452e9 * 4.127 / 8.0 + 2.0 * 0.5256e9;
    let adapter = 0.8284e9 * 4.0 * 5.0;
    let (_, found, _) = &stages["reward"];
    assert!(
        *found * 1e9 > base + adapter && *found * 1e9 < base + adapter + 15e9,
        "{found} and {}",
        (base + adapter) / 1e9
    );
    let (flops, ..) = &stages["policy:dromedary-2"];
    let (_, tokens) = cost(&ran.out, "policy:dromedary-2");
    // Of nine passes over a rollout five are forward only; four are forward, backward and forward again.
    let expected = 2.0 * 69.3e9 * tokens * (5.0 + 4.0 * 3.0) / 9.0;
    assert!((0.9..1.1).contains(&(flops / expected)), "{flops} and {expected}");
    // Without quantisation the base alone is more than a device has.
    let plain = check(
        folder.path(),
        &[
            "--hardware",
            "8xA100-80GB",
            "--set",
            "model.quantization_config.load_in_4bit=false",
            "--set",
            "model.quantization_config.bnb_4bit_use_double_quant=false",
        ],
    );
    assert!(
        plain.out.lines().any(|line| line.starts_with("reward ") && line.ends_with("more than a device has")),
        "{}",
        plain.out
    );
}
