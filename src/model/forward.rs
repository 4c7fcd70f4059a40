//! The forward pass: token ids to hidden states, logits, log-probabilities and scores.
//!
//! ```text
//! ids_bt ─> embedding ─> layers x (RMSNorm, RoPE attention, RMSNorm, SwiGLU) ─> RMSNorm ─> hidden_bth
//! hidden ─> logits [.., vocab] f32 · scores [..] f32 · token_log_probs [n] f32
//! ```
//!
//! Plain differentiable tensor operations. Attention is causal, so batches padded on the right need no mask: what
//! stands right of a position cannot change it. In bf16, norms, softmax, adapters and heads are computed in f32.
//!
//! Formulas: LLaMA (arXiv 2302.13971), rotary embeddings in the half-rotation layout of transformers.

use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use super::head::{Head, row_difference};
use super::lora::project;
use super::network::Network;
use super::weights::{LM_HEAD, Layer};
use crate::torch::{grad_mode, guard, shim, with_grad};
use crate::{Error, Result};

/// The most f32 logits that [`Network::token_log_probs`] makes at once (64 MiB).
const LOGITS_AT_ONCE: usize = 1 << 24;

impl Network {
    /// `[vocab, hidden]` in the network's type; the one of the adapter where it has one.
    pub(super) fn unembedding(&self) -> Result<Tensor> {
        let saved = self.lora.as_ref().and_then(|lora| lora.lm_head.as_ref());
        let tensor = saved.or_else(|| self.weights.unembedding(self.config.tie_word_embeddings)).ok_or_else(|| {
            Error::model(
                &self.base,
                format!("has no {LM_HEAD} (it is a classifier), so it gives no token probabilities"),
            )
        })?;
        Ok(tensor.to_kind(self.kind))
    }

    /// The embedded tokens `ids_n`: `[n, hidden]` in the network's type.
    fn embed(&self, ids_n: &Tensor) -> Tensor {
        let saved = self.lora.as_ref().and_then(|lora| lora.embedding.as_ref());
        Tensor::embedding(saved.unwrap_or(&self.weights.embedding), ids_n, -1, false, false).to_kind(self.kind)
    }

    /// Hidden states after the last norm: ids `[batch, time]` i64 -> `[batch, time, hidden]` in the network's type.
    ///
    /// # Errors
    /// A model error for ids outside of the vocabulary and for sequences longer than the context.
    pub fn hidden(&self, ids_bt: &Tensor) -> Result<Tensor> {
        guard("model", || {
            let (b, t) = self.check_ids(ids_bt)?;
            let (cos, sin) = self.rotary(t);
            let mut x_nh = self.embed(&ids_bt.reshape([-1]));
            let recomputed = self.gradient_checkpointing && grad_mode();
            let shared = recomputed.then(|| Arc::new(Mutex::new(self.alias())));
            for (l, layer) in self.weights.layers.iter().enumerate() {
                x_nh = match &shared {
                    Some(network) => self.recomputed(network, l, x_nh, b, t, (&cos, &sin))?,
                    None => self.layer(l, layer, x_nh, b, t, (&cos, &sin)),
                };
            }
            Ok(self.norm(&x_nh, &self.weights.norm).view([b, t, self.config.hidden_size as i64]))
        })
    }

    fn check_ids(&self, ids_bt: &Tensor) -> Result<(i64, i64)> {
        let wrong = |problem: String| Err(Error::model("model input", problem));
        let (b, t) = match ids_bt.size().as_slice() {
            [b, t] if *b > 0 && *t > 0 && ids_bt.kind() == Kind::Int64 => (*b, *t),
            shape => return wrong(format!("ids have shape {shape:?}; a non-empty [batch, time] of i64 is needed")),
        };
        let context = self.config.max_position_embeddings;
        if t as usize > context {
            return wrong(format!("{t} tokens are more than the model's context of {context}; shorten the text"));
        }
        let (low, high) = (ids_bt.min().int64_value(&[]), ids_bt.max().int64_value(&[]));
        if low < 0 || high >= self.config.vocab_size as i64 {
            let id = if low < 0 { low } else { high };
            return wrong(format!("token id {id} is outside of the vocabulary of {}", self.config.vocab_size));
        }
        Ok((b, t))
    }

