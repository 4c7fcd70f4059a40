//! The forward pass: token ids to hidden states, logits, log-probabilities and scores.
//!
//! ```text
//! ids_bt ─> embedding ─> layers x (norm, attention, norm, gated feed-forward) ─> norm ─> hidden_bth
//! hidden ─> logits [.., vocab] f32 · scores [..] f32 · token_log_probs [n] f32
//! ```
//!
//! Plain differentiable tensor operations. Attention is causal, so batches padded on the right need no mask: what
//! stands right of a position cannot change it. In bf16, norms, softmax, adapters and heads are computed in f32.
//!
//! Formulas: `architecture`, rotary embeddings in the half-rotation layout of transformers.

use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use super::architecture::{Activation, LayerKind, Rope};
use super::head::{Head, row_difference, token_rows};
use super::lora::project;
use super::network::Network;
use super::weights::{LM_HEAD, Layer};
use crate::torch::{grad_mode, guard, shim, with_grad};
use crate::{Error, Result};

/// The most f32 logits that [`Network::token_log_probs`] makes at once (64 MiB).
const LOGITS_AT_ONCE: usize = 1 << 24;

/// cos and signed sin of every rotary embedding, `[positions, 1, dims]` each in the network's type:
/// `x * cos + swap_halves(x) * sin` rotates.
pub(super) struct Tables {
    positions: i64,
    ropes: Vec<(Tensor, Tensor)>,
}

/// What a model expects after a position.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// The log-probability of the token that comes, in nats; `None` after the last one.
    pub next: Option<f32>,
    /// The likeliest tokens and their log-probabilities, the likeliest first.
    pub likeliest: Vec<(u32, f32)>,
}

/// What all layers of one pass share.
struct Pass {
    batch: i64,
    time: i64,
    ropes: Vec<(Tensor, Tensor)>,
    /// `[time, time]`, true where a position of a sliding layer sees another; only where the window is shorter.
    window: Option<Tensor>,
}

