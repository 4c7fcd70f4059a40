//! Adapters against what peft recorded, and against the base they sit on.

use std::path::Path;

use salmon::draw::key;
use salmon::model::{Head, LoraConfig, Network};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::model_fixtures::{bytes, copy, distance, fixture, ids, open, recorded};

fn lora(r: i64, modules: &[&str]) -> LoraConfig {
    LoraConfig { r, lora_alpha: 4.0, target_modules: modules.to_vec().into(), ..LoraConfig::default() }
}

const ALL: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

fn text() -> Tensor {
    ids(&[&[3, 14, 15, 9, 26, 5, 35], &[8, 9, 7, 9, 3, 23, 8]])
}

#[test]
fn adapter_of_peft_gives_its_logits_and_scores() {
    let base = open("untied", Kind::Float);
    let network = base.with_adapter(&fixture("adapter")).unwrap();
    let expected = recorded("adapter.safetensors");
    let logits = network.logits(&network.hidden(&expected["ids"]).unwrap()).unwrap();
    assert!(distance(&logits, &expected["logits"]) < 2e-5);
    assert!(distance(&logits, &recorded("untied.safetensors")["logits"]) > 0.1, "the adapter changes nothing");

    let network = base.with_adapter(&fixture("reward")).unwrap();
    assert_eq!(network.head(), Head::Linear);
    let expected = recorded("reward.safetensors");
    let scores = network.scores(&network.hidden(&expected["ids"]).unwrap().select(1, -1)).unwrap();
    assert!(distance(&scores, &expected["scores"]) < 2e-5);
}

#[test]
fn fresh_adapter_equals_its_base_exactly() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let base = open("untied", kind);
        let network = base.with_lora(&lora(2, &ALL), key(1, &["fresh"])).unwrap();
        assert!(network.log_probs(&text()).unwrap().detach().equal(&base.log_probs(&text()).unwrap()));
        assert!(network.trainable().iter().all(|(_, tensor)| tensor.kind() == Kind::Float && tensor.requires_grad()));
    }
}

#[test]
fn fresh_adapter_is_drawn_by_tensor_name() {
    let base = open("untied", Kind::Float);
    let draw = |seed, modules: &[&str]| base.with_lora(&lora(2, modules), key(seed, &[])).unwrap().trainable();
    let (all, some) = (draw(1, &ALL), draw(1, &["up_proj"]));
    assert_eq!((all.len(), some.len()), (2 * 7 * 2, 2 * 2));
    for (name, tensor) in &some {
        let (_, same) = all.iter().find(|(other, _)| other == name).unwrap();
        assert!(tensor.equal(same), "{name} depends on the other modules");
        if name.contains("lora_A") {
            let largest = tensor.abs().max().double_value(&[]) * 24f64.sqrt();
            assert!(largest > 0.8 && largest <= 1.0, "{name}: {largest} of the Kaiming bound");
        }
    }
    assert!(!some[0].1.equal(&draw(2, &["up_proj"])[0].1));
}

/// A network after one plain gradient step, so that nothing in the adapter is zero.
fn trained(base: &Network, seed: u64) -> Network {
    let network = base.with_lora(&lora(3, &["q_proj", "o_proj", "down_proj"]), key(seed, &[])).unwrap();
    for _ in 0..2 {
        network.log_probs(&text()).unwrap().mean(Kind::Float).backward();
        tch::no_grad(|| {
            for (_, mut tensor) in network.trainable() {
                let step = tensor.grad() * 2.0;
                let _ = tensor.g_add_(&step);
                tensor.zero_grad();
            }
        });
    }
    network
}

#[test]
fn merged_weights_give_the_logits_of_the_adapter() {
    for (kind, tolerance) in [(Kind::Float, 2e-5), (Kind::BFloat16, 0.06)] {
        let network = trained(&open("untied", kind), 1);
        let merged = network.merged().unwrap();
        assert!(merged.values().all(|tensor| tensor.kind() == Kind::Float && !tensor.requires_grad()));
        let merged = Network::from_tensors(network.config().clone(), merged, Default::default()).unwrap();
        let (ours, theirs) = (network.log_probs(&text()).unwrap(), merged.log_probs(&text()).unwrap());
        assert!(distance(&ours, &theirs) < tolerance, "{kind:?}: {}", distance(&ours, &theirs));
        assert!(distance(&theirs, &open("untied", kind).log_probs(&text()).unwrap()) > 0.1);
    }
}

