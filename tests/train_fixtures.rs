//! A tiny network with drawn weights, and helpers to look into checkpoints.

use std::collections::BTreeMap;
use std::path::Path;

use salmon::draw::{Key, key};
use salmon::model::{ModelConfig, Network};
use salmon::train::{Metrics, Run};
use serde_json::json;
use tch::Tensor;

pub(crate) const VOCAB: u32 = 19;

/// Two layers, 16 wide, grouped heads, tied; weights far enough from 0 that tokens matter.
pub(crate) fn network(seed: u64) -> Network {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 48, "tie_word_embeddings": true,
        "torch_dtype": "float32", "hidden_act": "silu"
    });
    let config = ModelConfig::from_json(config.as_object().unwrap().clone(), "test").unwrap();
    let mut shapes = vec![("model.embed_tokens.weight".to_string(), vec![i64::from(VOCAB), 16])];
    for l in 0..2 {
        let at = |name: &str| format!("model.layers.{l}.{name}.weight");
        shapes.push((at("input_layernorm"), vec![16]));
        shapes.push((at("post_attention_layernorm"), vec![16]));
        for (name, out, input) in [
            ("self_attn.q_proj", 16, 16),
            ("self_attn.k_proj", 8, 16),
            ("self_attn.v_proj", 8, 16),
            ("self_attn.o_proj", 16, 16),
            ("mlp.gate_proj", 24, 16),
            ("mlp.up_proj", 24, 16),
            ("mlp.down_proj", 16, 24),
        ] {
            shapes.push((at(name), vec![out, input]));
        }
    }
    shapes.push(("model.norm.weight".to_string(), vec![16]));
    let tensors: BTreeMap<String, Tensor> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let stream = key(seed, &[&name]);
            let scale = if shape.len() == 1 { 0.1 } else { 0.25 };
            let offset = if shape.len() == 1 { 1.0 } else { 0.0 };
            let count = shape.iter().product::<i64>() as u64;
            let values: Vec<f32> = (0..count).map(|i| (offset + scale * stream.normal(i)) as f32).collect();
            (name, Tensor::from_slice(&values).view(shape.as_slice()))
        })
        .collect();
    Network::from_tensors(config, tensors, BTreeMap::new()).unwrap()
}

/// `len` drawn token ids.
pub(crate) fn tokens(stream: Key, len: usize) -> Vec<u32> {
    (0..len as u64).map(|i| stream.below(i, u64::from(VOCAB)) as u32).collect()
}

pub(crate) fn run(total_steps: usize, workers: usize) -> Run {
    Run { stage: "tiny".into(), total_steps, workers, key: key(5, &["tiny"]) }
}

pub(crate) fn metric(metrics: &Metrics, name: &str) -> f64 {
    metrics.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no metric {name} in {metrics:?}")).1
}

/// Every file under a folder with its bytes.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if path.is_dir() {
            out.extend(files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            out.insert(name, std::fs::read(&path).unwrap());
        }
    }
    out
}

/// The bits of every trainable tensor.
pub(crate) fn bits(network: &Network) -> BTreeMap<String, Vec<u32>> {
    let values = |t: &Tensor| Vec::<f32>::try_from(t.detach().flatten(0, -1)).unwrap();
    network.trainable().iter().map(|(n, t)| (n.clone(), values(t).iter().map(|x| x.to_bits()).collect())).collect()
}
