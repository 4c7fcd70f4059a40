//! LoRA (arXiv 2106.09685): a low-rank, trainable difference `lora_alpha / r * B A` to frozen projections.
//!
//! In: a [`LoraConfig`] and a key to draw from, or a PEFT folder. Out: a [`Lora`], the pairs `A [r, in]`,
//! `B [out, r]` in f32 per layer and projection. Names are PEFT's, so that peft opens what we save.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::weights::{PROJECTIONS, Projection, module, projection_shape, projections};
use crate::draw::{Key, key};
use crate::{Error, Result};

/// Rank, scale and place of an adapter, with PEFT's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank.
    pub r: i64,
    /// The difference is scaled by `lora_alpha / r`.
    pub lora_alpha: f64,
    /// Any of `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`; where the architecture
    /// fuses them, `qkv_proj` and `gate_up_proj`.
    pub target_modules: Vec<String>,
}

impl LoraConfig {
    /// `place` names the file or table the values came from.
    pub(crate) fn check(&self, place: &str) -> Result<()> {
        let wrong = |problem: String| Err(Error::config(place, problem));
        if self.r < 1 {
            return wrong(format!("r: {} is not a positive rank", self.r));
        }
        if !self.lora_alpha.is_finite() || self.lora_alpha <= 0.0 {
            return wrong(format!("lora_alpha: {} is not a positive number", self.lora_alpha));
        }
        if self.target_modules.is_empty() {
            return wrong(format!("target_modules: empty; choose some of {}", PROJECTIONS.join(", ")));
        }
        match self.target_modules.iter().find(|name| !PROJECTIONS.contains(&name.as_str())) {
            Some(name) => wrong(format!("target_modules: {name:?} is not one of {}", PROJECTIONS.join(", "))),
            None => Ok(()),
        }
    }
}

/// One projection's difference.
pub(crate) struct Pair {
    /// `[r, in]` f32.
    pub(crate) a: Tensor,
    /// `[out, r]` f32.
    pub(crate) b: Tensor,
}

/// The adapter of a whole network.
pub(crate) struct Lora {
    pub(crate) config: LoraConfig,
    /// Per layer, in the order of [`projections`].
    layers: Vec<Vec<(&'static Projection, Option<Pair>)>>,
}

impl Lora {
    /// Asks `take` for the two tensors of every targeted projection, by PEFT name and shape.
    pub(crate) fn build(
        lora: &LoraConfig,
        model: &ModelConfig,
        mut take: impl FnMut(&str, &[i64]) -> Result<Tensor>,
    ) -> Result<Self> {
        let known = model.projections();
        if let Some(name) = lora.target_modules.iter().find(|name| !known.contains(&name.as_str())) {
            let (family, known) = (model.architecture.family.causal, known.join(", "));
            let problem = format!("target_modules: {name:?} is no projection of {family}; it has {known}");
            return Err(Error::config("LoRA adapter", problem));
        }
        let mut layers = Vec::with_capacity(model.num_hidden_layers);
        for l in 0..model.num_hidden_layers {
            let mut pairs = Vec::new();
            for projection in projections(model) {
                let mut pair = None;
                if lora.target_modules.iter().any(|name| name == projection.name) {
                    let [out, input] = projection_shape(model, projection);
                    let [name_a, name_b] = names(l, projection);
                    pair = Some(Pair { a: take(&name_a, &[lora.r, input])?, b: take(&name_b, &[out, lora.r])? });
                }
                pairs.push((projection, pair));
            }
            layers.push(pairs);
        }
        Ok(Lora { config: lora.clone(), layers })
    }

    /// A fresh adapter: `A` from U(-1/sqrt(in), 1/sqrt(in)) (Kaiming-uniform with slope sqrt(5), as PEFT has it),
    /// drawn by tensor name; `B` zero, so that it changes nothing yet.
    pub(crate) fn fresh(lora: &LoraConfig, model: &ModelConfig, seed: Key, device: Device) -> Result<Self> {
        Lora::build(lora, model, |name, shape| {
            let (rows, columns) = (shape[0], shape[1]);
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
            (*projection, pair.as_ref().map(|pair| Pair { a: f(&pair.a), b: f(&pair.b) }))
        };
        Lora {
            config: self.config.clone(),
            layers: self.layers.iter().map(|layer| layer.iter().map(copy).collect()).collect(),
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
        out
    }

    /// The pair of projection `p` of layer `l`.
    pub(crate) fn pair(&self, l: usize, p: usize) -> Option<&Pair> {
        self.layers.get(l)?.get(p)?.1.as_ref()
    }

    /// `lora_alpha / r`.
    pub(crate) fn scale(&self) -> f64 {
        self.config.lora_alpha / self.config.r as f64
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
pub(crate) fn project(x: &Tensor, weight: &Tensor, adapter: Option<(&Pair, f64)>) -> Tensor {
    let y = x.linear(weight, None::<Tensor>);
    let Some((pair, scale)) = adapter else { return y };
    let kind = y.kind();
    let low = x.to_kind(Kind::Float).linear(&pair.a, None::<Tensor>) * scale;
    y.to_kind(Kind::Float).addmm_(&low, &pair.b.tr()).to_kind(kind)
}

/// `W + scale * B A` in f32.
pub(crate) fn merge(weight: &Tensor, pair: &Pair, scale: f64) -> Tensor {
    weight.to_kind(Kind::Float) + pair.b.matmul(&pair.a) * scale
}
