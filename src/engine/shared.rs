//! What the worker threads of an engine share: the queue, the blocks, the weights.
//!
//! In: jobs from `submit`. Out: turns for the workers: which jobs run, with memory for their next tokens.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::job::{Job, Model};
use super::native::Decoder;
use super::pool::{Admission, Lease, Pool};
use super::stats::Counters;
use super::variant::Variant;

/// Queued jobs that a worker looks at for one that can start.
const WINDOW: usize = 256;

/// Shared by the engine and its workers.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    pub(super) model: Model,
    pub(super) counters: Counters,
    /// Rows of a step at most, which also bounds the jobs that a worker runs.
    pub(super) most_rows: usize,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) queue: VecDeque<Job>,
    pub(super) pool: Pool,
    pub(super) decoder: Arc<Decoder>,
    /// The models on these weights; the first is the base itself.
    pub(super) variants: Vec<Arc<Variant>>,
    /// Jobs running per worker.
    pub(super) running: Vec<usize>,
    pub(super) closed: bool,
}

impl State {
    /// Nothing is queued or running.
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.iter().all(|&n| n == 0)
    }
}

/// A job that a worker runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) job: Job,
    /// Its model.
    pub(super) variant: Arc<Variant>,
    /// `None` only while it is being given back.
    pub(super) lease: Option<Lease>,
    /// Tokens to compute in this step.
    pub(super) planned: usize,
}

impl Shared {
    pub(super) fn new(
        model: Model,
        base: Variant,
        decoder: Decoder,
        pool: Pool,
        workers: usize,
        most_rows: usize,
    ) -> Self {
        let state = State {
            queue: VecDeque::new(),
            pool,
            decoder: Arc::new(decoder),
            variants: vec![Arc::new(base)],
            running: vec![0; workers],
            closed: false,
        };
        let counters = Counters::default();
        Shared { state: Mutex::new(state), changed: Condvar::new(), model, counters, most_rows }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues jobs. They fail if the engine is closed.
    pub(super) fn enqueue(&self, jobs: Vec<Job>) {
        let mut state = self.lock();
        if !state.closed {
            state.queue.extend(jobs);
            self.changed.notify_all();
        }
    }

    /// Stops the workers; what is queued or running fails.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.queue.clear();
        self.changed.notify_all();
    }

    /// Waits until nothing is queued or running.
    pub(super) fn wait_until_idle(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while !state.is_idle() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// The end of a worker's step and the start of its next one: makes what was computed known, drops what is done
    /// or cancelled, starts queued jobs, plans up to `most_rows` rows and provides their memory. Waits while
    /// there is nothing to do; `None` when the engine is closed.
    pub(super) fn turn(&self, worker: usize, running: &mut Vec<Running>) -> Option<Arc<Decoder>> {
        let mut guard = self.lock();
        loop {
            let state = &mut *guard;
            let mut news = false;
            running.retain_mut(|r| {
                let Some(lease) = r.lease.as_mut() else { return false };
                news |= state.pool.publish(lease, r.job.input(), r.job.computed());
                let keep = !r.job.is_finished() && !r.job.is_cancelled() && !state.closed;
                if !keep && let Some(lease) = r.lease.take() {
                    state.pool.release(lease);
                    news = true;
                }
                keep
            });
            state.running[worker] = running.len();
            if state.closed {
                return None;
            }
            self.start(state, worker, running);
            if news && (!state.queue.is_empty() || state.is_idle()) {
                self.changed.notify_all();
            }
            if !running.is_empty() {
                plan(running, self.most_rows);
                for r in running.iter_mut() {
                    if let Some(lease) = r.lease.as_mut() {
                        state.pool.grow(lease, r.job.computed() + r.planned);
                    }
                }
                return Some(Arc::clone(&state.decoder));
            }
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Starts queued jobs: in order, except that a job waits while another one computes a prefix it needs.
    fn start(&self, state: &mut State, worker: usize, running: &mut Vec<Running>) {
        let mut rows: usize = running.iter().map(|r| r.job.waiting()).sum();
        let mut at = 0;
        while at < state.queue.len().min(WINDOW) && rows < self.most_rows && running.len() < self.most_rows {
            // A worker leaves the others their share.
            let all = state.queue.len() + state.running.iter().sum::<usize>();
            let job = &state.queue[at];
            if job.is_cancelled() {
                state.queue.remove(at);
                continue;
            }
            if running.len() >= all.div_ceil(state.running.len()) {
                break;
            }
            let variant = Arc::clone(&state.variants[job.variant()]);
            match state.pool.admit(variant.root, job.input(), job.needed(), job.length()) {
                Admission::Wait => at += 1,
                Admission::Full => break,
                Admission::Started(lease) => {
                    let Some(mut job) = state.queue.remove(at) else { break };
                    let known = lease.known_tokens();
                    self.counters.hit(known);
                    job.advance(known);
                    rows += job.waiting();
                    running.push(Running { job, variant, lease: Some(lease), planned: 0 });
                    state.running[worker] = running.len();
                }
            }
        }
    }
}

/// One row for every job that is decoding, then the prompts in order, as far as the rows go.
fn plan(running: &mut [Running], most_rows: usize) {
    let decoding = running.iter().filter(|r| r.job.is_decoding()).count();
    let mut left = most_rows - decoding;
    for r in running {
        r.planned = if r.job.is_decoding() { 1 } else { r.job.waiting().min(left) };
        left -= if r.job.is_decoding() { 0 } else { r.planned };
    }
}