#[test]
fn four_adapters_share_one_frozen_base() {
    let base = open("untied", Kind::Float);
    let before = base.log_probs(&text()).unwrap();
    let networks: Vec<Network> = (0..4).map(|seed| trained(&base, seed)).collect();
    let frozen = base.merged().unwrap();
    for network in &networks {
        for (name, tensor) in network.merged().unwrap() {
            let targeted = ["q_proj", "o_proj", "down_proj"].iter().any(|target| name.contains(target));
            assert_eq!(tensor.data_ptr() == frozen[&name].data_ptr(), !targeted, "{name}");
        }
    }
    assert!(base.log_probs(&text()).unwrap().equal(&before), "training an adapter changed the base");
    assert!(distance(&networks[0].log_probs(&text()).unwrap(), &networks[1].log_probs(&text()).unwrap()) > 0.0);
    assert!(base.trainable().is_empty());
}

#[test]
fn replica_shares_the_base_and_copies_the_adapter() {
    let network = trained(&open("untied", Kind::Float), 1);
    let replica = network.replicate().unwrap();
    assert!(replica.log_probs(&text()).unwrap().equal(&network.log_probs(&text()).unwrap()));
    for ((name, own), (_, other)) in network.trainable().iter().zip(replica.trainable()) {
        assert!(own.equal(&other) && own.data_ptr() != other.data_ptr(), "{name}");
    }
    let (ours, theirs) = (network.merged().unwrap(), replica.merged().unwrap());
    assert_eq!(ours["model.norm.weight"].data_ptr(), theirs["model.norm.weight"].data_ptr());
}

#[test]
fn full_training_starts_from_the_merged_adapter() {
    let network = trained(&open("untied", Kind::Float), 1);
    let full = network.with_full_training().unwrap();
    assert!(distance(&full.log_probs(&text()).unwrap(), &network.log_probs(&text()).unwrap()) < 2e-5);
    assert_eq!(full.trainable().len(), 2 * 9 + 3);
}

#[test]
fn saved_adapter_opens_again_bit_for_bit() {
    let base = open("untied", Kind::Float).with_base_name("untied");
    let network = trained(&base, 1).with_head(Head::Linear, key(2, &[])).unwrap();
    assert!(network.trainable().last().unwrap().0 == "base_model.model.score.weight");
    let folder = tempfile::tempdir().unwrap();
    let written = network.save(folder.path()).unwrap();
    assert_eq!(written.len(), bytes(folder.path()).len());
    let again = base.with_adapter(folder.path()).unwrap();
    assert_eq!((again.head(), again.lora()), (network.head(), network.lora()));
    for ((name, own), (other_name, other)) in network.trainable().iter().zip(again.trainable()) {
        assert_eq!(*name, other_name);
        assert!(own.equal(&other) && other.requires_grad(), "{name}");
    }
    let second = tempfile::tempdir().unwrap();
    again.save(second.path()).unwrap();
    assert_eq!(bytes(folder.path()), bytes(second.path()), "the same adapter gave other bytes");
}

