//! The clipped PPO losses (Schulman et al., arXiv 1707.06347) over the response tokens of a micro-batch.
//!
//! In: flat f32 tensors `[n]`, one entry per response token. Out: sums, which the caller divides by the tokens
//! of the whole mini-batch. The statistics are f64.

use tch::{Kind, Tensor};

/// What a policy loss is made of.
#[derive(Debug)]
pub struct PolicyLoss {
    /// Sum over tokens of `max(-A ratio, -A clip(ratio))`; carries gradients.
    pub sum: Tensor,
    /// Tokens where the clipped term is the larger one.
    pub clipped: f64,
    /// Sum of `0.5 (log p - log p_old)^2`, TRL's `approxkl`.
    pub approx_kl: f64,
    /// Sum of the probability ratios.
    pub ratio: f64,
}

/// The policy loss of tokens with new and old log-probabilities and advantages.
pub fn policy_loss(logprobs_n: &Tensor, old_n: &Tensor, advantages_n: &Tensor, cliprange: f64) -> PolicyLoss {
    let difference_n = logprobs_n - old_n;
    let ratio_n = difference_n.exp();
    let plain_n = -advantages_n * &ratio_n;
    let clipped_n = -advantages_n * ratio_n.clamp(1.0 - cliprange, 1.0 + cliprange);
    let difference_n = difference_n.detach();
    PolicyLoss {
        clipped: total(&clipped_n.detach().gt_tensor(&plain_n.detach())),
        approx_kl: 0.5 * total(&(&difference_n * &difference_n)),
        ratio: total(&ratio_n.detach()),
        sum: plain_n.maximum(&clipped_n).sum(Kind::Float),
    }
}

/// What a value loss is made of.
#[derive(Debug)]
pub struct ValueLoss {
    /// Sum over tokens of `0.5 max((v - R)^2, (clip(v) - R)^2)`; carries gradients.
    pub sum: Tensor,
    /// Tokens where the clipped term is the larger one.
    pub clipped: f64,
}

/// The value loss of tokens with new and old estimates and returns; the new estimate is clipped to the old one
/// +- `cliprange`.
pub fn value_loss(values_n: &Tensor, old_n: &Tensor, returns_n: &Tensor, cliprange: f64) -> ValueLoss {
    let near_n = values_n.clamp_tensor(Some(old_n - cliprange), Some(old_n + cliprange));
    let plain_n = (values_n - returns_n).square();
    let clipped_n = (near_n - returns_n).square();
    ValueLoss {
        clipped: total(&clipped_n.detach().gt_tensor(&plain_n.detach())),
        sum: 0.5 * plain_n.maximum(&clipped_n).sum(Kind::Float),
    }
}

fn total(tensor: &Tensor) -> f64 {
    tensor.sum(Kind::Double).double_value(&[])
}
