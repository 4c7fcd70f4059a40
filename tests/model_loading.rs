//! Loading: the decoder's weights are those of the network, whatever the file has, and memory holds them once.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use salmon::engine::{Engine, EngineOptions};
use salmon::model::{Head, Network, PlainWeights, Tokenizer, WeightSource};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::model_fixtures::{copy, fixture, open};

/// Takes every tensor that `merged` has.
fn taken(mut weights: impl WeightSource, merged: &BTreeMap<String, Tensor>) {
    for (name, tensor) in merged {
        let ours = weights.take(name, &tensor.size()).unwrap();
        assert!(ours.kind() == Kind::Float && ours.equal(tensor), "{name}");
    }
}

#[test]
fn weights_read_for_the_decoder_are_those_of_the_network() {
    for (name, kind) in
        [("untied", Kind::Float), ("untied", Kind::BFloat16), ("tied", Kind::Float), ("tied", Kind::BFloat16)]
    {
        let weights = PlainWeights::open(&fixture(name), kind).unwrap();
        assert_eq!(weights.head(), Head::None);
        taken(weights, &open(name, kind).merged().unwrap());
    }
    let weights = PlainWeights::open(&fixture("classifier"), Kind::Float).unwrap();
    assert_eq!(weights.head(), Head::Linear);
    taken(weights, &open("classifier", Kind::Float).merged().unwrap());
    for (adapter, head) in [("adapter", Head::None), ("reward", Head::Linear)] {
        for kind in [Kind::Float, Kind::BFloat16] {
            let weights =
                PlainWeights::open(&fixture("untied"), kind).unwrap().with_adapter(&fixture(adapter)).unwrap();
            assert_eq!(weights.head(), head, "{adapter}");
            let network = open("untied", kind).with_adapter(&fixture(adapter)).unwrap();
            taken(weights, &network.merged().unwrap());
            taken(&network, &network.merged().unwrap());
        }
    }
}

#[test]
fn every_type_of_a_file_loads_as_transformers_would_convert_it() {
    for (stored, computed) in [
        (Kind::Half, Kind::Float),
        (Kind::Half, Kind::BFloat16),
        (Kind::Float, Kind::BFloat16),
        (Kind::BFloat16, Kind::Float),
    ] {
        let folder = tempfile::tempdir().unwrap();
        copy("untied", folder.path());
        let path = folder.path().join("model.safetensors");
        let tensors: Vec<(String, Tensor)> = Tensor::read_safetensors(&path).unwrap();
        let tensors: Vec<(String, Tensor)> =
            tensors.into_iter().map(|(name, tensor)| (name, tensor.to_kind(stored))).collect();
        Tensor::write_safetensors(&tensors, &path).unwrap();
        let merged = Network::open(folder.path(), computed, Device::Cpu).unwrap().merged().unwrap();
        for (name, tensor) in tensors {
            assert!(
                merged[&name].equal(&tensor.to_kind(computed).to_kind(Kind::Float)),
                "{name} {stored:?} {computed:?}"
            );
        }
    }
}

