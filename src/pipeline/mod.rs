//! The SALMON pipeline: one file per kind of stage, one SQL file per table.
//!
//! In: a [`Setup`] (configuration, principles, templates, base model). Out: the [`Graph`] that
//! [`stage::run`](crate::stage::run) brings up to date.
//!
//! ```text
//! prompts ─> demonstrations ─> [sft] ─> responses ─> pairs ─> judgments ─> preferences ─> [reward]
//!    │                           │                                                          │
//!    └───────────────────────────┴──────────────> policy:<name> (rollouts, [policy:<name>]) <┘
//!                                                        │
//!                                   evaluate:judge, evaluate:reward, evaluate:policy:<name>
//! ```
//! A stage is a statement in `sql/` and a sink: a table, or a trainer that consumes the rows. What is about data
//! (cleaning, pairing, draws, labels, shaping) is decided in SQL; what is about numbers, in Rust.

mod base;
mod evaluate;
mod files;
mod known;
mod models;
mod policy;
mod reward;
mod rows;
mod settings;
mod setup;
mod sft;
mod statement;
mod tables;
mod training;

pub use setup::{Base, Setup};

use std::sync::Arc;

use crate::Result;
use crate::stage::Graph;

/// The stages of a configuration.
///
/// # Errors
/// A configuration error when stages clash or data files cannot be read.
pub fn graph(setup: &Arc<Setup>) -> Result<Graph> {
    let mut stages = Vec::new();
    stages.extend(base::stage(setup)?);
    stages.push(tables::principles(setup)?);
    stages.push(tables::prompts(setup)?);
    stages.push(tables::demonstrations(setup)?);
    stages.push(sft::stage(setup)?);
    stages.push(tables::responses(setup)?);
    stages.push(tables::pairs(setup)?);
    stages.push(tables::judgments(setup)?);
    stages.push(tables::preferences(setup)?);
    stages.extend(reward::pretraining(setup)?);
    stages.push(reward::stage(setup)?);
    for policy in &setup.config.policies {
        stages.push(policy::stage(setup, policy)?);
    }
    stages.extend(evaluate::stages(setup)?);
    Graph::new(stages)
}
