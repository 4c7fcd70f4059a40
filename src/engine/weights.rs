//! From a model's tensors to packed weights.
//!
//! In: a [`ModelConfig`], a [`WeightSource`], a [`Head`]; or an adapter. Out: a [`Decoder`] or an [`Adapter`] for it, or
//! a model error that names the tensor, its shape and the shape it should have. A tensor is taken, packed and dropped
//! before the next one is taken, the largest ones first, so that packing a model that is read meanwhile holds it once.

use tch::{Device, Kind, Tensor};

use super::native::{
    Activation, Adapter, Decoder, Instructions, Layer, LayerPairs, LayerTensors, Linear, PairTensors, Parts, Rope,
    Shape,
};
use crate::model::{self, AdapterWeights, Head, LowRank, ModelConfig, WeightSource};
use crate::{Error, Result};

/// Checks and packs the weights.
pub(super) fn pack(
    config: &ModelConfig,
    weights: &mut impl WeightSource,
    head: Head,
    instructions: Instructions,
) -> Result<Decoder> {
    let (shape, ropes) = (shape(config), ropes(config));
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let wide = [vocab as i64, hidden as i64];
    let mut take = |name: &str, shape: &[i64]| taken(weights, name, shape);
    let (embedding, unembedding) = {
        let embedding = take("model.embed_tokens.weight", &wide)?;
        if config.tie_word_embeddings {
            (None, Parts::matrix(values(&embedding), vocab, hidden))
        } else {
            let rows = Parts::matrix(values(&embedding), vocab, hidden);
            drop(embedding);
            (Some(rows), Parts::matrix(values(&take("lm_head.weight", &wide)?), vocab, hidden))
        }
    };
    let mut layers = Vec::with_capacity(config.num_hidden_layers);
    for l in 0..config.num_hidden_layers {
        let weights = model::Layer::plain(config, l, &mut take)?;
        layers.push(Layer::new(&shape, &ropes, &layer(config, l, &weights)?));
        drop(weights);
        give_memory_back();
    }
    let parts = Parts {
        embedding,
        layers,
        norm: Parts::norm(&shape, values(&take("model.norm.weight", &[hidden as i64])?)),
        unembedding,
        score: match head {
            Head::Linear => Some(Parts::matrix(values(&take("score.weight", &[1, hidden as i64])?), 1, hidden)),
            Head::None | Head::YesNo { .. } => None,
        },
        ropes,
    };
    Decoder::new(shape, parts, instructions)
        .ok_or_else(|| Error::config("engine options", format!("this processor has no {instructions:?} instructions")))
}

fn shape(config: &ModelConfig) -> Shape {
    let architecture = &config.architecture;
    Shape {
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
    }
}

fn ropes(config: &ModelConfig) -> Vec<Rope> {
    let rope = |rope: &model::Rope| Rope {
        dims: rope.dims,
        frequencies: rope.frequencies(config.max_position_embeddings),
        scale: rope.attention_factor as f32,
    };
    config.architecture.ropes.iter().map(rope).collect()
}

/// One layer, fused projections taken apart.
fn layer<'a>(config: &ModelConfig, l: usize, weights: &'a model::Layer) -> Result<LayerTensors<'a>> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let mut linears = Vec::with_capacity(weights.projections.len());
    for linear in &weights.projections {
        let plain =
            linear.weight.plain().ok_or_else(|| Error::internal("engine weights", "a projection is quantised"))?;
        linears.push(Linear { weight: values(plain), bias: linear.bias.as_ref().map(values) });
    }
    let rows = |linear: Linear<'a>, first: usize, count: usize| Linear {
        weight: &linear.weight[first * hidden..(first + count) * hidden],
        bias: linear.bias.map(|bias| &bias[first..first + count]),
    };
    let [query, key, value, output, gate, up, down] = match *linears.as_slice() {
        [qkv, output, gate_up, down] => [
            rows(qkv, 0, queries),
            rows(qkv, queries, keys),
            rows(qkv, queries + keys, keys),
            output,
            rows(gate_up, 0, inner),
            rows(gate_up, inner, inner),
            down,
        ],
        [query, key, value, output, gate, up, down] => [query, key, value, output, gate, up, down],
        _ => return Err(Error::internal("engine weights", "a layer has four or seven projections")),
    };
    let pair = |pair: &'a Option<[Tensor; 2]>| pair.as_ref().map(|pair| pair.each_ref().map(values));
    Ok(LayerTensors {
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
    })
}