#[test]
fn values_are_checked_when_the_decoder_takes_them() {
    let folder = tempfile::tempdir().unwrap();
    copy("untied", folder.path());
    let path = folder.path().join("model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    let norm = &mut tensors.iter_mut().find(|(name, _)| name == "model.norm.weight").unwrap().1;
    let _ = norm.fill_(f64::NAN);
    Tensor::write_safetensors(&tensors, &path).unwrap();
    let mut weights = PlainWeights::open(folder.path(), Kind::Float).unwrap();
    let error = weights.take("model.norm.weight", &[24]).unwrap_err().to_string();
    assert!(error.contains("model.safetensors") && error.contains("model.norm.weight holds values"), "{error}");
}

/// A model that is nearly all embedding, the worst case for whoever holds a tensor twice.
fn large(folder: &Path, kind: Kind) -> f64 {
    let (vocab, hidden) = (40_000, 512);
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 64, "tie_word_embeddings": true,
        "eos_token_id": 0,
    });
    let tokenizer = json!({"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "unk_token": "x", "vocab": {"x": 0}}});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let shapes = [
        ("model.embed_tokens", vec![vocab, hidden]),
        ("model.norm", vec![hidden]),
        ("model.layers.0.input_layernorm", vec![hidden]),
        ("model.layers.0.post_attention_layernorm", vec![hidden]),
        ("model.layers.0.self_attn.q_proj", vec![hidden, hidden]),
        ("model.layers.0.self_attn.k_proj", vec![hidden, hidden]),
        ("model.layers.0.self_attn.v_proj", vec![hidden, hidden]),
        ("model.layers.0.self_attn.o_proj", vec![hidden, hidden]),
        ("model.layers.0.mlp.gate_proj", vec![64, hidden]),
        ("model.layers.0.mlp.up_proj", vec![64, hidden]),
        ("model.layers.0.mlp.down_proj", vec![hidden, 64]),
    ];
    let tensors: Vec<(String, Tensor)> = shapes
        .into_iter()
        .map(|(name, shape)| (format!("{name}.weight"), Tensor::ones(&shape, (kind, Device::Cpu))))
        .collect();
    Tensor::write_safetensors(&tensors, folder.join("model.safetensors")).unwrap();
    tensors.iter().map(|(_, tensor)| tensor.numel()).sum::<usize>() as f64
}

const FOLDER: &str = "SALMON_TEST_LOADING";

/// Bytes of a line of `/proc/self/status`.
fn resident(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

/// Peak of the resident set above what there was before, mapped pages included.
fn peak<T>(load: impl FnOnce() -> T) -> f64 {
    let before = resident("VmRSS");
    // From here on, VmHWM is the largest resident set since now.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let loaded = load();
    let peak = resident("VmHWM") - before;
    drop(loaded);
    peak
}

/// Not a test of its own: the process that [`memory_holds_the_weights_once`] starts, in which nothing else runs.
#[test]
fn loads_in_a_process_of_its_own() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    // The code of libtorch that a first load brings in is no part of a model.
    for name in ["untied", "tied"] {
        for kind in [Kind::BFloat16, Kind::Float] {
            drop(open(name, kind));
        }
    }
    for (kind, bytes) in [(Kind::BFloat16, 2.0), (Kind::Float, 4.0)] {
        let peak = peak(|| Network::open(folder, kind, Device::Cpu).unwrap());
        println!("ratio {}", peak / bytes);
    }
    let tokenizer = Arc::new(Tokenizer::open(folder).unwrap());
    let peak = peak(|| {
        let weights = PlainWeights::open(folder, Kind::Float).unwrap();
        let config = weights.config().clone();
        Engine::new(&config, weights, tokenizer, Head::None, EngineOptions { workers: 1, ..Default::default() })
            .unwrap()
    });
    println!("packed {}", peak / 4.0);
}

#[test]
fn memory_holds_the_weights_once() {
    for stored in [Kind::Float, Kind::BFloat16, Kind::Half] {
        let folder = tempfile::tempdir().unwrap();
        let parameters = large(folder.path(), stored);
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["model_loading::loads_in_a_process_of_its_own", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let numbers = |word: &str| -> Vec<f64> {
            // The harness writes the name of the test on the same line.
            let after = text.lines().filter_map(|line| line.split_once(word));
            after.map(|(_, number)| number.trim().parse::<f64>().unwrap() / parameters).collect()
        };
        let (networks, packed) = (numbers("ratio "), numbers("packed "));
        assert_eq!((networks.len(), packed.len()), (2, 1), "{text}");
        assert!(networks.iter().all(|ratio| (0.5..=1.1).contains(ratio)), "{stored:?}: {networks:?}");
        // The engine also holds the one tensor that it is packing; here that is nearly the model.
        assert!((0.9..=2.1).contains(&packed[0]), "{stored:?}: {packed:?}");
    }
}
