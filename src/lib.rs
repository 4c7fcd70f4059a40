//! salmon aligns a language model with written principles (SALMON, arXiv 2310.05910).
#![warn(missing_docs, unreachable_pub)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod cli;
pub mod config;
pub mod draw;
pub mod engine;
pub mod error;
pub mod import;
pub mod model;
pub mod pipeline;
pub mod principle;
pub mod query;
pub mod report;
pub mod stage;
pub mod store;
pub mod table;
pub mod torch;
pub mod train;
pub mod world;

pub use error::{Error, Result};
