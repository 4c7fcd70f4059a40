//! The pipeline's machinery: stages, what they need, why they run.
//!
//! In: a [`Graph`] of [`Stage`]s and a [`Store`](crate::store::Store). Out: every version that is missing, made and
//! committed; everything else found.
//!
//! A stage is a name, the tables and models it reads and makes, a [`Lineage`](crate::store::Lineage) with the parts
//! that decide its bytes (SQL text, parameters, seed, templates, version of its code; the runner adds the
//! fingerprints of its inputs), and an async function over a [`Job`]:
//!
//! ```ignore
//! let pairs = Stage::new(
//!     "pairs",
//!     vec![Artifact::table("prompts"), Artifact::table("responses")],
//!     vec![Artifact::table("pairs")],
//!     Lineage { sql: Some(SQL.into()), seed: Some(7), ..Lineage::default() },
//!     |job| async move {
//!         let ctx = query::session(..);
//!         job.bind(&ctx)?;                                     // the inputs, exactly these versions
//!         let rows = ctx.sql(SQL).await?.execute_stream().await?;
//!         job.write_table("pairs", rows).await?;               // parts; committed by the runner afterwards
//!         Ok(())
//!     },
//! );
//! ```
//!
//! A long stage cuts its rows into shards and commits each one. Rows that carry the number of their shard, one shard after
//! the other, make several in one run of a statement:
//!
//! ```ignore
//! let shards = job.shards("responses", 200).await?;
//! let rows = ctx.sql(SQL).await?.execute_stream().await?;             // of the shards that are missing
//! let advance = || job.advance(shards.done() as u64, Some(shards.count() as u64), "shards");
//! shards.write_all(0..=199, rows, advance).await?;
//! job.write_shards("responses", shards).await?;
//! ```
//!
//! A trainer restores `job.checkpoints("sft")?` into `job.scratch()?`, saves one every so many steps, and ends with
//! `job.write_model("sft", folder)`. A table that several stages make (`metrics`) is the union of what each made.
//!
//! Rows reach a sink in the order of the stream. SQL without an outer `ORDER BY` has no order that every machine
//! agrees on, so every stage's SQL ends in one.

mod fingerprint;
mod graph;
mod job;
mod progress;
mod runner;
mod scratch;
mod stop;
mod turns;

pub use fingerprint::{difference, fingerprint};
pub use graph::{Graph, Preview, Run, Stage};
pub use job::Job;
pub use progress::{Known, Progress, Silent};
pub use runner::{Options, Planned, State, plan, run};
pub use scratch::Scratch;
pub use stop::{PATIENCE, Stop};
