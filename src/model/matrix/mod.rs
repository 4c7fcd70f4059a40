//! The weights of a projection: plain numbers, or frozen and quantised ones.
//!
//! ```text
//! Tensor [out, in] ── Quantizer ──> Matrix ── linear(x [n, in]) ──> [n, out], differentiable in x
//!                                        └── dense ──> [out, in]
//! ```
//! A quantised matrix is made plain for each product and again for its backward pass, so that nothing of full size
//! outlives either: right for many rows at a time (training, scoring), wrong for one (sampling has `engine`).

mod int8;
mod nf4;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::torch::{grad_mode, shim};
use crate::{Error, Result};
use int8::Int8;
use nf4::{Nf4, Tables};

/// How the frozen projections are held, with the names of Hugging Face's `BitsAndBytesConfig`. The embedding, the
/// unembedding, norms and everything that trains keep their type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizationConfig {
    /// NF4 in blocks of 64 (QLoRA, arXiv 2305.14314).
    pub load_in_4bit: bool,
    /// Quantise the scales of the NF4 blocks as well, to 8 bits in blocks of 256.
    pub bnb_4bit_use_double_quant: bool,
    /// Whole numbers of 8 bits with one scale per output.
    pub load_in_8bit: bool,
}

impl QuantizationConfig {
    /// Whether anything is quantised.
    pub fn is_on(&self) -> bool {
        self.load_in_4bit || self.load_in_8bit
    }

    /// Whether the values go together; `place` names the table they are in.
    ///
    /// # Errors
    /// A configuration error that names the keys.
    pub fn check(&self, place: &str) -> Result<()> {
        let wrong = |problem: &str| Err(Error::config(place, problem));
        if self.load_in_4bit && self.load_in_8bit {
            return wrong("load_in_4bit and load_in_8bit are both true; choose one");
        }
        if self.bnb_4bit_use_double_quant && !self.load_in_4bit {
            return wrong("bnb_4bit_use_double_quant is for load_in_4bit, which is false");
        }
        Ok(())
    }

    /// Bytes of a projection's weight `[out, in]`; `plain` are those of one number that is not quantised.
    pub fn bytes(&self, out: u64, input: u64, plain: u64) -> u64 {
        let n = out * input;
        let blocks = n.div_ceil(nf4::BLOCK as u64);
        match (self.load_in_4bit, self.load_in_8bit) {
            (true, _) if self.bnb_4bit_use_double_quant => {
                blocks * (nf4::BLOCK as u64 / 2 + 1) + 4 * (blocks.div_ceil(nf4::GROUP as u64) + 1)
            }
            (true, _) => blocks * (nf4::BLOCK as u64 / 2 + 4),
            (_, true) => n + 4 * out,
            _ => n * plain,
        }
    }
}

/// Turns plain weights into matrices, with the tables that these share.
pub(crate) struct Quantizer {
    config: QuantizationConfig,
    tables: Option<Tables>,
}

impl Quantizer {
    /// For weights on `device`.
    pub(crate) fn new(config: QuantizationConfig, device: Device) -> Self {
        Quantizer { config, tables: config.load_in_4bit.then(|| Tables::new(device)) }
    }

    /// `[out, in]`, frozen unless nothing is quantised.
    pub(crate) fn matrix(&self, weight: Tensor) -> Matrix {
        match &self.tables {
            Some(tables) => Matrix::Nf4(Nf4::of(&weight, tables, self.config.bnb_4bit_use_double_quant)),
            None if self.config.load_in_8bit => Matrix::Int8(Int8::of(&weight)),
            None => Matrix::Dense(weight),
        }
    }
}

/// A weight `[out, in]`.
pub(crate) enum Matrix {
    /// As a checkpoint has it; may train.
    Dense(Tensor),
    /// Four bits; frozen.
    Nf4(Nf4),
    /// Eight bits; frozen.
    Int8(Int8),
}

impl Matrix {
    /// The tensor of a matrix that is not quantised.
    pub(crate) fn plain(&self) -> Option<&Tensor> {
        match self {
            Matrix::Dense(tensor) => Some(tensor),
            Matrix::Nf4(_) | Matrix::Int8(_) => None,
        }
    }

    /// The weights in `kind`; the tensor itself where it has that type already.
    pub(crate) fn dense(&self, kind: Kind) -> Tensor {
        match self {
            Matrix::Dense(tensor) => tensor.to_kind(kind),
            Matrix::Nf4(weight) => weight.dense().to_kind(kind),
            Matrix::Int8(weight) => weight.dense().to_kind(kind),
        }
    }

    /// The same with `f` applied to a plain tensor; quantised weights are shared.
    pub(crate) fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Matrix {
        match self {
            Matrix::Dense(tensor) => Matrix::Dense(f(tensor)),
            Matrix::Nf4(weight) => Matrix::Nf4(weight.shared()),
            Matrix::Int8(weight) => Matrix::Int8(weight.shared()),
        }
    }

    /// `x W'` for `x [n, in]`: `[n, out]` in the type of `x`.
    pub(crate) fn linear(&self, x: &Tensor) -> Tensor {
        if let Matrix::Dense(tensor) = self {
            return x.linear(&tensor.to_kind(x.kind()), None::<Tensor>);
        }
        let y = {
            let _frozen = tch::no_grad_guard();
            x.linear(&self.dense(x.kind()), None::<Tensor>)
        };
        if !grad_mode() || !x.requires_grad() {
            return y;
        }
        // Autograd's own rule would keep the plain weights of every layer until the backward pass.
        let weight = self.map(Tensor::shallow_clone);
        let gradient = move |y: &Tensor| Ok(y.matmul(&weight.dense(y.kind())));
        shim::with_backward(x, y, gradient).unwrap_or_else(|error| panic!("{error}"))
    }
}
