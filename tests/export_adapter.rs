//! `salmon export model --adapter`: a PEFT folder that opens on the exported base.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use salmon::model::{Head, Network};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::cli_support::{TINY, salmon, sets};
use super::model_fixtures::distance;

/// A tiny run whose models are adapters, in a folder of its own.
fn run() -> &'static str {
    static RUN: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    let made = RUN.get_or_init(|| {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let run = folder.path().join("run").display().to_string();
        let mut args = vec!["demo", "--run", &run];
        args.extend(sets(&TINY));
        args.extend(sets(&["model.lora={r=4,lora_alpha=8.0,target_modules=[\"q_proj\",\"down_proj\"]}"]));
        salmon(&args).ok();
        (folder, run.clone())
    });
    &made.1
}

fn export(out: &Path, model: &str, more: &[&str]) {
    let out = out.to_str().unwrap();
    salmon(&[&["export", "model", "--run", run(), "--out", out, "--model", model], more].concat()).ok();
}

fn open(folder: &Path) -> Network {
    Network::open(folder, Kind::Float, Device::Cpu).unwrap()
}

#[test]
fn adapters_open_on_the_exported_base_and_equal_the_merged_model() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    export(&place("base"), "base", &["--dtype", "float32"]);
    let base = place("base").canonicalize().unwrap();
    let ids = Tensor::from_slice(&[1i64, 348, 191, 320, 126, 241, 214, 21]).unsqueeze(0);
    for model in ["sft", "policy:brief", "reward"] {
        export(&place("adapter"), model, &["--adapter", place("base").to_str().unwrap(), "--force"]);
        export(&place("merged"), model, &["--dtype", "float32", "--force"]);
        let config: Value =
            serde_json::from_slice(&fs::read(place("adapter").join("adapter_config.json")).unwrap()).unwrap();
        assert_eq!(config["base_model_name_or_path"], json!(base));
        assert_eq!(config["task_type"], if model == "reward" { "SEQ_CLS" } else { "CAUSAL_LM" });
        let (adapter, merged) = (open(&base).with_adapter(&place("adapter")).unwrap(), open(&place("merged")));
        let read = |network: &Network| {
            let hidden = network.hidden(&ids).unwrap();
            if model == "reward" { network.scores(&hidden.select(1, -1)) } else { network.logits(&hidden) }.unwrap()
        };
        assert!(distance(&read(&adapter), &read(&merged)) < 1e-4, "{model}");
        assert_eq!(adapter.head(), if model == "reward" { Head::Linear } else { Head::None });
        let card = fs::read_to_string(place("adapter").join("README.md")).unwrap();
        assert!(card.starts_with("---\nlibrary_name: peft\npipeline_tag: "), "a local path is no id: {card}");
        assert!(card.contains("PeftModel.from_pretrained("), "{card}");
        let merged = fs::read_to_string(place("merged").join("README.md")).unwrap();
        assert!(merged.contains("whole weights in float32, the LoRA adapter merged"), "{merged}");
    }
}

#[test]
fn an_id_on_the_hub_is_kept_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adapter");
    export(&out, "sft", &["--adapter", "some-org/some-model"]);
    let config: Value = serde_json::from_slice(&fs::read(out.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["base_model_name_or_path"], "some-org/some-model");
    let card = fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.starts_with("---\nlibrary_name: peft\nbase_model: \"some-org/some-model\"\n"), "{card}");
    assert!(!out.join("config.json").exists() && out.join("tokenizer.json").exists());
    let base =
        salmon(&["export", "model", "--run", run(), "--out", "x", "--model", "base", "--adapter", "y"]).failed(2);
    assert!(base.contains("--adapter: `base` "), "{base}");
}
