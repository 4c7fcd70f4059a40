//! SQL over a run: tables, model functions that run as operators, and the scalar functions of the method.
//!
//! In: SQL text, typed parameters, a catalog of [`Models`]. Out: streams of Arrow record batches.
//!
//! ```text
//! SELECT generate('sft', instruction, {temperature: 0.7, seed: 42, row: prompt_id}).response FROM prompts
//!    │ parse                                        markers.rs   functions that only mark the place
//!    │ analyse   Projection ── ModelNode ── input   extract.rs   calls leave the expressions, misuse is an error
//!    │ optimise  sort, limit and filters go below   node.rs, optimize.rs
//!    │ plan      ModelExec                          planner.rs, exec.rs
//!    ▼ run       micro-batches ─> requests ─> model ─> rows, in input order
//! ```
//!
//! # Order
//! A model operator emits its rows in the order in which they came in, whatever the size of the batches and
//! whichever request is answered first, and the values in a row depend on nothing but that row, the options and
//! the seed. The order *between* partitions is as open as SQL leaves it: a statement whose row order matters
//! ends in `ORDER BY`, which costs nothing here, because a sort on input columns runs below the model.
//!
//! # What is computed once
//! The same call written several times in one SELECT (also in its WHERE and ORDER BY) runs once per row. A CTE or
//! view used twice is two computations, as everywhere in SQL: write it to a table first. `CASE` does not guard
//! a model call, every row is asked: give it a NULL prompt where it should not run.

mod answers;
mod call;
mod exec;
mod extract;
pub mod functions;
mod judge;
mod listing;
mod markers;
mod merge;
mod metrics;
mod micro_batch;
mod models;
mod node;
mod optimize;
mod options;
mod params;
mod planner;
mod prepared;
mod requests;
mod reuse;
mod session;
mod work;

pub use judge::Judging;
pub use listing::{register_batches, register_files};
pub use models::Models;
pub use params::{Params, plan, sql};
pub use prepared::{LiveTable, Prepared};
pub use session::{CATALOG, SCHEMA, SessionOptions, session, set_templates};
pub use work::{Work, asks_models, model_call, work};