/// Returns the memory of dropped tensors to the system, which the C library would keep between the packed ones.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: frees nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Checks and packs an adapter for `decoder`.
pub(super) fn pack_adapter(config: &ModelConfig, adapter: &AdapterWeights, decoder: &Decoder) -> Result<Adapter> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let mut used = 0;
    let mut pair = |l: usize, name: &str, out: usize, input: usize| -> Result<Option<PairTensors<'_>>> {
        let path = format!("model.layers.{l}.{name}");
        let Some(LowRank { a, b, scale }) = adapter.pairs.get(&path) else { return Ok(None) };
        used += 1;
        let r = a.size().first().map_or(0, |&r| r as usize);
        check(&format!("{path}.lora_A.weight"), a, &[r as i64, input as i64])?;
        check(&format!("{path}.lora_B.weight"), b, &[out as i64, r as i64])?;
        Ok(Some(PairTensors { a: values(a), b: values(b), r, scale: *scale as f32 }))
    };
    let mut layers = Vec::with_capacity(config.num_hidden_layers);
    for l in 0..config.num_hidden_layers {
        let output = pair(l, "self_attn.o_proj", hidden, queries)?;
        let down = pair(l, "mlp.down_proj", hidden, inner)?;
        let [query, key, value, gate, up] = if config.architecture.fused {
            // Each part of a fused projection has the whole `A`, and its own rows of `B`.
            let qkv = pair(l, "self_attn.qkv_proj", queries + 2 * keys, hidden)?;
            let gate_up = pair(l, "mlp.gate_up_proj", 2 * inner, hidden)?;
            [
                part(qkv, 0, queries),
                part(qkv, queries, keys),
                part(qkv, queries + keys, keys),
                part(gate_up, 0, inner),
                part(gate_up, inner, inner),
            ]
        } else {
            [
                pair(l, "self_attn.q_proj", queries, hidden)?,
                pair(l, "self_attn.k_proj", keys, hidden)?,
                pair(l, "self_attn.v_proj", keys, hidden)?,
                pair(l, "mlp.gate_proj", inner, hidden)?,
                pair(l, "mlp.up_proj", inner, hidden)?,
            ]
        };
        layers.push(LayerPairs { query, key, value, output, gate, up, down });
    }
    if used != adapter.pairs.len() {
        return Err(Error::internal("adapter", "has pairs for projections that the decoder does not have"));
    }
    let score = match (adapter.head, &adapter.score) {
        (Head::Linear, Some(score)) => {
            check("score.weight", score, &[1, hidden as i64])?;
            Some(values(score))
        }
        (Head::Linear, None) => return Err(Error::model("score.weight", "this tensor is missing")),
        _ => None,
    };
    Ok(decoder.adapter(&layers, score))
}

/// The part of a fused projection's difference that adds to `count` of its outputs.
fn part(pair: Option<PairTensors<'_>>, first: usize, count: usize) -> Option<PairTensors<'_>> {
    pair.map(|pair| PairTensors { b: &pair.b[first * pair.r..(first + count) * pair.r], ..pair })
}

/// A tensor of the source, checked.
fn taken(weights: &mut impl WeightSource, name: &str, shape: &[i64]) -> Result<Tensor> {
    let tensor = weights.take(name, shape)?;
    check(name, &tensor, shape)?;
    Ok(tensor)
}

/// Everything that [`values`] depends on.
fn check(name: &str, tensor: &Tensor, shape: &[i64]) -> Result<()> {
    let found = tensor.size();
    if found != shape {
        return Err(Error::model(name, format!("has shape {found:?}; config.json needs {shape:?}")));
    }
    if tensor.kind() != Kind::Float || tensor.device() != Device::Cpu || !tensor.is_contiguous() {
        return Err(Error::internal(name, "the engine takes contiguous f32 tensors on the CPU"));
    }
    Ok(())
}

/// The values of a tensor that went through [`check`].
fn values(tensor: &Tensor) -> &[f32] {
    // SAFETY: contiguous f32 in main memory, `numel` values, and the tensor outlives the slice.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const f32, tensor.numel()) }
}
