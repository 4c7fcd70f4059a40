//! The tensors of a LLaMA-layout model: their names, their shapes, and where each is used.
//!
//! In: a source of tensors by name. Out: [`Weights`], whose members the forward pass reads.

use tch::{Kind, Tensor};

use super::config::ModelConfig;
use super::matrix::{Matrix, Quantizer};
use crate::Result;

/// The seven projections of a layer, in the order of [`Layer::projections`].
pub(crate) const PROJECTIONS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// The module path of projection `p` of layer `l`, for example `model.layers.0.self_attn.q_proj`.
pub(crate) fn module(l: usize, p: usize) -> String {
    let block = if p < 4 { "self_attn" } else { "mlp" };
    format!("model.layers.{l}.{block}.{}", PROJECTIONS[p])
}

/// `[out, in]` of projection `p`.
pub(crate) fn projection_shape(config: &ModelConfig, p: usize) -> [i64; 2] {
    let hidden = config.hidden_size;
    let (queries, keys) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let [out, input] = match PROJECTIONS[p] {
        "q_proj" => [queries, hidden],
        "k_proj" | "v_proj" => [keys, hidden],
        "o_proj" => [hidden, queries],
        "down_proj" => [hidden, config.intermediate_size],
        _ => [config.intermediate_size, hidden],
    };
    [out as i64, input as i64]
}

/// One transformer layer.
pub(crate) struct Layer {
    /// RMSNorm before attention, `[hidden]`.
    pub(crate) input_norm: Tensor,
    /// RMSNorm before the feed-forward part, `[hidden]`.
    pub(crate) post_norm: Tensor,
    /// `[out, in]` each, in the order of [`PROJECTIONS`].
    pub(crate) projections: [Matrix; 7],
}

/// All weights of the backbone.
pub(crate) struct Weights {
    /// `[vocab, hidden]`.
    pub(crate) embedding: Tensor,
    /// The layers in order.
    pub(crate) layers: Vec<Layer>,
    /// The last RMSNorm, `[hidden]`.
    pub(crate) norm: Tensor,
    /// The unembedding `[vocab, hidden]` where it is not the embedding.
    pub(crate) lm_head: Option<Tensor>,
}

pub(crate) const LM_HEAD: &str = "lm_head.weight";

impl Weights {
    /// Asks `take` for every tensor by name and shape. `untied`: whether there is an unembedding of its own.
    /// Projections are quantised one by one as they come.
    pub(crate) fn build(
        config: &ModelConfig,
        untied: bool,
        quantizer: &Quantizer,
        mut take: impl FnMut(&str, &[i64]) -> Result<Tensor>,
    ) -> Result<Self> {
        let (vocab, hidden) = (config.vocab_size as i64, config.hidden_size as i64);
        let embedding = take("model.embed_tokens.weight", &[vocab, hidden])?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for l in 0..config.num_hidden_layers {
            let input_norm = take(&format!("model.layers.{l}.input_layernorm.weight"), &[hidden])?;
            let post_norm = take(&format!("model.layers.{l}.post_attention_layernorm.weight"), &[hidden])?;
            let mut projection = |p| -> Result<Matrix> {
                Ok(quantizer.matrix(take(&format!("{}.weight", module(l, p)), &projection_shape(config, p))?))
            };
            let projections = [
                projection(0)?,
                projection(1)?,
                projection(2)?,
                projection(3)?,
                projection(4)?,
                projection(5)?,
                projection(6)?,
            ];
            layers.push(Layer { input_norm, post_norm, projections });
        }
        let norm = take("model.norm.weight", &[hidden])?;
        let lm_head = if untied { Some(take(LM_HEAD, &[vocab, hidden])?) } else { None };
        Ok(Weights { embedding, layers, norm, lm_head })
    }

    /// Every tensor with its name, in a fixed order; quantised ones as f32 copies.
    pub(crate) fn named(&self) -> Vec<(String, Tensor)> {
        let mut out = vec![("model.embed_tokens.weight".to_string(), self.embedding.shallow_clone())];
        for (l, layer) in self.layers.iter().enumerate() {
            out.push((format!("model.layers.{l}.input_layernorm.weight"), layer.input_norm.shallow_clone()));
            out.push((format!("model.layers.{l}.post_attention_layernorm.weight"), layer.post_norm.shallow_clone()));
            for (p, matrix) in layer.projections.iter().enumerate() {
                let tensor = matrix.plain().map_or_else(|| matrix.dense(Kind::Float), Tensor::shallow_clone);
                out.push((format!("{}.weight", module(l, p)), tensor));
            }
        }
        out.push(("model.norm.weight".to_string(), self.norm.shallow_clone()));
        out.extend(self.lm_head.as_ref().map(|tensor| (LM_HEAD.to_string(), tensor.shallow_clone())));
        out
    }

    /// Whether any projection is quantised.
    pub(crate) fn is_quantized(&self) -> bool {
        self.layers.iter().flat_map(|layer| &layer.projections).any(|matrix| matrix.plain().is_none())
    }

    /// The same weights with `f` applied to each that is not quantised.
    pub(crate) fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Weights {
        Weights {
            embedding: f(&self.embedding),
            layers: self
                .layers
                .iter()
                .map(|layer| Layer {
                    input_norm: f(&layer.input_norm),
                    post_norm: f(&layer.post_norm),
                    projections: layer.projections.each_ref().map(|matrix| matrix.map(&f)),
                })
                .collect(),
            norm: f(&self.norm),
            lm_head: self.lm_head.as_ref().map(&f),
        }
    }

    /// The tensor that turns hidden states into logits, if the checkpoint has one.
    pub(crate) fn unembedding(&self, tied: bool) -> Option<&Tensor> {
        if tied { Some(&self.embedding) } else { self.lm_head.as_ref() }
    }
}