#[test]
fn saved_adapter_has_the_files_and_names_of_peft() {
    let base = open("untied", Kind::Float).with_base_name("untied");
    for name in ["adapter", "reward"] {
        let folder = tempfile::tempdir().unwrap();
        base.with_adapter(&fixture(name)).unwrap().save(folder.path()).unwrap();
        let ours = bytes(folder.path());
        let theirs = bytes(&fixture(name));
        assert!(ours["adapter_model.safetensors"] == theirs["adapter_model.safetensors"], "{name}");
        let parse = |files: &std::collections::BTreeMap<String, Vec<u8>>| -> Value {
            serde_json::from_slice(&files["adapter_config.json"]).unwrap()
        };
        let (ours, theirs) = (parse(&ours), parse(&theirs));
        let sorted = |value: &Value| {
            let mut items = value.as_array().unwrap().clone();
            items.sort_by_key(Value::to_string);
            items
        };
        assert_eq!(sorted(&ours["target_modules"]), sorted(&theirs["target_modules"]));
        for (key, value) in ours.as_object().unwrap() {
            assert!(key == "target_modules" || *value == theirs[key], "{name} {key}: {value} / {}", theirs[key]);
        }
    }
}

fn edit(folder: &Path, change: impl Fn(&mut Value)) {
    let path = folder.join("adapter_config.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(&path, value.to_string()).unwrap();
}

#[test]
fn bad_adapter_folders_say_what_is_wrong() {
    let base = open("untied", Kind::Float);
    type Case = (&'static str, fn(&Path), &'static [&'static str]);
    let cases: [Case; 11] = [
        ("no config", |f| std::fs::remove_file(f.join("adapter_config.json")).unwrap(), &["adapter_config.json"]),
        (
            "no weights",
            |f| std::fs::remove_file(f.join("adapter_model.safetensors")).unwrap(),
            &["adapter_model.safetensors", "cannot open"],
        ),
        (
            "pickle",
            |f| std::fs::rename(f.join("adapter_model.safetensors"), f.join("adapter_model.bin")).unwrap(),
            &["adapter_model.bin", "pickle", "save the adapter again"],
        ),
        ("other kind", |f| edit(f, |v| v["peft_type"] = json!("IA3")), &["adapter_config.json", "peft_type", "IA3"]),
        ("dora", |f| edit(f, |v| v["use_dora"] = json!(true)), &["use_dora", "only plain LoRA"]),
        (
            "rank pattern",
            |f| edit(f, |v| v["rank_pattern"] = json!({"q_proj": 2})),
            &["q_proj.lora_A", "[3, 24]", "[2, 24]"],
        ),
        ("pissa", |f| edit(f, |v| v["init_lora_weights"] = json!("pissa")), &["init_lora_weights", "pissa"]),
        ("saved modules", |f| edit(f, |v| v["modules_to_save"] = json!(["norm"])), &["modules_to_save", "norm"]),
        ("no rank", |f| edit(f, |v| drop(v.as_object_mut().unwrap().remove("r"))), &["adapter_config.json", "`r`"]),
        (
            "other module",
            |f| edit(f, |v| v["target_modules"] = json!(["qkv"])),
            &["target_modules", "\"qkv\"", "q_proj"],
        ),
        (
            "other rank",
            |f| edit(f, |v| v["r"] = json!(4)),
            &["adapter_model.safetensors", "lora_A.weight", "[3, 24]", "[4, 24]"],
        ),
    ];
    for (name, change, parts) in cases {
        let folder = tempfile::tempdir().unwrap();
        copy("adapter", folder.path());
        change(folder.path());
        let error = base.with_adapter(folder.path()).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{name}: {error:?} lacks {part:?}");
        }
    }
    // An adapter for more modules than its configuration says.
    let folder = tempfile::tempdir().unwrap();
    copy("adapter", folder.path());
    edit(folder.path(), |v| v["target_modules"] = json!(["q_proj"]));
    let error = base.with_adapter(folder.path()).unwrap_err().to_string();
    assert!(error.contains("down_proj.lora_A.weight has no place"), "{error}");
    let other = Network::open(&fixture("classifier"), Kind::Float, Device::Cpu).unwrap();
    let error = other.with_adapter(&fixture("adapter")).unwrap_err().to_string();
    assert!(error.contains("is it an adapter for another one?") && error.contains("has shape"), "{error}");
    for (config, part) in
        [(lora(0, &ALL), "r: 0"), (lora(2, &[]), "target_modules: empty"), (lora(2, &["wq"]), "\"wq\"")]
    {
        let error = base.with_lora(&config, key(1, &[])).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
