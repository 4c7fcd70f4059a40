//! What a run made, in the layouts that other tools open without a line of code: Hugging Face and PEFT model folders,
//! data sets for TRL, OpenRLHF and verl, the training curves for TensorBoard.
//!
//! ```text
//! Network ─────────────────────> weights in shards, config, tokenizer, chat template ─┐
//! table preferences ─ sql/export/*.sql ─> train and test files ───────────────────────┤
//! table metrics ───────────────> trainer_state.json, event files ─────────────────────┼─> Target ─> folder or URL
//! lineage, principles, evaluations ─> README.md (a card) ─────────────────────────────┘
//! ```
//! In: a run that `salmon run` made. Out: a folder that is there whole or not at all ([`Target`]). Nothing here is an
//! input of a stage: an export may hold times, and no fingerprint covers it.

mod card;
mod chat;
mod events;
mod lineage;
mod metrics;
mod model;
mod preferences;
mod target;

pub use card::{Run, Split};
pub use events::EventFile;
pub use lineage::{Ancestor, Ancestry};
pub use metrics::write_metrics;
pub use model::{Form, Model, write_model};
pub use preferences::{FileFormat, Layout, write_preferences};
pub use target::Target;
