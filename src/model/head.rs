//! Reward heads: from the last hidden state of a sequence to one number.
//!
//! In: hidden states `[.., hidden]`. Out: scores `[..]`, f32.

use tch::{Device, Kind, Tensor};

use crate::draw::{Key, key};

/// How hidden states become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Head {
    /// No scores: a policy or a judge.
    #[default]
    None,
    /// `score.weight` `[1, hidden]`, no bias: the Bradley-Terry head.
    Linear,
    /// `logit(yes) - logit(no)`: no new weights, and the model stays a plain causal one.
    YesNo {
        /// The token that says yes.
        yes: u32,
        /// The token that says no.
        no: u32,
    },
}

/// The tensor of [`Head::Linear`] under its Hugging Face name.
pub(crate) const SCORE: &str = "score.weight";

/// `[1, hidden]` f32 from N(0, 1 / sqrt(hidden + 1)) (the reward head initialisation of RLHF since Stiennon et
/// al. 2020), drawn by tensor name.
pub(crate) fn random_score(hidden: usize, seed: Key, device: Device) -> Tensor {
    let stream = key(seed.bits(), &[SCORE]);
    let scale = 1.0 / (hidden as f64 + 1.0).sqrt();
    let values: Vec<f32> = (0..hidden).map(|i| (stream.normal(i as u64) * scale) as f32).collect();
    Tensor::from_slice(&values).view([1, hidden as i64]).to_device(device)
}

/// The unembedding row of `yes` minus that of `no`: `[1, hidden]` f32. Differentiable.
pub(crate) fn row_difference(unembedding_vh: &Tensor, yes: u32, no: u32) -> Tensor {
    let rows = token_rows(unembedding_vh, yes, no);
    rows.narrow(0, 0, 1) - rows.narrow(0, 1, 1)
}

/// The unembedding rows of `yes` and `no`: `[2, hidden]` f32. Differentiable.
pub(crate) fn token_rows(unembedding_vh: &Tensor, yes: u32, no: u32) -> Tensor {
    let rows = Tensor::from_slice(&[i64::from(yes), i64::from(no)]).to_device(unembedding_vh.device());
    unembedding_vh.index_select(0, &rows).to_kind(Kind::Float)
}
