//! From a checkpoint's tensors to packed weights.
//!
//! In: a [`ModelConfig`], f32 CPU tensors under their Hugging Face names, a [`Head`]; or an adapter. Out: a [`Decoder`]
//! or an [`Adapter`] for it, or a model error that names the tensor, its shape and the shape it should have.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::native::{Adapter, Decoder, Instructions, LayerPairs, LayerTensors, PairTensors, Shape, Tensors};
use crate::model::{AdapterWeights, Head, ModelConfig};
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

/// Checks and packs an adapter for `decoder`.
pub(super) fn pack_adapter(config: &ModelConfig, adapter: &AdapterWeights, decoder: &Decoder) -> Result<Adapter> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let heads = config.num_attention_heads * config.head_dim;
    let kv_heads = config.num_key_value_heads * config.head_dim;
    let mut used = 0;
    let mut pair = |l: usize, name: &str, out: usize, input: usize| -> Result<Option<PairTensors<'_>>> {
        let path = format!("model.layers.{l}.{name}");
        let Some(pair) = adapter.pairs.get(&path) else { return Ok(None) };
        used += 1;
        let r = pair.a.size().first().map_or(0, |&r| r as usize);
        let a = values(&format!("{path}.lora_A.weight"), &pair.a, &[r, input])?;
        let b = values(&format!("{path}.lora_B.weight"), &pair.b, &[out, r])?;
        Ok(Some(PairTensors { a, b, r, scale: pair.scale as f32 }))
    };
    let mut layers = Vec::with_capacity(config.num_hidden_layers);
    for l in 0..config.num_hidden_layers {
        layers.push(LayerPairs {
            query: pair(l, "self_attn.q_proj", heads, hidden)?,
            key: pair(l, "self_attn.k_proj", kv_heads, hidden)?,
            value: pair(l, "self_attn.v_proj", kv_heads, hidden)?,
            output: pair(l, "self_attn.o_proj", hidden, heads)?,
            gate: pair(l, "mlp.gate_proj", inner, hidden)?,
            up: pair(l, "mlp.up_proj", inner, hidden)?,
            down: pair(l, "mlp.down_proj", hidden, inner)?,
        });
    }
    if used != adapter.pairs.len() {
        return Err(Error::internal("adapter", "has pairs for projections that the decoder does not have"));
    }
    let score = match (adapter.head, &adapter.score) {
        (Head::Linear, Some(score)) => Some(values("score.weight", score, &[1, hidden])?),
        (Head::Linear, None) => return Err(Error::model("score.weight", "this tensor is missing")),
        _ => None,
    };
    Ok(decoder.adapter(&layers, score))
}

struct Named<'a> {
    weights: &'a BTreeMap<String, Tensor>,
}

impl<'a> Named<'a> {
    fn get(&self, name: &str, shape: &[usize]) -> Result<&'a [f32]> {
        let tensor = self.weights.get(name).ok_or_else(|| Error::model(name, "this tensor is missing"))?;
        values(name, tensor, shape)
    }
}

/// The values of a tensor, after a check of everything that reading its memory depends on.
fn values<'a>(name: &str, tensor: &'a Tensor, shape: &[usize]) -> Result<&'a [f32]> {
    let found = tensor.size();
    if found.iter().map(|&n| n as usize).ne(shape.iter().copied()) {
        return Err(Error::model(name, format!("has shape {found:?}; config.json needs {shape:?}")));
    }
    if tensor.kind() != Kind::Float || tensor.device() != Device::Cpu || !tensor.is_contiguous() {
        return Err(Error::internal(name, "the engine takes contiguous f32 tensors on the CPU"));
    }
    // SAFETY: contiguous f32 in main memory, `numel` values, and the tensor outlives the slice.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const f32, tensor.numel()) })
}
