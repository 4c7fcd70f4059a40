//! The pocket world: a toy language small enough to learn in minutes and checkable without doubt.
//!
//! In: nothing. Out: prompts for the pipeline, a pre-training corpus for the base model, and exact checkers for
//! evaluation. The pipeline itself never sees the checkers: it works with the model's own judgments, as on real text.

pub mod base;
pub mod check;
pub mod corpus;
pub mod curriculum;
pub mod dice;
pub mod functions;
pub mod generate;
pub mod language;
pub mod pretrain;
mod prompts;
pub mod vocabulary;

pub use prompts::write_prompts;

/// The demo's configuration.
pub const RECIPE: &str = include_str!("../../recipes/pocket.toml");
