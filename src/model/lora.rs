//! LoRA (arXiv 2106.09685): a low-rank, trainable difference `scale * B A` to frozen projections.
//!
//! In: a [`LoraConfig`] and a key to draw from, or a PEFT folder. Out: a [`Lora`], the pairs `A [r, in]`,
//! `B [out, r]` in f32 per layer and projection, and trainable copies of whole modules. Names are PEFT's, so that
//! peft opens what we save.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::head::Head;
use super::lora_config::{LoraConfig, Place};
use super::matrix::Matrix;
use super::weights::{LM_HEAD, Projection, Weights, module, projection_shape, projections};
use crate::draw::{Key, key};
use crate::{Error, Result};

/// One projection's difference.
pub(crate) struct Pair {
    /// `[r, in]` f32.
    pub(crate) a: Tensor,
    /// `[out, r]` f32.
    pub(crate) b: Tensor,
    /// What `B A` is multiplied by.
    pub(crate) scale: f64,
}

/// The adapter of a whole network.
pub(crate) struct Lora {
    pub(crate) config: LoraConfig,
    /// Per layer, in the order of [`projections`].
    layers: Vec<Vec<(&'static Projection, Option<Pair>)>>,
    /// In place of the embedding, `[vocab, hidden]` f32.
    pub(crate) embedding: Option<Tensor>,
    /// In place of the unembedding, `[vocab, hidden]` f32.
    pub(crate) lm_head: Option<Tensor>,
}

/// An adapter's tensors as they are now, for a decoder that adds them to the base row by row: f32 on the CPU.
#[derive(Debug)]
pub struct AdapterWeights {
    /// By module path, for example `model.layers.0.self_attn.q_proj`.
    pub pairs: BTreeMap<String, LowRank>,
    /// The head.
    pub head: Head,
    /// `score.weight` `[1, hidden]` with [`Head::Linear`].
    pub score: Option<Tensor>,
}

/// A low-rank difference `scale * B A`.
#[derive(Debug)]
pub struct LowRank {
    /// `[r, in]`.
    pub a: Tensor,
    /// `[out, r]`.
    pub b: Tensor,
    /// The factor.
    pub scale: f64,
}

/// The embedding's name.
const EMBEDDING: &str = "model.embed_tokens.weight";

impl Lora {
    /// Asks `take` for the two tensors of every targeted projection and for those of the saved modules, by PEFT name
    /// and shape.
    pub(crate) fn build(
        lora: &LoraConfig,
        model: &ModelConfig,
        mut take: impl FnMut(&str, &[i64]) -> Result<Tensor>,
    ) -> Result<Self> {
        let mut layers = Vec::with_capacity(model.num_hidden_layers);
        for (l, places) in lora.places(model)?.into_iter().enumerate() {
            let mut pairs = Vec::with_capacity(places.len());
            for (projection, place) in projections(model).iter().zip(places) {
                let mut pair = None;
                if let Some(Place { r, scale }) = place {
                    let [out, input] = projection_shape(model, projection);
                    let [name_a, name_b] = names(l, projection);
                    pair = Some(Pair { a: take(&name_a, &[r, input])?, b: take(&name_b, &[out, r])?, scale });
                }
                pairs.push((projection, pair));
            }
            layers.push(pairs);
        }
        let shape = [model.vocab_size as i64, model.hidden_size as i64];
        let mut saved = |module: &str, name: &str| -> Result<Option<Tensor>> {
            if !lora.saves(module) {
                return Ok(None);
            }
            // peft would train a copy that the tied other one does not follow.
            if model.tie_word_embeddings {
                let problem = format!("{module} is tied to its other half in this model, which is not supported");
                return Err(Error::config("modules_to_save", problem));
            }
            take(&format!("{PREFIX}{name}"), &shape).map(Some)
        };
        let (embedding, lm_head) = (saved("embed_tokens", EMBEDDING)?, saved("lm_head", LM_HEAD)?);
        Ok(Lora { config: lora.clone(), layers, embedding, lm_head })
    }

    /// A fresh adapter: `A` from U(-1/sqrt(in), 1/sqrt(in)) (Kaiming-uniform with slope sqrt(5), as PEFT has it),
    /// drawn by tensor name; `B` zero, and copies of the saved modules of `base`, so that it changes nothing yet.
    pub(crate) fn fresh(
        lora: &LoraConfig,
        model: &ModelConfig,
        base: &Weights,
        seed: Key,
        device: Device,
    ) -> Result<Self> {
        Lora::build(lora, model, |name, shape| {
            let (rows, columns) = (shape[0], shape[1]);
            if name.ends_with(EMBEDDING) {
                return Ok(base.embedding.detach().to_kind(Kind::Float).copy());
            }
            if name.ends_with(LM_HEAD) {
                let missing = || Error::config("modules_to_save", "the base is a classifier and has no lm_head");
                let head = base.lm_head.as_ref().ok_or_else(missing)?;
                return Ok(head.detach().to_kind(Kind::Float).copy());
            }
            if name.contains(".lora_B.") {
                return Ok(Tensor::zeros([rows, columns], (Kind::Float, device)));
            }
            let stream = key(seed.bits(), &[name]);
            let bound = 1.0 / (columns as f64).sqrt();
            let values: Vec<f32> =
                (0..(rows * columns) as u64).map(|i| ((2.0 * stream.uniform(i) - 1.0) * bound) as f32).collect();
            Ok(Tensor::from_slice(&values).view([rows, columns]).to_device(device))
        })
    }