    /// cos and signed sin for positions `0..t`, `[t, 1, head_dim]` in the network's type: `x * cos +
    /// swap_halves(x) * sin` rotates.
    fn rotary(&self, t: i64) -> (Tensor, Tensor) {
        let mut cache = self.rotary.borrow_mut();
        let (cos, sin) = match cache.take().filter(|(cos, _)| cos.size()[0] >= t) {
            Some(tables) => tables,
            None => self.rotary_tables((2 * t).min(self.config.max_position_embeddings as i64)),
        };
        let out = (cos.narrow(0, 0, t), sin.narrow(0, 0, t));
        *cache = Some((cos, sin));
        out
    }

    fn rotary_tables(&self, length: i64) -> (Tensor, Tensor) {
        let _frozen = tch::no_grad_guard();
        let positions = Tensor::arange(length, (Kind::Float, Device::Cpu)).unsqueeze(1);
        let angles = positions * Tensor::from_slice(&self.config.inverse_frequencies()).unsqueeze(0);
        let (cos, sin) = (angles.cos(), angles.sin());
        let place =
            |halves: [Tensor; 2]| Tensor::cat(&halves, 1).unsqueeze(1).to_device(self.device()).to_kind(self.kind);
        (place([cos.shallow_clone(), cos]), place([sin.neg(), sin]))
    }

    /// [`Network::layer`] of which only the input is kept for the backward pass, which computes it again.
    /// `network` has the tensors of `self`.
    fn recomputed(
        &self,
        network: &Arc<Mutex<Network>>,
        l: usize,
        x_nh: Tensor,
        b: i64,
        t: i64,
        rotary: (&Tensor, &Tensor),
    ) -> Result<Tensor> {
        // What trains in the first layer hangs on nothing that needs a gradient; a gradient of its input is thrown away.
        let x_nh = if x_nh.requires_grad() { x_nh } else { x_nh.set_requires_grad(true) };
        let y_nh = {
            let _frozen = tch::no_grad_guard();
            self.layer(l, &self.weights.layers[l], x_nh.shallow_clone(), b, t, rotary)
        };
        let (kept, network) = (x_nh.detach(), Arc::clone(network));
        let (cos, sin) = (rotary.0.shallow_clone(), rotary.1.shallow_clone());
        shim::with_backward(&x_nh, y_nh, move |gradient| {
            let network = network.lock().unwrap_or_else(PoisonError::into_inner);
            let input = kept.detach().set_requires_grad(true);
            let output =
                with_grad(|| network.layer(l, &network.weights.layers[l], input.shallow_clone(), b, t, (&cos, &sin)));
            shim::backward(&output, gradient)?;
            Ok(input.grad())
        })
    }

