//! From a checkpoint's tensors to packed weights.
//!
//! In: a [`ModelConfig`], f32 CPU tensors under their Hugging Face names, a [`Head`]. Out: a [`Decoder`], or a
//! model error that names the tensor, its shape and the shape it should have.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::native::{Decoder, Instructions, LayerTensors, Shape, Tensors};
use crate::model::{Head, ModelConfig};
use crate::{Error, Result};

/// Checks and packs the weights; they may be dropped afterwards.
pub(super) fn pack(
    config: &ModelConfig,
    weights: &BTreeMap<String, Tensor>,
    head: Head,
    instructions: Instructions,
) -> Result<Decoder> {
    let named = Named { weights };
    let (hidden, dim) = (config.hidden_size, config.head_dim);
    let heads = config.num_attention_heads * dim;
    let kv_heads = config.num_key_value_heads * dim;
    let mut layers = Vec::with_capacity(config.num_hidden_layers);
    for i in 0..config.num_hidden_layers {
        let get = |name: &str, shape: &[usize]| named.get(&format!("model.layers.{i}.{name}.weight"), shape);
        layers.push(LayerTensors {
            attention_norm: get("input_layernorm", &[hidden])?,
            query: get("self_attn.q_proj", &[heads, hidden])?,
            key: get("self_attn.k_proj", &[kv_heads, hidden])?,
            value: get("self_attn.v_proj", &[kv_heads, hidden])?,
            output: get("self_attn.o_proj", &[hidden, heads])?,
            mlp_norm: get("post_attention_layernorm", &[hidden])?,
            gate: get("mlp.gate_proj", &[config.intermediate_size, hidden])?,
            up: get("mlp.up_proj", &[config.intermediate_size, hidden])?,
            down: get("mlp.down_proj", &[hidden, config.intermediate_size])?,
        });
    }
    let embedding = named.get("model.embed_tokens.weight", &[config.vocab_size, hidden])?;
    let tensors = Tensors {
        embedding,
        layers,
        norm: named.get("model.norm.weight", &[hidden])?,
        unembedding: match config.tie_word_embeddings {
            true => embedding,
            false => named.get("lm_head.weight", &[config.vocab_size, hidden])?,
        },
        score: match head {
            Head::Linear => Some(named.get("score.weight", &[1, hidden])?),
            Head::None | Head::YesNo { .. } => None,
        },
        frequencies: &config.inverse_frequencies(),
    };
    let shape = Shape {
        vocab: config.vocab_size,
        hidden,
        intermediate: config.intermediate_size,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: dim,
        eps: config.rms_norm_eps as f32,
        context: config.max_position_embeddings,
    };
    Decoder::new(shape, &tensors, instructions)
        .ok_or_else(|| Error::config("engine options", format!("this processor has no {instructions:?} instructions")))
}

struct Named<'a> {
    weights: &'a BTreeMap<String, Tensor>,
}

impl<'a> Named<'a> {
    /// The values of a tensor, after a check of everything that reading its memory depends on.
    fn get(&self, name: &str, shape: &[usize]) -> Result<&'a [f32]> {
        let tensor = self.weights.get(name).ok_or_else(|| Error::model(name, "this tensor is missing"))?;
        let found = tensor.size();
        if found.iter().map(|&n| n as usize).ne(shape.iter().copied()) {
            return Err(Error::model(name, format!("has shape {found:?}; config.json needs {shape:?}")));
        }
        if tensor.kind() != Kind::Float || tensor.device() != Device::Cpu || !tensor.is_contiguous() {
            return Err(Error::internal(name, "the engine takes contiguous f32 tensors on the CPU"));
        }
        // SAFETY: contiguous f32 in main memory, `numel` values, and the map outlives the slice.
        Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const f32, tensor.numel()) })
    }
}
