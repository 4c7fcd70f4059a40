//! salmon aligns a language model with written principles (SALMON, arXiv 2310.05910).
#![warn(missing_docs, unreachable_pub)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod draw;
pub mod engine;
pub mod error;
pub mod model;
pub mod table;
pub mod torch;

pub use error::{Error, Result};