impl Pass {
    /// The same tensors once more.
    fn again(&self) -> Pass {
        Pass {
            batch: self.batch,
            time: self.time,
            ropes: self.ropes.iter().map(|(cos, sin)| (cos.shallow_clone(), sin.shallow_clone())).collect(),
            window: self.window.as_ref().map(Tensor::shallow_clone),
        }
    }
}

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
        let embedded =
            Tensor::embedding(saved.unwrap_or(&self.weights.embedding), ids_n, -1, false, false).to_kind(self.kind);
        match self.config.architecture.embedding_scale {
            1.0 => embedded,
            // Rounded to the network's type first, as in transformers.
            scale => embedded * Tensor::from_slice(&[scale as f32]).to_device(self.device()).to_kind(self.kind),
        }
    }

    /// Hidden states after the last norm: ids `[batch, time]` i64 -> `[batch, time, hidden]` in the network's type.
    ///
    /// # Errors
    /// A model error for ids outside of the vocabulary and for sequences longer than the context.
    pub fn hidden(&self, ids_bt: &Tensor) -> Result<Tensor> {
        guard("model", || {
            let (b, t) = self.check_ids(ids_bt)?;
            let pass = Pass { batch: b, time: t, ropes: self.rotary(t), window: self.window(t) };
            let mut x_nh = self.embed(&ids_bt.reshape([-1]));
            let recomputed = self.gradient_checkpointing && grad_mode();
            let shared = recomputed.then(|| Arc::new(Mutex::new(self.alias())));
            for (l, layer) in self.weights.layers.iter().enumerate() {
                x_nh = match &shared {
                    Some(network) => self.recomputed(network, l, x_nh, &pass)?,
                    None => self.layer(l, layer, x_nh, &pass),
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

    /// cos and signed sin of every rotary embedding for positions `0..t`.
    fn rotary(&self, t: i64) -> Vec<(Tensor, Tensor)> {
        let mut cache = self.rotary.borrow_mut();
        let tables = match cache.take().filter(|tables| tables.positions >= t) {
            Some(tables) => tables,
            None => {
                let positions = (2 * t).min(self.config.max_position_embeddings as i64);
                let ropes = self.config.architecture.ropes.iter();
                Tables { positions, ropes: ropes.map(|rope| self.rotary_tables(rope, positions)).collect() }
            }
        };
        let out = tables.ropes.iter().map(|(cos, sin)| (cos.narrow(0, 0, t), sin.narrow(0, 0, t))).collect();
        *cache = Some(tables);
        out
    }

    fn rotary_tables(&self, rope: &Rope, length: i64) -> (Tensor, Tensor) {
        let _frozen = tch::no_grad_guard();
        let positions = Tensor::arange(length, (Kind::Float, Device::Cpu)).unsqueeze(1);
        let frequencies = Tensor::from_slice(&rope.frequencies(length as usize)).view([-1, rope.dims as i64 / 2]);
        let angles = positions * frequencies;
        let (cos, sin) = (angles.cos() * rope.attention_factor, angles.sin() * rope.attention_factor);
        let place =
            |halves: [Tensor; 2]| Tensor::cat(&halves, 1).unsqueeze(1).to_device(self.device()).to_kind(self.kind);
        (place([cos.shallow_clone(), cos]), place([sin.neg(), sin]))
    }

    /// [`Network::layer`] of which only the input is kept for the backward pass, which computes it again.
    /// `network` has the tensors of `self`.
    fn recomputed(&self, network: &Arc<Mutex<Network>>, l: usize, x_nh: Tensor, pass: &Pass) -> Result<Tensor> {
        // What trains in the first layer hangs on nothing that needs a gradient; a gradient of its input is thrown away.
        let x_nh = if x_nh.requires_grad() { x_nh } else { x_nh.set_requires_grad(true) };
        let y_nh = {
            let _frozen = tch::no_grad_guard();
            self.layer(l, &self.weights.layers[l], x_nh.shallow_clone(), pass)
        };
        let (kept, network, pass) = (x_nh.detach(), Arc::clone(network), pass.again());
        shim::with_backward(&x_nh, y_nh, move |gradient| {
            let network = network.lock().unwrap_or_else(PoisonError::into_inner);
            let input = kept.detach().set_requires_grad(true);
            let output = with_grad(|| network.layer(l, &network.weights.layers[l], input.shallow_clone(), &pass));
            shim::backward(&output, gradient)?;
            Ok(input.grad())
        })
    }

    fn window(&self, t: i64) -> Option<Tensor> {
        let window = self.config.architecture.sliding_window.filter(|&window| (window as i64) < t)?;
        let causal = Tensor::ones([t, t], (Kind::Bool, self.device())).tril(0);
        Some(causal.triu(1 - window as i64))
    }

    fn layer(&self, l: usize, layer: &Layer, x_nh: Tensor, pass: &Pass) -> Tensor {
        let config = &self.config;
        let (b, t) = (pass.batch, pass.time);
        let width = config.head_dim as i64;
        let (queries, keys) = (config.num_attention_heads as i64, config.num_key_value_heads as i64);
        let kind = config.architecture.layers[l];
        // With fused projections there are four: qkv, output, gate and up, down.
        let fused = config.architecture.fused;
        let project = |x: &Tensor, p: usize| self.project(l, layer, x, p);
        let heads = |x: &Tensor, heads: i64| x.view([b, t, heads, width]);

        let y = self.norm(&x_nh, &layer.input_norm);
        let [q, k, v] = if fused {
            let sizes = [queries * width, keys * width, keys * width];
            let mut parts = project(&y, 0).split_with_sizes(sizes, 1).into_iter().map(|part| part.contiguous());
            std::array::from_fn(|_| parts.next().unwrap_or_default())
        } else {
            [project(&y, 0), project(&y, 1), project(&y, 2)]
        };
        let (mut q, mut k, v) = (heads(&q, queries), heads(&k, keys), heads(&v, keys));
        if let Some([query_norm, key_norm]) = &layer.qk_norms {
            (q, k) = (self.norm(&q, query_norm), self.norm(&k, key_norm));
        }
        if let Some(rope) = kind.rope {
            let (cos, sin) = &pass.ropes[rope];
            (q, k) = (rotate(&q, (cos, sin)), rotate(&k, (cos, sin)));
        }
        let mixed = self.attend([q, k, v].map(|x| x.transpose(1, 2)), kind, pass);
        let mut added = project(&mixed.transpose(1, 2).reshape([b * t, queries * width]), if fused { 1 } else { 3 });
        if let Some([after_attention, _]) = &layer.post_norms {
            added = self.norm(&added, after_attention);
        }
        let x_nh = x_nh + added;

        let y = self.norm(&x_nh, &layer.mlp_norm);
        let (gate, up, down) = if fused {
            let both = project(&y, 2);
            let inner = config.intermediate_size as i64;
            (both.narrow(1, 0, inner), both.narrow(1, inner, inner), 3)
        } else {
            (project(&y, 4), project(&y, 5), 6)
        };
        let gate = match config.architecture.activation {
            Activation::Silu => gate.silu(),
            Activation::GeluTanh => gate.gelu("tanh"),
        };
        let mut added = project(&(gate * up), down);
        if let Some([_, after_mlp]) = &layer.post_norms {
            added = self.norm(&added, after_mlp);
        }
        x_nh + added
    }

    /// `x W' + b`, with the adapter's difference.
    fn project(&self, l: usize, layer: &Layer, x: &Tensor, p: usize) -> Tensor {
        let adapter = self.lora.as_ref().and_then(|lora| lora.pair(l, p));
        let linear = &layer.projections[p];
        let y = project(x, &linear.weight, adapter);
        match &linear.bias {
            Some(bias) => y + bias.to_kind(self.kind),
            None => y,
        }
    }

    /// Causal attention of `[batch, heads, time, width]`.
    fn attend(&self, [q, k, v]: [Tensor; 3], kind: LayerKind, pass: &Pass) -> Tensor {
        let architecture = &self.config.architecture;
        let window = pass.window.as_ref().filter(|_| kind.sliding);
        let grouped = q.size()[1] != k.size()[1];
        let scale = 1.0 / architecture.attention_scalar.sqrt();
        let Some(cap) = architecture.attention_softcap else {
            return Tensor::scaled_dot_product_attention(&q, &k, &v, window, 0.0, window.is_none(), scale, grouped);
        };
        let group = q.size()[1] / k.size()[1];
        let spread = |x: Tensor| if grouped { x.repeat_interleave_self_int(group, 1, None) } else { x };
        let (k, v) = (spread(k), spread(v));
        let scores = soft_cap(&(q.matmul(&k.transpose(2, 3)) * scale), cap);
        let seen = match window {
            Some(window) => window.shallow_clone(),
            None => Tensor::ones([pass.time, pass.time], (Kind::Bool, self.device())).tril(0),
        };
        let scores = scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY);
        scores.softmax(-1, Kind::Float).to_kind(self.kind).matmul(&v)
    }

    /// RMSNorm over the last dimension: `x / sqrt(mean(x^2) + eps) * (offset + weight)`, the mean in f32.
    fn norm(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let offset = self.config.architecture.norm_offset;
        let eps = self.config.rms_norm_eps;
        if self.kind == Kind::Float {
            return match offset {
                0.0 => x.rms_norm(weight.size(), Some(weight), eps),
                _ => x.rms_norm(weight.size(), Some(weight + offset), eps),
            };
        }
        let x = x.to_kind(Kind::Float);
        let mean = x.square().mean_dim([-1i64].as_slice(), true, Kind::Float);
        let normed = x * (mean + eps).rsqrt();
        match offset {
            0.0 => normed.to_kind(self.kind) * weight.to_kind(self.kind),
            _ => (normed * (weight.to_kind(Kind::Float) + offset)).to_kind(self.kind),
        }
    }

    /// f32 logits as the unembedding gives them -> as the architecture has them.
    fn capped(&self, logits: Tensor) -> Tensor {
        match self.config.architecture.logit_softcap {
            Some(cap) => soft_cap(&logits, cap),
            None => logits,
        }
    }

    /// Hidden states `[.., hidden]` -> logits `[.., vocab]` f32.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        guard("model", || Ok(self.capped(hidden.linear(&self.unembedding()?, None::<Tensor>).to_kind(Kind::Float))))
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
                    let mut logits_nv = hidden.linear(&unembedding, None::<Tensor>);
                    if self.config.architecture.logit_softcap.is_some() {
                        logits_nv = self.capped(logits_nv.to_kind(Kind::Float));
                    }
                    logits_nv.log_softmax(-1, Kind::Float).gather(1, &targets.unsqueeze(1), false).squeeze_dim(1)
                })
                .collect();
            Ok(Tensor::cat(&pieces, 0))
        })
    }

    /// What the model expects after each of `ids`, without gradients: the log-probability of the token that does come,
    /// and the `count` likeliest tokens.
    ///
    /// # Errors
    /// As [`Network::hidden`].
    pub fn expectations(&self, ids: &[u32], count: usize) -> Result<Vec<Expectation>> {
        guard("model", || {
            let _frozen = tch::no_grad_guard();
            let ids_t = Tensor::from_slice(&ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>());
            let hidden_th = self.hidden(&ids_t.unsqueeze(0).to_device(self.device()))?.squeeze_dim(0);
            let count = count.min(self.config.vocab_size);
            let rows = (LOGITS_AT_ONCE / self.config.vocab_size).max(1);
            let mut out = Vec::with_capacity(ids.len());
            for hidden in hidden_th.split(rows as i64, 0) {
                let log_probs = self.logits(&hidden)?.log_softmax(-1, Kind::Float).to_device(Device::Cpu);
                let (values, tokens) = log_probs.topk(count as i64, -1, true, true);
                for row in 0..log_probs.size()[0] {
                    let next = ids.get(out.len() + 1);
                    let next = next.map(|&id| log_probs.double_value(&[row, i64::from(id)]) as f32);
                    let values = Vec::<f32>::try_from(values.get(row))?;
                    let tokens = Vec::<i64>::try_from(tokens.get(row))?;
                    let likeliest = tokens.into_iter().map(|id| id as u32).zip(values).collect();
                    out.push(Expectation { next, likeliest });
                }
            }
            Ok(out)
        })
    }

    /// The head's scores: hidden states `[.., hidden]` -> `[..]` f32.
    ///
    /// # Errors
    /// A model error for a network with [`Head::None`].
    pub fn scores(&self, hidden: &Tensor) -> Result<Tensor> {
        guard("reward head", || {
            if let (Head::YesNo { yes, no }, Some(_)) = (self.head, self.config.architecture.logit_softcap) {
                let rows = token_rows(&self.unembedding()?, yes, no);
                let logits = self.capped(hidden.to_kind(Kind::Float).linear(&rows, None::<Tensor>));
                return Ok(logits.select(-1, 0) - logits.select(-1, 1));
            }
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
    let (width, dims) = (x.size()[3], cos.size()[2]);
    if dims < width {
        let rotated = rotate(&x.narrow(3, 0, dims), (cos, sin));
        return Tensor::cat(&[rotated, x.narrow(3, dims, width - dims)], 3);
    }
    (x * cos).addcmul_(&x.roll([width / 2], [-1]), sin)
}

/// `cap * tanh(x / cap)`.
fn soft_cap(x: &Tensor, cap: f64) -> Tensor {
    (x / cap).tanh() * cap
}
