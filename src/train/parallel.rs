//! Data-parallel work on threads that live as long as the trainer.
//!
//! ```text
//! micro-batches ─> queue ─┬─> worker 0: replica 0 ─┐
//!                         └─> worker 1: replica 1 ─┴─> answers in micro-batch order ─> sum
//! ```
//!
//! Each worker owns a state (replicas of the networks) and computes on one intra-op thread. Whichever worker is
//! free takes the next item; answers are handed on in the order of the items, so a sum over them has the same
//! bits for any number of workers.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::torch::{guard, single_thread};
use crate::{Error, Result};

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Threads with a state of type `S` each.
pub struct Team<S> {
    place: String,
    /// `None` only while dropping.
    jobs: Option<Sender<Job<S>>>,
    threads: Vec<JoinHandle<()>>,
}

impl<S: Send + 'static> Team<S> {
    /// One thread per state. `place` names the work in errors.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn new(place: &str, states: Vec<S>) -> Result<Self> {
        let (jobs, queue) = channel::<Job<S>>();
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::with_capacity(states.len());
        for (number, state) in states.into_iter().enumerate() {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new()
                .name(format!("train-{number}"))
                .spawn(move || serve(&queue, state))
                .map_err(|error| Error::train(place, "cannot start a worker thread").because(error))?;
            threads.push(thread);
        }
        Ok(Team { place: place.to_string(), jobs: Some(jobs), threads })
    }

    /// Runs `work` on every item and passes the answers to `each`, in item order, while later items still run.
    ///
    /// # Errors
    /// The error of the first item (in order) that failed, after all items ended.
    pub fn map<I, A>(
        &self,
        items: Vec<I>,
        work: impl Fn(&mut S, I) -> Result<A> + Send + Sync + 'static,
        mut each: impl FnMut(A) -> Result<()>,
    ) -> Result<()>
    where
        I: Send + 'static,
        A: Send + 'static,
    {
        let gone = || Error::internal(&self.place, "the worker threads have ended");
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        let count = items.len();
        let work = Arc::new(work);
        let (sender, answers) = channel::<(usize, Result<A>)>();
        for (number, item) in items.into_iter().enumerate() {
            let (work, sender, place) = (Arc::clone(&work), sender.clone(), self.place.clone());
            let job = move |state: &mut S| {
                let answer = guard(&place, || work(state, item));
                // The receiver only goes away when the caller gave up on all answers.
                let _ = sender.send((number, answer));
            };
            jobs.send(Box::new(job)).map_err(|_| gone())?;
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut outcome = Ok(());
        for next in 0..count {
            while !early.contains_key(&next) {
                let (number, answer) = answers.recv().map_err(|_| gone())?;
                early.insert(number, answer);
            }
            if let Some(answer) = early.remove(&next) {
                outcome = outcome.and_then(|()| each(answer?));
            }
        }
        outcome
    }
}

/// A worker: runs jobs until the queue is closed.
fn serve<S>(queue: &Mutex<Receiver<Job<S>>>, mut state: S) {
    single_thread();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(&mut state),
            Err(_) => return,
        }
    }
}

impl<S> Drop for Team<S> {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // Jobs are guarded, so a worker does not panic; if it did, there is nothing left to save.
            let _ = thread.join();
        }
    }
}
