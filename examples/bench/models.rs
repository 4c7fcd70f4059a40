//! The three models that are measured.
//!
//! In: a name. Out: a folder with random weights, in bfloat16 as models are published.

use std::path::Path;

use safetensors::tensor::Dtype;
use salmon::{Error, Result};
use serde_json::{Value, json};
use tch::Kind;

use super::checkpoint::{Size, make};

/// The shape of the pocket world's model; a small one; one with grouped queries, as of Qwen2.5-0.5B, and a vocabulary of
/// LLaMA's size.
const SIZES: [Size; 3] = [
    Size {
        name: "0.2M",
        vocab: 260,
        hidden: 64,
        intermediate: 192,
        layers: 4,
        heads: 2,
        kv_heads: 2,
        context: 2048,
        head: true,
    },
    Size {
        name: "45M",
        vocab: 32_000,
        hidden: 512,
        intermediate: 1408,
        layers: 9,
        heads: 8,
        kv_heads: 8,
        context: 2048,
        head: true,
    },
    Size {
        name: "500M",
        vocab: 32_000,
        hidden: 1280,
        intermediate: 4096,
        layers: 24,
        heads: 20,
        kv_heads: 4,
        context: 2048,
        head: true,
    },
];

pub(crate) fn write(model: &str, folder: &Path) -> Result<Value> {
    let Some(size) = SIZES.iter().find(|size| size.name == model) else {
        return Err(Error::config("model", format!("`{model}` is none of {:?}", SIZES.map(|size| size.name))));
    };
    make(folder, size, Kind::BFloat16, Dtype::BF16, 1)?;
    Ok(json!({}))
}
