//! The inference engine behind all model operators: a native CPU decoder with continuous batching.
//!
//! ```text
//! submit(requests) ─> queue ─┬─> worker: step, step, ..  ─> outputs, in request order
//! submit(requests) ─┘        └─> worker: step, step, ..
//!                                  └─ blocks of keys and values; known prefixes are shared by all workers
//! ```
//! In: token ids and a [`Task`] per row. Out: sampled responses, logits of choices, log-probabilities, scores.
//!
//! Every worker decodes a batch of its own: in each step, one row for every response that is being sampled, and as many
//! prompt tokens as the rest of the step holds. A small model has a worker on each thread. The weights of a larger one
//! come from memory in each step, so it has one worker, whose steps all threads compute together. Rows are ragged;
//! nothing is padded, and only the positions that a task needs go through the head. A prefix of whole blocks (16 tokens)
//! that an earlier row had is found in a tree and not computed again; a row whose prefix is being computed waits for it.
//!
//! Results do not depend on any of this: a row's bits are the same alone, in a batch, with its prefix shared or
//! not, on any worker (`native` says why).

mod job;
mod pool;
mod request;
mod shared;
mod stats;
mod variant;
mod weights;
mod worker;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::model::{Head, ModelConfig, Tokenizer, WeightSource};
use crate::torch::guard;
use crate::{Error, Result};
use futures::future::{BoxFuture, FutureExt};
use job::{Job, Model, Ticket};
use native::{LANES, Team};
use pool::Pool;
use request::Limits;
pub use request::{Finish, Generation, Inference, Output, Request, Sampling, Task};
use salmon_native as native;
pub use salmon_native::Instructions;
use shared::Shared;
pub use stats::EngineStats;
pub use variant::Adapted;
use variant::Variant;

/// Bytes of weights from which on all threads compute one step together: more than a core's own cache holds.
const TOGETHER: usize = 8 << 20;

/// How much of the machine an engine uses. Results do not depend on it, except for `instructions`.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// Threads; 0 for one per available core.
    pub workers: usize,
    /// Rows (tokens) per thread in one step at most; it also bounds the responses sampled at a time.
    pub max_batch_tokens: usize,
    /// Bytes for keys and values of all workers, allocated when needed; 0 for 512 MiB, or one sequence of the
    /// model's whole context if that is more.
    pub kv_bytes: usize,
    /// The instructions to use; `None` for the fastest that this processor has. Portable results differ from the
    /// others in the last bits.
    pub instructions: Option<Instructions>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { workers: 0, max_batch_tokens: 128, kv_bytes: 0, instructions: None }
    }
}

/// One model, ready to answer requests. See the module for how.
pub struct Engine {
    shared: Arc<Shared>,
    config: ModelConfig,
    limits: Limits,
    instructions: Instructions,
    /// Held while requests are queued, and for the whole of a reload.
    gate: Mutex<()>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("layers", &self.config.num_hidden_layers)
            .field("hidden", &self.config.hidden_size)
            .field("threads", &self.threads.len())
            .field("instructions", &self.instructions)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Packs the weights and starts the workers.
    ///
    /// `weights` gives contiguous tensors, and `score.weight` (`[1, hidden]`) for [`Head::Linear`].
    ///
    /// # Errors
    /// A model error for a missing or misshapen tensor; a config error for options that cannot work.
    pub fn new(
        config: &ModelConfig,
        mut weights: impl WeightSource,
        tokenizer: Arc<Tokenizer>,
        head: Head,
        options: EngineOptions,
    ) -> Result<Self> {
        if options.max_batch_tokens == 0 {
            return Err(Error::config("max_batch_tokens", "is 0; a step needs at least one token"));
        }
        if let Head::YesNo { yes, no } = head
            && yes.max(no) as usize >= config.vocab_size
        {
            let problem = format!("tokens {yes} and {no} must be below the vocabulary of {}", config.vocab_size);
            return Err(Error::model("Yes/No head", problem));
        }
        let context = config.max_position_embeddings;
        let fastest = || Instructions::available().into_iter().next().unwrap_or(Instructions::Portable);
        let instructions = options.instructions.unwrap_or_else(fastest);
        let decoder = guard("engine weights", || weights::pack(config, &mut weights, head, instructions))?;
        drop(weights);

        let block_bytes = decoder.block_len() * size_of::<f32>();
        let one = context.div_ceil(LANES);
        let blocks = match options.kv_bytes {
            0 => one.max((512 << 20) / block_bytes),
            bytes => bytes / block_bytes,
        };
        if blocks < one {
            let problem = format!(
                "{} bytes do not hold one sequence of {context} tokens; give at least {}",
                options.kv_bytes,
                one * block_bytes
            );
            return Err(Error::config("kv_bytes", problem));
        }
        let threads = match options.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let (workers, members) = if decoder.weight_bytes() < TOGETHER { (threads, 1) } else { (1, threads) };
        let limits = Limits { vocab: config.vocab_size, context, has_head: head != Head::None };
        let pool = Pool::new(decoder.block_len(), blocks);
        let model = Model { tokenizer, end_tokens: config.eos_token_ids.clone() };
        let base = Variant { adapter: None, head, root: 0 };
        let shared = Arc::new(Shared::new(model, base, decoder, pool, workers, options.max_batch_tokens * members));
        let (config, gate) = (config.clone(), Mutex::new(()));
        let mut engine = Engine { shared, config, limits, instructions, gate, threads: Vec::with_capacity(threads) };
        for me in 0..workers {
            let (team, helpers) = Team::new(members);
            let shared = Arc::clone(&engine.shared);
            engine.spawn(move || worker::work(&shared, me, team))?;
            helpers.into_iter().try_for_each(|helper| engine.spawn(move || helper.help()))?;
        }
        Ok(engine)
    }

