//! The forms of adapters that peft writes: target sets, patterns, scales, saved modules, against what peft recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use salmon::draw::key;
use salmon::model::{Head, LoraConfig, Network, Patterns, Targets};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::model_fixtures::{bytes, distance, open};

/// A path below `tests/fixtures/adapters` (`scripts/fixtures/adapters.py`).
pub(crate) fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adapters").join(name)
}

pub(crate) fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(recorded(name)).unwrap().into_iter().collect()
}

const FORMS: [&str; 5] = ["all_linear", "regex", "layers", "saved", "score"];

/// Logits, or the score of the last token.
fn says(network: &Network, ids: &Tensor) -> Tensor {
    let hidden = network.hidden(ids).unwrap();
    match network.head() {
        Head::None => network.logits(&hidden).unwrap().detach(),
        _ => network.scores(&hidden.select(1, -1)).unwrap().detach(),
    }
}

#[test]
fn every_form_gives_what_peft_gives() {
    let (base, recorded_logits) = (open("untied", Kind::Float), tensors("logits.safetensors"));
    let plain = says(&base, &recorded_logits["ids"]);
    for form in FORMS {
        let network = base.with_adapter(&recorded(form)).unwrap();
        let (found, expected) = (says(&network, &recorded_logits["ids"]), &recorded_logits[form]);
        // peft's own f32 logits are up to 5e-5 from those it computes in f64: the drawn adapters are large.
        let most = 2e-4;
        assert!(distance(&found, expected) < most, "{form}: {} of {most}", distance(&found, expected));
        if form != "score" {
            assert!(distance(expected, &plain) > 0.05, "{form} changes nothing");
        }
        // Merged into plain weights it says the same.
        let mut merged = network.merged().unwrap();
        let score = merged.remove("score.weight");
        let whole = Network::from_tensors(network.config().clone(), merged, BTreeMap::new()).unwrap();
        let hidden = whole.hidden(&recorded_logits["ids"]).unwrap();
        let found = match score {
            Some(score) => hidden.select(1, -1).matmul(&score.squeeze_dim(0)),
            None => whole.logits(&hidden).unwrap(),
        };
        assert!(distance(&found, expected) < most, "{form} merged: {} of {most}", distance(&found, expected));
    }
}

#[test]
fn a_saved_adapter_is_what_peft_would_read() {
    let base = open("untied", Kind::Float).with_base_name("untied");
    for form in FORMS {
        let folder = tempfile::tempdir().unwrap();
        base.with_adapter(&recorded(form)).unwrap().save(folder.path()).unwrap();
        let (ours, theirs) = (bytes(folder.path()), bytes(&recorded(form)));
        assert!(ours["adapter_model.safetensors"] == theirs["adapter_model.safetensors"], "{form}");
        let parse = |files: &BTreeMap<String, Vec<u8>>| -> Value {
            serde_json::from_slice(&files["adapter_config.json"]).unwrap()
        };
        let (ours, theirs) = (parse(&ours), parse(&theirs));
        let unordered = |value: &Value| match value {
            Value::Array(items) => {
                let mut items = items.clone();
                items.sort_by_key(Value::to_string);
                Value::Array(items)
            }
            value => value.clone(),
        };
        for (key, value) in ours.as_object().unwrap() {
            assert_eq!(unordered(value), unordered(&theirs[key]), "{form} {key}");
        }
    }
}

/// The modules that have an adapter, with their rank.
fn ranks(lora: &LoraConfig) -> BTreeMap<String, i64> {
    let network = open("untied", Kind::Float).with_lora(lora, key(1, &[])).unwrap();
    let name = |name: String| Some(name.strip_prefix("base_model.model.model.layers.")?.to_string());
    let pairs = network.trainable().into_iter().filter(|(name, _)| name.ends_with("lora_A.weight"));
    pairs
        .filter_map(|(full, a)| Some((name(full)?.trim_end_matches(".lora_A.weight").to_string(), a.size()[0])))
        .collect()
}

