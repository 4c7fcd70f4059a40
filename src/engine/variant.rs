//! Several models on one engine: the base, and adapters on it.
//!
//! ```text
//! Engine ─┬─ base weights, packed once ─ blocks, queue, workers
//!         ├─ variant 0: the base as it is
//!         ├─ variant 1: Adapted ── low-rank differences, a head
//!         └─ variant 2: Adapted ── ..
//! ```
//! In: an [`AdapterWeights`]. Out: an [`Adapted`], which answers like an engine with merged weights would (up to
//! rounding). Rows of all variants run in the same steps; what they know of prefixes is kept apart.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::native::Adapter;
use super::request::{Inference, Limits, Output, Request};
use super::{Engine, weights};
use crate::Result;
use crate::model::{AdapterWeights, Head, Tokenizer};
use crate::torch::guard;

/// What a row's model adds to the base.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) adapter: Option<Adapter>,
    pub(super) head: Head,
    /// Where its prefixes start in the tree of known ones.
    pub(super) root: u64,
}

/// A model that an engine answers for beside its base.
#[derive(Debug)]
pub struct Adapted {
    engine: Arc<Engine>,
    variant: usize,
    limits: Limits,
}

impl Adapted {
    /// Puts an adapter beside those that `engine` has.
    ///
    /// # Errors
    /// A model error for a tensor that does not fit the base, by its name.
    pub fn new(engine: &Arc<Engine>, adapter: &AdapterWeights) -> Result<Self> {
        let packed = engine.packed(adapter)?;
        let mut state = engine.shared.lock();
        let root = state.pool.new_root();
        state.variants.push(Arc::new(Variant { adapter: Some(packed), head: adapter.head, root }));
        let variant = state.variants.len() - 1;
        drop(state);
        let limits = Limits { has_head: adapter.head != Head::None, ..engine.limits };
        Ok(Adapted { engine: Arc::clone(engine), variant, limits })
    }

    /// Replaces the adapter, once everything submitted to the engine before is done. What is submitted meanwhile waits
    /// and gets the new one. Its known prefixes are forgotten; those of other variants are kept.
    ///
    /// # Errors
    /// As [`Adapted::new`]; the old adapter then stays.
    pub fn reload(&self, adapter: &AdapterWeights) -> Result<()> {
        let packed = self.engine.packed(adapter)?;
        let _gate = self.engine.gate();
        let mut state = self.engine.shared.wait_until_idle();
        let root = state.pool.new_root();
        state.variants[self.variant] = Arc::new(Variant { adapter: Some(packed), head: adapter.head, root });
        Ok(())
    }
}

impl Engine {
    fn packed(&self, adapter: &AdapterWeights) -> Result<Adapter> {
        let decoder = Arc::clone(&self.shared.lock().decoder);
        guard("adapter", || weights::pack_adapter(&self.config, adapter, &decoder))
    }
}

impl Inference for Adapted {
    fn tokenizer(&self) -> &Arc<Tokenizer> {
        self.engine.tokenizer()
    }

    fn context(&self) -> usize {
        self.limits.context
    }

    fn submit(&self, requests: Vec<Request>) -> BoxFuture<'static, Result<Vec<Output>>> {
        self.engine.submit_to(self.variant, &self.limits, requests)
    }
}
