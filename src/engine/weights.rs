//! From a model's tensors to packed weights.
//!
//! In: a [`ModelConfig`], a [`WeightSource`], a [`Head`]. Out: a [`Decoder`], or a model error that names the tensor,
//! its shape and the shape it should have. A tensor is taken, packed and dropped before the next one is taken, the
//! largest ones first, so that packing a model that is read meanwhile holds it once.

use tch::{Device, Kind, Tensor};

use super::native::{Decoder, Instructions, Layer, LayerTensors, Parts, Shape};
use crate::model::{Head, ModelConfig, WeightSource};
use crate::{Error, Result};

/// Checks and packs the weights.
pub(super) fn pack(
    config: &ModelConfig,
    weights: &mut impl WeightSource,
    head: Head,
    instructions: Instructions,
) -> Result<Decoder> {
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let shape = Shape {
        vocab,
        hidden,
        intermediate: config.intermediate_size,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        eps: config.rms_norm_eps as f32,
        context: config.max_position_embeddings,
    };
    let (embedding, unembedding) = {
        let embedding = Plain::take(weights, "model.embed_tokens.weight", &[vocab, hidden])?;
        if config.tie_word_embeddings {
            (None, Parts::matrix(embedding.values(), vocab, hidden))
        } else {
            let rows = Parts::rows(embedding.values(), hidden);
            drop(embedding);
            let unembedding = Plain::take(weights, "lm_head.weight", &[vocab, hidden])?;
            (Some(rows), Parts::matrix(unembedding.values(), vocab, hidden))
        }
    };
    let mut layers = Vec::with_capacity(config.num_hidden_layers);
    for i in 0..config.num_hidden_layers {
        layers.push(layer(config, &shape, weights, i)?);
        give_memory_back();
    }
    let parts = Parts {
        embedding,
        layers,
        norm: Parts::vector(Plain::take(weights, "model.norm.weight", &[hidden])?.values()),
        unembedding,
        score: match head {
            Head::Linear => {
                Some(Parts::matrix(Plain::take(weights, "score.weight", &[1, hidden])?.values(), 1, hidden))
            }
            Head::None | Head::YesNo { .. } => None,
        },
        frequencies: config.inverse_frequencies(),
    };
    Decoder::new(shape, parts, instructions)
        .ok_or_else(|| Error::config("engine options", format!("this processor has no {instructions:?} instructions")))
}

fn layer(config: &ModelConfig, shape: &Shape, weights: &mut impl WeightSource, index: usize) -> Result<Layer> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let heads = config.num_attention_heads * config.head_dim;
    let kv_heads = config.num_key_value_heads * config.head_dim;
    let mut take =
        |name: &str, shape: &[usize]| Plain::take(weights, &format!("model.layers.{index}.{name}.weight"), shape);
    let (attention_norm, mlp_norm) =
        (take("input_layernorm", &[hidden])?, take("post_attention_layernorm", &[hidden])?);
    let (query, key) = (take("self_attn.q_proj", &[heads, hidden])?, take("self_attn.k_proj", &[kv_heads, hidden])?);
    let (value, output) = (take("self_attn.v_proj", &[kv_heads, hidden])?, take("self_attn.o_proj", &[hidden, heads])?);
    let (gate, up) = (take("mlp.gate_proj", &[intermediate, hidden])?, take("mlp.up_proj", &[intermediate, hidden])?);
    let down = take("mlp.down_proj", &[hidden, intermediate])?;
    let tensors = LayerTensors {
        attention_norm: attention_norm.values(),
        query: query.values(),
        key: key.values(),
        value: value.values(),
        output: output.values(),
        mlp_norm: mlp_norm.values(),
        gate: gate.values(),
        up: up.values(),
        down: down.values(),
    };
    Ok(Layer::new(shape, &tensors))
}

/// Returns the memory of dropped tensors to the system, which the C library would keep between the packed ones.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: frees nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A tensor whose memory may be read: f32, contiguous, in main memory, of the right shape.
struct Plain(Tensor);

impl Plain {
    fn take(weights: &mut impl WeightSource, name: &str, shape: &[usize]) -> Result<Self> {
        let wanted: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let tensor = weights.take(name, &wanted)?;
        let found = tensor.size();
        if found != wanted {
            return Err(Error::model(name, format!("has shape {found:?}; config.json needs {shape:?}")));
        }
        if tensor.kind() != Kind::Float || tensor.device() != Device::Cpu || !tensor.is_contiguous() {
            return Err(Error::internal(name, "the engine takes contiguous f32 tensors on the CPU"));
        }
        Ok(Plain(tensor))
    }

    fn values(&self) -> &[f32] {
        // SAFETY: contiguous f32 in main memory, `numel` values, which live as long as the tensor.
        unsafe { std::slice::from_raw_parts(self.0.data_ptr() as *const f32, self.0.numel()) }
    }
}
