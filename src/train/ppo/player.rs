//! What a PPO worker does with a micro-batch.
//!
//! ```text
//! Piece ─┬─> policy ─> logprobs_n, entropy ─┐
//!        ├─> reference ─> ref_logprobs_n    ├─ evaluate: numbers only
//!        └─> value ─> values_n              ┘
//!        └─> policy, value ─> losses ─> gradients      (learn)
//! ```
//!
//! Both go through the same forward pass on the same rows, so before the first update the probability ratio of
//! every token is exactly 1.

use tch::{Device, Kind, Tensor};

use super::loss::{policy_loss, value_loss};
use super::rows::{Evaluation, Piece, Targets};
use crate::Result;
use crate::model::Network;
use crate::train::gradient::{Gradients, Replica};

/// The networks of one worker.
pub(super) struct Player {
    pub(super) policy: Replica,
    pub(super) reference: Replica,
    pub(super) value: Replica,
}

/// The constants of the losses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) temperature: f64,
    pub(super) cliprange: f64,
    pub(super) cliprange_value: f64,
    pub(super) vf_coef: f64,
    /// Response tokens of the whole mini-batch.
    pub(super) tokens: f64,
}

/// What one micro-batch adds to an update: sums over its tokens.
pub(super) struct Lesson {
    pub(super) policy: Gradients,
    pub(super) value: Gradients,
    pub(super) sums: Sums,
}

/// Sums over tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) policy_loss: f64,
    pub(super) value_loss: f64,
    pub(super) approx_kl: f64,
    pub(super) policy_clipped: f64,
    pub(super) value_clipped: f64,
    pub(super) entropy: f64,
    pub(super) ratio: f64,
}

impl Sums {
    pub(super) fn add(&mut self, other: Sums) {
        self.policy_loss += other.policy_loss;
        self.value_loss += other.value_loss;
        self.approx_kl += other.approx_kl;
        self.policy_clipped += other.policy_clipped;
        self.value_clipped += other.value_clipped;
        self.entropy += other.entropy;
        self.ratio += other.ratio;
    }

    /// Means over `tokens` tokens.
    pub(super) fn means(&self, tokens: f64) -> Sums {
        Sums {
            policy_loss: self.policy_loss / tokens,
            value_loss: self.value_loss / tokens,
            approx_kl: self.approx_kl / tokens,
            policy_clipped: self.policy_clipped / tokens,
            value_clipped: self.value_clipped / tokens,
            entropy: self.entropy / tokens,
            ratio: self.ratio / tokens,
        }
    }
}

impl Player {
    /// Log-probabilities and values of a piece's rows, without gradients.
    pub(super) fn evaluate(&mut self, piece: &Piece, temperature: f64) -> Result<Vec<(usize, Evaluation)>> {
        let _no_grad = tch::no_grad_guard();
        let (logprobs_n, _) = logprobs(&self.policy.network, piece, temperature)?;
        let (ref_logprobs_n, _) = logprobs(&self.reference.network, piece, temperature)?;
        let values_n = values(&self.value.network, piece)?;
        let columns = [logprobs_n, ref_logprobs_n, values_n].map(Vec::<f32>::try_from);
        let [logprobs, ref_logprobs, values] = columns;
        let (logprobs, ref_logprobs, values) = (logprobs?, ref_logprobs?, values?);
        Ok(piece
            .spans()
            .map(|(row, span)| {
                let evaluation = Evaluation {
                    logprobs: logprobs[span.clone()].to_vec(),
                    ref_logprobs: ref_logprobs[span.clone()].to_vec(),
                    values: values[span].to_vec(),
                };
                (row, evaluation)
            })
            .collect())
    }

    /// Losses and gradients of a piece under its targets.
    pub(super) fn learn(&mut self, piece: &Piece, targets: &Targets, rules: Rules) -> Result<Lesson> {
        let device = self.policy.network.device();
        let tensor = |list: &[f32], device: Device| Tensor::from_slice(list).to_device(device);
        let (logprobs_n, entropy_n) = logprobs(&self.policy.network, piece, rules.temperature)?;
        let policy = policy_loss(
            &logprobs_n,
            &tensor(&targets.logprobs, device),
            &tensor(&targets.advantages, device),
            rules.cliprange,
        );
        let policy_gradients = self.policy.gradients_of(&(&policy.sum / rules.tokens))?;

        let device = self.value.network.device();
        let value = value_loss(
            &values(&self.value.network, piece)?,
            &tensor(&targets.values, device),
            &tensor(&targets.returns, device),
            rules.cliprange_value,
        );
        let value_gradients = self.value.gradients_of(&(&value.sum * (rules.vf_coef / rules.tokens)))?;
        Ok(Lesson {
            policy: policy_gradients,
            value: value_gradients,
            sums: Sums {
                policy_loss: policy.sum.double_value(&[]),
                value_loss: value.sum.double_value(&[]),
                approx_kl: policy.approx_kl,
                policy_clipped: policy.clipped,
                value_clipped: value.clipped,
                entropy: entropy_n.sum(Kind::Double).double_value(&[]),
                ratio: policy.ratio,
            },
        })
    }
}

/// The hidden states that the response tokens are predicted from: `[n, hidden]`.
fn states(network: &Network, piece: &Piece) -> Result<Tensor> {
    let device = network.device();
    let positions_n = Tensor::from_slice(&piece.positions_n).to_device(device);
    Ok(network.hidden(&piece.ids.tensor(device))?.flatten(0, 1).index_select(0, &positions_n))
}

/// Log-probabilities of the response tokens and the entropies of their distributions (without gradient), both
/// `[n]` in nats at the given temperature.
fn logprobs(network: &Network, piece: &Piece, temperature: f64) -> Result<(Tensor, Tensor)> {
    let logits_nv = network.logits(&states(network, piece)?)? / temperature;
    let all_nv = logits_nv.log_softmax(-1, Kind::Float);
    let tokens_n = Tensor::from_slice(&piece.tokens_n).to_device(network.device());
    let fixed_nv = all_nv.detach();
    let entropy_n = -(fixed_nv.exp() * &fixed_nv).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
    Ok((all_nv.gather(1, &tokens_n.unsqueeze(1), false).squeeze_dim(1), entropy_n))
}

/// Value estimates `[n]`.
fn values(network: &Network, piece: &Piece) -> Result<Tensor> {
    network.scores(&states(network, piece)?)
}
