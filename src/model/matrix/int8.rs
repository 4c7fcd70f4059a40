//! 8-bit weights with one scale per output, as the weights of LLM.int8() (arXiv 2208.07339) are.
//!
//! In: a weight of any type. Out: `round(w * 127 / s)` with `s` the largest magnitude of its row, and `s / 127`.

use tch::{Kind, Tensor};

/// A quantised weight.
pub(crate) struct Int8 {
    /// `[out, in]` i8.
    codes: Tensor,
    /// `[out, 1]` f32.
    scales: Tensor,
}

impl Int8 {
    /// Quantises `weight` `[out, in]`.
    pub(super) fn of(weight: &Tensor) -> Self {
        let _frozen = tch::no_grad_guard();
        let weight = weight.to_kind(Kind::Float);
        let largest = weight.abs().amax([1i64].as_slice(), true);
        // A row of zeros has any scale.
        let largest = largest.masked_fill(&largest.eq(0.0), 1.0);
        Int8 { codes: (weight * 127.0 / &largest).round().to_kind(Kind::Int8), scales: largest / 127.0 }
    }

    /// The weights as they are computed with, `[out, in]` f32.
    pub(super) fn dense(&self) -> Tensor {
        let _frozen = tch::no_grad_guard();
        self.codes.to_kind(Kind::Float) * &self.scales
    }

    /// The same tensors once more.
    pub(super) fn shared(&self) -> Int8 {
        Int8 { codes: self.codes.shallow_clone(), scales: self.scales.shallow_clone() }
    }
}
