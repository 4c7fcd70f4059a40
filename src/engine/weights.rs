//! From a checkpoint's tensors to packed weights.
//!
//! In: a [`ModelConfig`], f32 CPU tensors under their Hugging Face names, a [`Head`]. Out: a [`Decoder`], or a
//! model error that names the tensor, its shape and the shape it should have.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::native::{Activation, Decoder, Instructions, LayerTensors, Linear, Rope, Shape, Tensors};
use crate::model::{self, Head, Layer, ModelConfig, Weights};
use crate::{Error, Result};

/// Checks and packs the weights; they may be dropped afterwards.
pub(super) fn pack(
    config: &ModelConfig,
    weights: &BTreeMap<String, Tensor>,
    head: Head,
    instructions: Instructions,
) -> Result<Decoder> {
    let architecture = &config.architecture;
    let get = |name: &str, shape: &[i64]| checked(weights, name, shape);
    let all = Weights::build(config, !config.tie_word_embeddings, get)?;
    let score = match head {
        Head::Linear => Some(get("score.weight", &[1, config.hidden_size as i64])?),
        Head::None | Head::YesNo { .. } => None,
    };
    let rope = |rope: &model::Rope| Rope {
        dims: rope.dims,
        frequencies: rope.frequencies(config.max_position_embeddings),
        scale: rope.attention_factor as f32,
    };
    let embedding = values(&all.embedding);
    let tensors = Tensors {
        embedding,
        layers: all.layers.iter().enumerate().map(|(l, weights)| layer(config, l, weights)).collect(),
        norm: values(&all.norm),
        unembedding: all.lm_head.as_ref().map_or(embedding, values),
        score: score.as_ref().map(values),
        ropes: architecture.ropes.iter().map(rope).collect(),
    };
    let shape = Shape {
        vocab: config.vocab_size,
        hidden: config.hidden_size,
        intermediate: config.intermediate_size,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        eps: config.rms_norm_eps as f32,
        context: config.max_position_embeddings,
        norm_offset: architecture.norm_offset as f32,
        activation: match architecture.activation {
            model::Activation::Silu => Activation::Silu,
            model::Activation::GeluTanh => Activation::GeluTanh,
        },
        embedding_scale: architecture.embedding_scale as f32,
        attention_scalar: architecture.attention_scalar as f32,
        attention_cap: architecture.attention_softcap.unwrap_or(0.0) as f32,
        logit_cap: architecture.logit_softcap.unwrap_or(0.0) as f32,
    };
    Decoder::new(shape, &tensors, instructions)
        .ok_or_else(|| Error::config("engine options", format!("this processor has no {instructions:?} instructions")))
}

/// One layer, fused projections taken apart.
fn layer<'a>(config: &ModelConfig, l: usize, weights: &'a Layer) -> LayerTensors<'a> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let linear = |p: usize| {
        let linear: &model::Linear = &weights.projections[p];
        Linear { weight: values(&linear.weight), bias: linear.bias.as_ref().map(values) }
    };
    let rows = |linear: Linear<'a>, first: usize, count: usize| Linear {
        weight: &linear.weight[first * hidden..(first + count) * hidden],
        bias: linear.bias.map(|bias| &bias[first..first + count]),
    };
    let [query, key, value, output, gate, up, down] = if config.architecture.fused {
        let (qkv, gate_up) = (linear(0), linear(2));
        [
            rows(qkv, 0, queries),
            rows(qkv, queries, keys),
            rows(qkv, queries + keys, keys),
            linear(1),
            rows(gate_up, 0, inner),
            rows(gate_up, inner, inner),
            linear(3),
        ]
    } else {
        std::array::from_fn(linear)
    };
    let pair = |pair: &'a Option<[Tensor; 2]>| pair.as_ref().map(|pair| pair.each_ref().map(values));
    LayerTensors {
        attention_norm: values(&weights.input_norm),
        query,
        key,
        value,
        qk_norms: pair(&weights.qk_norms),
        output,
        mlp_norm: values(&weights.mlp_norm),
        gate,
        up,
        down,
        post_norms: pair(&weights.post_norms),
        window: config.architecture.window(l),
        rope: config.architecture.layers[l].rope,
    }
}

/// A tensor, after a check of everything that [`values`] depends on.
fn checked(weights: &BTreeMap<String, Tensor>, name: &str, shape: &[i64]) -> Result<Tensor> {
    let tensor = weights.get(name).ok_or_else(|| Error::model(name, "this tensor is missing"))?;
    let found = tensor.size();
    if found != shape {
        return Err(Error::model(name, format!("has shape {found:?}; config.json needs {shape:?}")));
    }
    if tensor.kind() != Kind::Float || tensor.device() != Device::Cpu || !tensor.is_contiguous() {
        return Err(Error::internal(name, "the engine takes contiguous f32 tensors on the CPU"));
    }
    Ok(tensor.shallow_clone())
}

/// The values of a tensor that [`checked`] gave.
fn values(tensor: &Tensor) -> &[f32] {
    // SAFETY: contiguous f32 in main memory, `numel` values, and the tensor outlives the slice.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const f32, tensor.numel()) }
}
