//! The decoder's arithmetic: plain Rust on f32, no libtorch, and nothing else of salmon.
//!
//! In: weights ([`Parts`]), spans of tokens and their blocks of keys and values. Out: final hidden states,
//! logits, scores, sampled tokens.
//!
//! Batch invariance: every output element is computed in an order that depends on its own row only (see `gemm`
//! and `attention`), so a row's bits are the same alone, in any batch, and on top of keys and values that were
//! computed in another batch.
//!
//! Unused lanes hold zeros, never garbage, so every kernel works on whole vectors.
#![warn(missing_docs, unreachable_pub)]
// Kernel bodies are unsafe from end to end; a block around each line would say nothing.
#![allow(unsafe_op_in_unsafe_fn)]
// Tiles are indexed by row and column as in the formulas; iterators over one of several arrays would hide that.
#![allow(clippy::needless_range_loop)]

mod adapter;
mod angles;
mod attention;
mod decoder;
mod forward;
mod gemm;
mod kernels;
mod layer;
mod memory;
mod pointwise;
mod sample;
mod shape;
mod simd;
mod stored;
mod team;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use adapter::{Adapter, LayerPairs, PairTensors};
pub use decoder::{Decoder, Scratch, Span};
pub use kernels::Instructions;
pub use layer::{Layer, LayerTensors, Linear, Parts, Rope};
pub use memory::{Lines, Packed};
pub use sample::{Choice, Sampler};
pub use shape::{Activation, Shape};
pub use simd::LANES;
pub use team::{Helper, Team};
