//! `Network::save_merged`: what is written opens again as the same model, in our loader and in parts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use salmon::draw::key;
use salmon::model::{Head, Network};
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use crate::model_fixtures::{bytes, distance, fixture, open, recorded};

const LARGE: u64 = 1 << 40;

fn saved(network: &Network, kind: Kind, size: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    network.save_merged(folder.path(), kind, size, Map::new()).unwrap();
    folder
}

fn again(folder: &Path) -> Network {
    Network::open(folder, Kind::Float, Device::Cpu).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn logits(network: &Network, ids: &Tensor) -> Tensor {
    network.logits(&network.hidden(ids).unwrap()).unwrap()
}

#[test]
fn a_merged_adapter_gives_the_logits_that_peft_recorded() {
    let network = open("untied", Kind::Float).with_adapter(&fixture("adapter")).unwrap();
    let expected = recorded("adapter.safetensors");
    let folder = saved(&network, Kind::Float, LARGE);
    let merged = again(folder.path());
    assert!(merged.lora().is_none());
    assert!(distance(&logits(&merged, &expected["ids"]), &expected["logits"]) < 5e-5);
    let config = json(&folder.path().join("config.json"));
    assert_eq!((&config["architectures"][0], &config["torch_dtype"]), (&"LlamaForCausalLM".into(), &"float32".into()));
}

#[test]
fn what_an_adapter_does_not_touch_keeps_its_bits() {
    let network = open("untied", Kind::Float);
    let plain = saved(&network, Kind::Float, LARGE);
    let merged = saved(&network.with_adapter(&fixture("adapter")).unwrap(), Kind::Float, LARGE);
    let tensors = |folder: &Path| -> BTreeMap<String, Tensor> {
        Tensor::read_safetensors(folder.join("model.safetensors")).unwrap().into_iter().collect()
    };
    let (mut kept, mut changed) = (0, 0);
    for ((name, a), (other, b)) in tensors(plain.path()).into_iter().zip(tensors(merged.path())) {
        assert_eq!(name, other);
        if a.equal(&b) { kept += 1 } else { changed += 1 }
    }
    assert!(kept > 0 && changed > 0, "{kept} kept, {changed} changed");
}

#[test]
fn a_tied_model_has_no_unembedding_and_opens_again() {
    let network = open("tied", Kind::Float);
    let expected = recorded("tied.safetensors");
    let folder = saved(&network, Kind::Float, LARGE);
    let names: Vec<String> = Tensor::read_safetensors(folder.path().join("model.safetensors"))
        .unwrap()
        .into_iter()
        .map(|(n, _)| n)
        .collect();
    assert!(!names.contains(&"lm_head.weight".to_string()));
    assert!(distance(&logits(&again(folder.path()), &expected["ids"]), &expected["logits"]) < 2e-5);
}

#[test]
fn shards_have_an_index_and_are_the_same_model() {
    let network = open("untied", Kind::Float);
    let whole = saved(&network, Kind::BFloat16, LARGE);
    let most = 4096;
    let parts = saved(&network, Kind::BFloat16, most);
    let index = json(&parts.path().join("model.safetensors.index.json"));
    let map = index["weight_map"].as_object().unwrap();
    let mut files: Vec<&str> = map.values().map(|file| file.as_str().unwrap()).collect();
    files.dedup();
    assert!(files.len() > 2, "{files:?}");
    let (mut total, mut tensors) = (0, Vec::new());
    for (number, file) in files.iter().enumerate() {
        assert_eq!(*file, format!("model-{:05}-of-{:05}.safetensors", number + 1, files.len()));
        let inside = Tensor::read_safetensors(parts.path().join(file)).unwrap();
        let size: u64 = inside.iter().map(|(_, tensor)| (tensor.numel() * 2) as u64).sum();
        assert!(size <= most || inside.len() == 1, "{file} has {size} bytes");
        total += size;
        assert!(inside.iter().all(|(name, _)| map[name] == **file));
        tensors.extend(inside);
    }
    assert_eq!(index["metadata"]["total_size"], total);
    assert_eq!(tensors.len(), map.len());
    for (name, tensor) in Tensor::read_safetensors(whole.path().join("model.safetensors")).unwrap() {
        let (_, same) = tensors.iter().find(|(other, _)| *other == name).unwrap();
        assert!(tensor.kind() == Kind::BFloat16 && tensor.equal(same), "{name}");
    }
    let ids = &recorded("untied.safetensors")["ids"];
    assert!(logits(&again(parts.path()), ids).equal(&logits(&again(whole.path()), ids)));
    assert_eq!(bytes(saved(&network, Kind::BFloat16, most).path()), bytes(parts.path()), "the same bytes again");
}

#[test]
fn a_linear_head_makes_a_classifier_without_unembedding() {
    let network = open("untied", Kind::Float).with_adapter(&fixture("reward")).unwrap();
    let expected = recorded("reward.safetensors");
    let folder = saved(&network, Kind::Float, LARGE);
    let config = json(&folder.path().join("config.json"));
    assert_eq!(config["architectures"][0], "LlamaForSequenceClassification");
    let tensors = Tensor::read_safetensors(folder.path().join("model.safetensors")).unwrap();
    assert!(tensors.iter().any(|(name, score)| name == "score.weight" && score.size()[0] == 1));
    assert!(!tensors.iter().any(|(name, _)| name == "lm_head.weight"));
    let merged = again(folder.path());
    assert_eq!(merged.head(), Head::Linear);
    let scores = merged.scores(&merged.hidden(&expected["ids"]).unwrap().select(1, -1)).unwrap();
    assert!(distance(&scores, &expected["scores"]) < 5e-5);
}

#[test]
fn a_yes_no_head_stays_a_causal_model() {
    let network = open("untied", Kind::Float).with_head(Head::YesNo { yes: 3, no: 5 }, key(1, &[])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fields = Map::from_iter([("pad_token_id".to_string(), Value::from(7))]);
    network.save_merged(folder.path(), Kind::Float, LARGE, fields).unwrap();
    let config = json(&folder.path().join("config.json"));
    assert_eq!((&config["architectures"][0], &config["pad_token_id"]), (&"LlamaForCausalLM".into(), &7.into()));
    let ids = &recorded("untied.safetensors")["ids"];
    assert!(logits(&again(folder.path()), ids).equal(&logits(&network, ids)));
}

#[test]
fn float16_refuses_what_it_cannot_hold() {
    let network = open("untied", Kind::Float).with_full_training().unwrap();
    let half = saved(&network, Kind::Half, LARGE);
    let ids = &recorded("untied.safetensors")["ids"];
    assert!(distance(&logits(&again(half.path()), ids), &logits(&network, ids)) < 0.05);
    let (name, mut tensor) = network.trainable().remove(2);
    tch::no_grad(|| drop(tensor.fill_(7e4)));
    let folder = tempfile::tempdir().unwrap();
    let error = network.save_merged(folder.path(), Kind::Half, LARGE, Map::new()).unwrap_err().to_string();
    assert!(error.starts_with(&name) && error.contains("float16 cannot hold; choose --dtype bfloat16"), "{error}");
    network.save_merged(folder.path(), Kind::BFloat16, LARGE, Map::new()).unwrap();
}