#[test]
fn targets_are_found_as_peft_finds_them() {
    let with = |targets: Targets| LoraConfig { r: 2, target_modules: targets, ..LoraConfig::default() };
    assert_eq!(ranks(&with(Targets::Pattern("all-linear".into()))).len(), 14);
    let names = |names: &[&str]| ranks(&with(names.to_vec().into())).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&["q_proj"]), ["0.self_attn.q_proj", "1.self_attn.q_proj"]);
    assert_eq!(names(&["layers.1.mlp.up_proj"]), ["1.mlp.up_proj"]);
    assert_eq!(
        names(&["model.layers.0.self_attn.o_proj", "1.mlp.down_proj"]),
        ["0.self_attn.o_proj", "1.mlp.down_proj"]
    );
    // A whole path, not a part of it; look-ahead as in Python.
    let pattern = |text: &str| ranks(&with(Targets::Pattern(text.into()))).into_keys().collect::<Vec<_>>();
    assert_eq!(pattern(r"(?!.*layers\.0).*up_proj"), ["1.mlp.up_proj"]);
    let error = open("untied", Kind::Float).with_lora(&with(Targets::Pattern("up_proj".into())), key(1, &[]));
    assert!(error.unwrap_err().to_string().contains("fit no module"));

    let patterns = LoraConfig {
        r: 2,
        target_modules: vec!["q_proj", "up_proj"].into(),
        layers_to_transform: vec![1],
        rank_pattern: Patterns(vec![("up_proj".into(), 3), (r"layers\.1\..*".into(), 4)]),
        ..LoraConfig::default()
    };
    assert_eq!(ranks(&patterns), [("1.mlp.up_proj".to_string(), 3), ("1.self_attn.q_proj".to_string(), 4)].into());
}

#[test]
fn saved_modules_train_from_the_base() {
    let base = open("untied", Kind::Float);
    let lora = LoraConfig {
        r: 2,
        target_modules: vec!["v_proj"].into(),
        modules_to_save: vec!["embed_tokens".into(), "lm_head".into()],
        ..LoraConfig::default()
    };
    let network = base.with_lora(&lora, key(1, &[])).unwrap();
    let ids = &tensors("logits.safetensors")["ids"];
    assert!(says(&network, ids).equal(&says(&base, ids)), "a fresh adapter changes something");
    network.log_probs(ids).unwrap().mean(Kind::Float).backward();
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let trainable = network.trainable();
        let (_, tensor) = trainable.iter().find(|(own, _)| own.ends_with(name)).unwrap();
        assert!(tensor.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0, "{name}");
        let frozen = &base.merged().unwrap()[name];
        assert!(tensor.data_ptr() != frozen.data_ptr() && tensor.equal(frozen), "{name}");
    }
    let tied = open("tied", Kind::Float).with_lora(&lora, key(1, &[])).unwrap_err().to_string();
    assert!(tied.contains("modules_to_save: embed_tokens is tied"), "{tied}");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let base = open("untied", Kind::Float);
    let cases: [(&str, Value, &[&str]); 9] = [
        ("use_dora", json!(true), &["use_dora: true", "only plain LoRA"]),
        ("bias", json!("all"), &["bias: \"all\""]),
        ("exclude_modules", json!(["q_proj"]), &["exclude_modules"]),
        ("layers_pattern", json!("h"), &["layers_pattern: \"h\""]),
        ("target_modules", json!(["lm_head"]), &["LoRA on \"lm_head\"", "modules_to_save"]),
        ("target_modules", json!(".*"), &["LoRA on model.embed_tokens", "narrow the pattern"]),
        ("target_modules", json!("("), &["target_modules: \"(\" is no regular expression"]),
        ("modules_to_save", json!(["norm"]), &["modules_to_save: \"norm\"", "only embed_tokens"]),
        ("rank_pattern", json!({"q_proj": 0}), &["rank_pattern.q_proj: 0 is not a positive rank"]),
    ];
    for (field, value, parts) in cases {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in bytes(&recorded("all_linear")) {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let path = folder.path().join("adapter_config.json");
        let mut fields: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        fields[field] = value;
        std::fs::write(&path, fields.to_string()).unwrap();
        let error = base.with_adapter(folder.path()).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{field}: {error:?} lacks {part:?}");
        }
    }
}