    /// The same adapter with `f` applied to each tensor.
    pub(crate) fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Lora {
        let copy = |(projection, pair): &(&'static Projection, Option<Pair>)| {
            (*projection, pair.as_ref().map(|pair| Pair { a: f(&pair.a), b: f(&pair.b), scale: pair.scale }))
        };
        Lora {
            config: self.config.clone(),
            layers: self.layers.iter().map(|layer| layer.iter().map(copy).collect()).collect(),
            embedding: self.embedding.as_ref().map(&f),
            lm_head: self.lm_head.as_ref().map(&f),
        }
    }

    /// Every tensor with its PEFT name, in a fixed order.
    pub(crate) fn named(&self) -> Vec<(String, &Tensor)> {
        let mut out = Vec::new();
        for (l, layer) in self.layers.iter().enumerate() {
            for (projection, pair) in layer {
                if let Some(pair) = pair {
                    let [name_a, name_b] = names(l, projection);
                    out.push((name_a, &pair.a));
                    out.push((name_b, &pair.b));
                }
            }
        }
        out.extend(self.embedding.as_ref().map(|tensor| (format!("{PREFIX}{EMBEDDING}"), tensor)));
        out.extend(self.lm_head.as_ref().map(|tensor| (format!("{PREFIX}{LM_HEAD}"), tensor)));
        out
    }

    /// The pairs by module path, with copies of their tensors.
    pub(crate) fn pairs(&self) -> BTreeMap<String, LowRank> {
        let copy = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).contiguous().copy();
        let mut out = BTreeMap::new();
        for (l, layer) in self.layers.iter().enumerate() {
            for (projection, pair) in layer {
                let Some(pair) = pair else { continue };
                out.insert(module(l, projection), LowRank { a: copy(&pair.a), b: copy(&pair.b), scale: pair.scale });
            }
        }
        out
    }

    /// The pair of projection `p` of layer `l`.
    pub(crate) fn pair(&self, l: usize, p: usize) -> Option<&Pair> {
        self.layers.get(l)?.get(p)?.1.as_ref()
    }

    /// The adapter's own copy of the weight with this Hugging Face name.
    pub(crate) fn saved(&self, name: &str) -> Option<&Tensor> {
        match name {
            EMBEDDING => self.embedding.as_ref(),
            LM_HEAD => self.lm_head.as_ref(),
            _ => None,
        }
    }

    /// The pair of the weight with this Hugging Face name.
    pub(crate) fn pair_of(&self, name: &str) -> Option<&Pair> {
        let path = name.strip_suffix(".weight")?;
        let layer: usize = path.strip_prefix("model.layers.")?.split_once('.')?.0.parse().ok()?;
        let found = self.layers.get(layer)?.iter().find(|(projection, _)| module(layer, projection) == path);
        found.and_then(|(_, pair)| pair.as_ref())
    }
}

/// What PEFT puts before every module path.
pub(crate) const PREFIX: &str = "base_model.model.";

fn names(l: usize, projection: &Projection) -> [String; 2] {
    let module = module(l, projection);
    [format!("{PREFIX}{module}.lora_A.weight"), format!("{PREFIX}{module}.lora_B.weight")]
}

/// `x W' + scale * x A' B'` for `x [n, in]`, `W [out, in]`: `[n, out]` in the type of `x`. The low-rank part is
/// computed in f32.
pub(crate) fn project(x: &Tensor, weight: &Matrix, adapter: Option<&Pair>) -> Tensor {
    let y = weight.linear(x);
    let Some(pair) = adapter else { return y };
    let kind = y.kind();
    let low = x.to_kind(Kind::Float).linear(&pair.a, None::<Tensor>) * pair.scale;
    y.to_kind(Kind::Float).addmm_(&low, &pair.b.tr()).to_kind(kind)
}

/// `W + scale * B A` in f32.
pub(crate) fn merge(weight: &Matrix, pair: &Pair) -> Tensor {
    weight.dense(Kind::Float) + pair.b.matmul(&pair.a) * pair.scale
}
