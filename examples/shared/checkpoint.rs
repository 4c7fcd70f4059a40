//! A LLaMA folder of any size with random weights, for measurements.
//!
//! In: sizes, a type, a number of files. Out: `config.json`, `tokenizer.json`, `tokenizer_config.json`, the weights as
//! published checkpoints hold them, and `parameters`, their number. The same bytes each time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, View};
use salmon::{Error, Result};
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// The sizes of a LLaMA with tied embeddings.
pub(crate) struct Size {
    pub(crate) name: &'static str,
    pub(crate) vocab: i64,
    pub(crate) hidden: i64,
    pub(crate) intermediate: i64,
    pub(crate) layers: i64,
    pub(crate) heads: i64,
    pub(crate) kv_heads: i64,
    pub(crate) context: i64,
    /// Whether there is a reward head, `score.weight`.
    pub(crate) head: bool,
}

/// Writes the folder. No token ends a text.
pub(crate) fn make(folder: &Path, size: &Size, kind: Kind, dtype: Dtype, shards: usize) -> Result<()> {
    let bad = |e: std::io::Error| Error::store(folder.display(), "cannot be written").because(e);
    std::fs::create_dir_all(folder).map_err(bad)?;
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": size.vocab,
        "hidden_size": size.hidden, "intermediate_size": size.intermediate, "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads, "num_key_value_heads": size.kv_heads,
        "max_position_embeddings": size.context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true, "bos_token_id": null, "eos_token_id": null, "pad_token_id": null
    });
    // Every id is a word, so that the text of any sample can be made.
    let vocab: BTreeMap<String, i64> = (0..size.vocab).map(|id| (format!("w{id}"), id)).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "unk_token": "w0", "vocab": vocab}
    });
    let tokenizer_config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0"});
    let shapes = shapes(size);
    let parameters: i64 = shapes.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum();
    let files = [
        ("parameters", parameters.to_string()),
        ("config.json", config.to_string()),
        ("tokenizer.json", tokenizer.to_string()),
        ("tokenizer_config.json", tokenizer_config.to_string()),
    ];
    for (name, text) in files {
        std::fs::write(folder.join(name), text).map_err(bad)?;
    }
    tch::manual_seed(1);
    let mut index = serde_json::Map::new();
    let per_file = shapes.len().div_ceil(shards);
    for (number, part) in shapes.chunks(per_file).enumerate() {
        let file = match shards {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{shards:05}.safetensors", number + 1),
        };
        index.extend(part.iter().map(|(name, _)| (name.clone(), file.clone().into())));
        let views = part.iter().map(|(name, shape)| (name, Random { shape, scale: scale(name, shape), kind, dtype }));
        safetensors::serialize_to_file(views, Some([("format".into(), "pt".into())].into()), &folder.join(file))
            .map_err(|e| Error::store(folder.display(), "cannot be written").because(e))?;
    }
    if shards > 1 {
        let text = json!({"metadata": {}, "weight_map": index}).to_string();
        std::fs::write(folder.join("model.safetensors.index.json"), text).map_err(bad)?;
    }
    Ok(())
}

/// Every tensor's name and shape.
fn shapes(size: &Size) -> Vec<(String, Vec<i64>)> {
    let (hidden, head) = (size.hidden, size.hidden / size.heads);
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_string(), vec![size.vocab, hidden]),
        ("model.norm.weight".to_string(), vec![hidden]),
    ];
    for layer in 0..size.layers {
        let mut add = |name: &str, shape: &[i64]| {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        };
        add("input_layernorm", &[hidden]);
        add("post_attention_layernorm", &[hidden]);
        for (name, rows) in [("q_proj", hidden), ("k_proj", size.kv_heads * head), ("v_proj", size.kv_heads * head)] {
            add(&format!("self_attn.{name}"), &[rows, hidden]);
        }
        add("self_attn.o_proj", &[hidden, hidden]);
        add("mlp.gate_proj", &[size.intermediate, hidden]);
        add("mlp.up_proj", &[size.intermediate, hidden]);
        add("mlp.down_proj", &[hidden, size.intermediate]);
    }
    if size.head {
        shapes.push(("score.weight".to_string(), vec![1, hidden]));
    }
    shapes
}

/// The deviation of a tensor's values: activations keep their size, and logits spread by about 2. 0 is for norms, which
/// are ones.
fn scale(name: &str, shape: &[i64]) -> f64 {
    match shape {
        [_] => 0.0,
        _ if name.contains("embed_tokens") => 2.0 / (shape[1] as f64).sqrt(),
        _ => 1.0 / (shape[1] as f64).sqrt(),
    }
}

/// A tensor whose bytes are made when they are written.
struct Random<'a> {
    shape: &'a [i64],
    scale: f64,
    kind: Kind,
    dtype: Dtype,
}

impl View for Random<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        // Both are 64 bits here, and no size is negative.
        unsafe { std::slice::from_raw_parts(self.shape.as_ptr().cast(), self.shape.len()) }
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let kind = (Kind::Float, Device::Cpu);
        let values = match self.scale {
            0.0 => Tensor::ones(self.shape, kind),
            scale => Tensor::randn(self.shape, kind) * scale,
        };
        let values = values.to_kind(self.kind);
        let mut bytes = vec![0; self.data_len()];
        values.copy_data_u8(&mut bytes, values.numel());
        Cow::Owned(bytes)
    }
    fn data_len(&self) -> usize {
        self.shape.iter().product::<i64>() as usize * self.dtype.bitsize() / 8
    }
}
