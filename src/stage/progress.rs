//! What a run tells whoever watches it.
//!
//! In: calls from the runner and the stages. Out: whatever the watcher makes of them; the command line draws bars
//! or prints lines (`cli::progress`).

use std::fmt::{self, Debug};

/// How many of the rows that a stage makes are known from earlier versions, so that no model is asked for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Rows that are known.
    pub known: u64,
    /// Rows that are wanted.
    pub total: u64,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} rows are new", self.total - self.known.min(self.total), self.total)
    }
}

/// Watches a run. Calls may come from any thread; they must return at once.
pub trait Progress: Debug + Send + Sync {
    /// The stage's version exists; nothing runs.
    fn cached(&self, stage: &str);
    /// The stage begins, and why it is not cached.
    fn started(&self, stage: &str, why: &str);
    /// What the stage takes from earlier versions.
    fn known(&self, stage: &str, known: Known) {
        let _ = (stage, known);
    }
    /// Another runner works on what the stage would make; `holder` says who.
    fn waiting(&self, stage: &str, holder: &str) {
        let _ = (stage, holder);
    }
    /// Another runner made the stage's version meanwhile.
    fn made_elsewhere(&self, stage: &str) {
        self.cached(stage);
    }
    /// `done` of `total` (when known) `unit`s ("rows", "shards", "steps") of the stage are there, those of earlier
    /// attempts included.
    fn advanced(&self, stage: &str, done: u64, total: Option<u64>, unit: &str);
    /// The stage is committed, with that many rows in its tables.
    fn finished(&self, stage: &str, rows: u64, seconds: f64);
    /// The stage ended with an error or was stopped; the error itself is reported by the caller.
    fn ended(&self, stage: &str);
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn cached(&self, _: &str) {}
    fn started(&self, _: &str, _: &str) {}
    fn advanced(&self, _: &str, _: u64, _: Option<u64>, _: &str) {}
    fn finished(&self, _: &str, _: u64, _: f64) {}
    fn ended(&self, _: &str) {}
}
