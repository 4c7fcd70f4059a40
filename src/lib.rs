//! salmon aligns a language model with written principles: SALMON (arXiv 2310.05910) and SELF-ALIGN
//! (arXiv 2305.03047) as a streaming pipeline on Arrow, DataFusion and libtorch.
//!
//! # The data path
//!
//! ```text
//! prompts, principles, a base model
//!    │                    asks               of model      and trains
//!    ├─> demonstrations   generate           base       ─> [sft]
//!    ├─> responses        generate           sft
//!    ├─> pairs
//!    ├─> judgments        choice_logits      sft
//!    ├─> preferences                                    ─> [reward]
//!    ├─> rollouts         generate, reward   policy,
//!    │                                       reward     ─> [policy:<name>], one for each set of principles
//!    └─> evaluations      all of these                  ─> report, export
//! ```
//! On the left are tables: Parquet, with one schema in [`table`] and the same names in SQL. In brackets are models:
//! Hugging Face folders. In between are the SQL functions that ask a model. Each line is a **stage** (rollouts and their
//! policy are one): a statement in `sql/`, which says what flows, and a sink, which is a table or a trainer that consumes
//! the rows. [`pipeline`] lists the stages in order.
//!
//! # Why it is built that way
//!
//! - **The decisions are SQL.** Which answers are kept, when a verdict is a tie, which principle dominates, how a
//!   reward is shaped: these are choices about data. In SQL, people who work with data can read and change them, and
//!   every row, dropped ones included, can be asked why it is where it is. What is about numbers is Rust.
//! - **Models are operators.** A model call in a statement is an operator of the plan and not a function of a row, so
//!   filters, limits and sorts run below it, rows stream through it in small batches, nothing is asked twice, and a
//!   cancelled query stops the model ([`query`]).
//! - **Versions, not state.** A table or model lies under the hash of everything that decided its bytes, and exists
//!   when its manifest does ([`store`]). Running again is looking up; a changed key runs what depends on it; a killed
//!   run goes on at its last commit ([`stage`]).
//! - **The same bits.** Every random number is a function of the seed and the row it is for ([`draw`]), every sum has
//!   one order. Otherwise a resumed run would be another run, and a cached version a guess.
//! - **Two forward passes, each for its purpose.** [`model`] is libtorch, for gradients and for every log-probability
//!   that PPO compares, so its first ratio is one. [`engine`] is plain Rust on CPU vectors, for sampling and scoring,
//!   where a row's result must not depend on the batch it happens to be in. Tests hold the two together.
//!
//! # Layers
//!
//! ```text
//! cli                                one file per command
//! report · export · audit            a run as a page, for other tools, looked at and compared
//! catalog                            runs as SQL: tables, past versions, views, models
//! pipeline · config                  the stages of SALMON; salmon.toml
//! world · import                     the toy world to try them on; files into tables
//! stage                              graph, fingerprints, runner, commits
//! train                              SFT, reward model, PPO
//! query                              DataFusion session, model operators, SQL functions
//! engine                             batched CPU inference
//! model                              networks, adapters, heads, tokenizer, chat template
//! store · principle                  versions and manifests; principles and templates
//! table · torch · draw · error       schemas; the boundary to libtorch; random draws; one error type
//! secret                             what no line that is shown may hold
//! ```
//! A layer uses those below it. `docs/architecture.md` goes through them one by one.
#![warn(missing_docs, unreachable_pub)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod audit;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod draw;
pub mod engine;
pub mod error;
pub mod export;
pub mod import;
pub mod model;
pub mod pipeline;
pub mod principle;
pub mod query;
pub mod report;
pub mod secret;
pub mod stage;
pub mod store;
pub mod table;
pub mod torch;
pub mod train;
pub mod world;

pub use error::{Error, Result};