    fn spawn(&mut self, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(format!("engine-{}", self.threads.len()));
        let handle = thread.spawn(body);
        let handle = handle.map_err(|e| Error::internal("engine", "cannot start a thread").because(e))?;
        self.threads.push(handle);
        Ok(())
    }

    /// Bytes of the base's matrices as they rest in memory: of each weight 1, 2 or 4, as few as hold a matrix exactly.
    pub fn weight_bytes(&self) -> usize {
        self.shared.lock().decoder.weight_bytes()
    }

    /// Totals so far.
    pub fn stats(&self) -> EngineStats {
        self.shared.counters.snapshot()
    }

    /// Replaces the weights (same config and head), once everything submitted before is done. What is submitted
    /// meanwhile waits and gets the new weights. Known prefixes are forgotten.
    ///
    /// # Errors
    /// As [`Engine::new`]; the old weights then stay.
    pub fn reload(&self, mut weights: impl WeightSource) -> Result<()> {
        let head = self.shared.lock().variants[0].head;
        let decoder = guard("engine weights", || weights::pack(&self.config, &mut weights, head, self.instructions))?;
        drop(weights);
        let _gate = self.gate();
        let mut state = self.shared.wait_until_idle();
        state.pool.clear();
        state.decoder = Arc::new(decoder);
        Ok(())
    }

    /// Keeps requests out of the queue while it is held.
    fn gate(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues requests for one of the models.
    fn submit_to(
        &self,
        variant: usize,
        limits: &Limits,
        requests: Vec<Request>,
    ) -> BoxFuture<'static, Result<Vec<Output>>> {
        let checked = requests.iter().enumerate().try_for_each(|(i, request)| request.check(i, limits));
        if let Err(error) = checked {
            return futures::future::ready(Err(error)).boxed();
        }
        if requests.is_empty() {
            return futures::future::ready(Ok(Vec::new())).boxed();
        }
        let (ticket, outputs) = Ticket::new(requests.len());
        let mut jobs = Vec::with_capacity(requests.len());
        for (i, request) in requests.into_iter().enumerate() {
            jobs.extend(Job::new(&ticket, i, variant, request, limits.context));
        }
        let gate = self.gate();
        self.shared.enqueue(jobs);
        drop(gate);
        let cancel = CancelOnDrop(ticket);
        async move {
            let _cancel = cancel;
            let closed = || Error::internal("engine", "stopped before these rows were done");
            outputs.await.unwrap_or_else(|_| Err(closed()))
        }
        .boxed()
    }
}

impl Inference for Engine {
    fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.shared.model.tokenizer
    }

    fn context(&self) -> usize {
        self.limits.context
    }

    fn submit(&self, requests: Vec<Request>) -> BoxFuture<'static, Result<Vec<Output>>> {
        self.submit_to(0, &self.limits, requests)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has closed the engine already.
            let _ = thread.join();
        }
    }
}

/// Cancels the rows of a future that is dropped, finished or not.
struct CancelOnDrop(Arc<Ticket>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
