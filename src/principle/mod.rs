//! Principles, rules and prompt templates: the part of an alignment that people write.
//!
//! In: TOML files (built into the program, or the user's) and Jinja templates.
//! Out: a [`Library`] to look principles up in, the `principles` table as a record batch, [`Templates`] that turn
//! rows into prompts, and the [`Finding`]s of `salmon check`.
//!
//! ```text
//! principles/*.toml ─┐                       ┌─> principles table (sets, tags, weights) ─> SQL
//!                    ├─ source ─> Library ───┼─> resolve(["Concise", "not Humble"])  ───> reward prompts
//! the user's files ──┘              │        └─> rules, exemplars ──┐
//!                                   └─ check ─> Finding             │
//! templates/*.jinja, the user's folder ───────────────> Templates <─┘ ── render(name, fields) ─> prompt
//! ```
//!
//! `docs/principles.md` explains the files to the people who write them.

mod check;
mod library;
mod source;
mod stored;
mod templates;

pub use check::Finding;
pub use library::{Boost, Chosen, Exemplar, Identity, KINDS, Library, Principle, Rule, Set};
pub use templates::Templates;