    fn layer(&self, l: usize, layer: &Layer, x_nh: Tensor, b: i64, t: i64, rotary: (&Tensor, &Tensor)) -> Tensor {
        let config = &self.config;
        let width = config.head_dim as i64;
        let (queries, keys) = (config.num_attention_heads as i64, config.num_key_value_heads as i64);
        let project = |x: &Tensor, p: usize| {
            project(x, &layer.projections[p], self.lora.as_ref().and_then(|lora| lora.pair(l, p)))
        };
        let y = self.norm(&x_nh, &layer.input_norm);
        let q = rotate(&project(&y, 0).view([b, t, queries, width]), rotary).transpose(1, 2);
        let k = rotate(&project(&y, 1).view([b, t, keys, width]), rotary).transpose(1, 2);
        let v = project(&y, 2).view([b, t, keys, width]).transpose(1, 2);
        let grouped = queries != keys;
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, true, None, grouped);
        let x_nh = x_nh + project(&mixed.transpose(1, 2).reshape([b * t, queries * width]), 3);
        let y = self.norm(&x_nh, &layer.post_norm);
        let gated = project(&y, 4).silu() * project(&y, 5);
        x_nh + project(&gated, 6)
    }

    /// RMSNorm: `x / sqrt(mean(x^2) + eps) * weight`, the mean in f32.
    fn norm(&self, x_nh: &Tensor, weight: &Tensor) -> Tensor {
        if self.kind == Kind::Float {
            return x_nh.rms_norm([self.config.hidden_size as i64], Some(weight), self.config.rms_norm_eps);
        }
        let x = x_nh.to_kind(Kind::Float);
        let mean = x.square().mean_dim([-1i64].as_slice(), true, Kind::Float);
        (x * (mean + self.config.rms_norm_eps).rsqrt()).to_kind(self.kind) * weight.to_kind(self.kind)
    }

    /// Hidden states `[.., hidden]` -> logits `[.., vocab]` f32.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        guard("model", || Ok(hidden.linear(&self.unembedding()?, None::<Tensor>).to_kind(Kind::Float)))
    }

    /// `log p(ids[t + 1] | ids[..= t])` in nats for every position but the last: ids `[batch, time]` ->
    /// `[batch, time - 1]` f32.
    pub fn log_probs(&self, ids_bt: &Tensor) -> Result<Tensor> {
        guard("model", || {
            let (b, t) = self.check_ids(ids_bt)?;
            if t < 2 {
                return Err(Error::model("model input", "log-probabilities need sequences of two tokens or more"));
            }
            let hidden_nh = self.hidden(ids_bt)?.narrow(1, 0, t - 1).reshape([b * (t - 1), -1]);
            let targets_n = ids_bt.narrow(1, 1, t - 1).reshape([-1]);
            Ok(self.token_log_probs(&hidden_nh, &targets_n)?.view([b, t - 1]))
        })
    }

    /// The log-probability of `targets_n` `[n]` i64 after the positions with `hidden_nh` `[n, hidden]`: `[n]` f32
    /// nats. Computes logits for a bounded number of rows at a time (all are kept where gradients are needed).
    pub fn token_log_probs(&self, hidden_nh: &Tensor, targets_n: &Tensor) -> Result<Tensor> {
        guard("model", || {
            let unembedding = self.unembedding()?;
            let rows = (LOGITS_AT_ONCE / self.config.vocab_size).max(1) as i64;
            let pieces: Vec<Tensor> = hidden_nh
                .split(rows, 0)
                .iter()
                .zip(targets_n.split(rows, 0))
                .map(|(hidden, targets)| {
                    let logits_nv = hidden.linear(&unembedding, None::<Tensor>);
                    logits_nv.log_softmax(-1, Kind::Float).gather(1, &targets.unsqueeze(1), false).squeeze_dim(1)
                })
                .collect();
            Ok(Tensor::cat(&pieces, 0))
        })
    }

    /// The head's scores: hidden states `[.., hidden]` -> `[..]` f32.
    ///
    /// # Errors
    /// A model error for a network with [`Head::None`].
    pub fn scores(&self, hidden: &Tensor) -> Result<Tensor> {
        guard("reward head", || {
            let direction = match (self.head, &self.score) {
                (Head::YesNo { yes, no }, _) => row_difference(&self.unembedding()?, yes, no),
                (Head::Linear, Some(score)) => score.shallow_clone(),
                _ => return Err(Error::model(&self.base, "has no reward head; train one, or use the Yes/No head")),
            };
            Ok(hidden.to_kind(Kind::Float).matmul(&direction.squeeze_dim(0)))
        })
    }
}

/// Rotary embedding of `[batch, time, heads, head_dim]`.
fn rotate(x: &Tensor, (cos, sin): (&Tensor, &Tensor)) -> Tensor {
    let half = x.size()[3] / 2;
    (x * cos).addcmul_(&x.roll([half], [-1]), sin)
}
