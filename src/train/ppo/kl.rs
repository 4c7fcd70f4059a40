//! How far the policy has moved from its reference, and what that costs.
//!
//! In: log-probabilities of sampled tokens under both. Out: an estimate per token (nats) and the coefficient it
//! is weighted with.

use serde::{Deserialize, Serialize};

use crate::train::config::AdaptiveKl;

/// `kl_estimator`, after Schulman's note "Approximating KL divergence" (joschu.net, 2020).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `log p - log q`: unbiased, of either sign.
    K1,
    /// `max(log p - log q, 0)`: never rewards unlikely tokens; what SALMON uses.
    K1Clamped,
    /// `q/p - 1 - log(q/p)`: unbiased, never negative, low variance near 0.
    K3,
}

impl KlEstimator {
    /// The estimate for one token that the policy sampled with log-probability `logprob`.
    pub fn estimate(self, logprob: f64, ref_logprob: f64) -> f64 {
        let difference = logprob - ref_logprob;
        match self {
            KlEstimator::K1 => difference,
            KlEstimator::K1Clamped => difference.max(0.0),
            // `exp_m1` keeps the digits that `exp(x) - 1` loses near 0.
            KlEstimator::K3 => (-difference).exp_m1() + difference,
        }
    }
}

/// The coefficient after a step whose rollouts diverged by `kl` nats per response on average: proportional
/// control with the error clipped to +-0.2 (Ziegler et al., arXiv 1909.08593, section 2.2).
pub fn adapt(coefficient: f64, control: AdaptiveKl, kl: f64, rollouts: usize) -> f64 {
    let error = (kl / control.target - 1.0).clamp(-0.2, 0.2);
    coefficient * (1.0 + error * rollouts as f64 / control.horizon)
}
