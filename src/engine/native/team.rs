//! Threads that share the parts of one piece of work.
//!
//! ```text
//! leader: run(parts, work) ─┬─ takes parts until none is left ─┬─> all parts are done
//! helper: help() ───────────┴─ takes parts, too ───────────────┘
//! ```
//! In: a number of parts, and what to do with each. Out: all of them done, each once, on any of the threads.
//!
//! A thread takes one part after the other, so that one that the system keeps from running holds up its present part
//! and nothing else, and the others do what it would have done. Helpers spin a little for the next piece of work, then they
//! sleep.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// How often a helper looks for work before it sleeps, and a leader for its helpers' end before it lets other threads run.
const SPINS: usize = 2000;

/// Does a part (first argument) on a member of the team (second argument, the leader is 0).
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The leader's side. Dropping it ends [`Helper::help`].
#[derive(Debug)]
pub struct Team {
    shared: Arc<Shared>,
}

/// One of the other threads.
#[derive(Debug)]
pub struct Helper {
    shared: Arc<Shared>,
    me: usize,
}

struct Shared {
    members: usize,
    /// Odd while there is work.
    phase: AtomicUsize,
    /// Helpers that may be using `work`.
    inside: AtomicUsize,
    next: AtomicUsize,
    parts: AtomicUsize,
    /// Written by the leader while the phase is even and nobody is inside.
    work: UnsafeCell<Option<&'static Work<'static>>>,
    failed: AtomicBool,
    closed: AtomicBool,
    sleeping: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
}

// SAFETY: `work` is written only when nobody reads it (see its comment), and what it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("members", &self.members).finish_non_exhaustive()
    }
}

impl Team {
    /// A leader and `members - 1` helpers.
    pub fn new(members: usize) -> (Team, Vec<Helper>) {
        let shared = Arc::new(Shared {
            members: members.max(1),
            phase: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            parts: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            sleeping: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
        });
        let helpers = (1..members).map(|me| Helper { shared: Arc::clone(&shared), me }).collect();
        (Team { shared }, helpers)
    }

    /// The leader and its helpers.
    pub fn members(&self) -> usize {
        self.shared.members
    }

    /// Does all parts.
    ///
    /// # Panics
    /// If a part did, on any thread; the others are done or given up then.
    pub fn run(&mut self, parts: usize, work: &Work<'_>) {
        let shared = &*self.shared;
        if parts < 2 || shared.members == 1 {
            (0..parts).for_each(|part| work(part, 0));
            return;
        }
        // SAFETY: the phase is even and nobody is inside, since the last run waited for that. The pointer is used until
        // `closing` is dropped, which is before `work` ends.
        unsafe { *shared.work.get() = Some(std::mem::transmute::<&Work<'_>, &Work<'static>>(work)) };
        shared.parts.store(parts, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        let closing = Closing(shared);
        shared.phase.fetch_add(1, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            shared.wake();
        }
        shared.take(work, 0);
        drop(closing);
        assert!(!shared.failed.swap(false, Ordering::Relaxed), "another thread of the team failed");
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.wake();
    }
}

/// Ends a phase and waits for the helpers, also when a part of the leader panics.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let Closing(shared) = self;
        // No part is left for a helper that comes late.
        shared.next.store(usize::MAX / 2, Ordering::Relaxed);
        shared.phase.fetch_add(1, Ordering::SeqCst);
        let mut spins = 0;
        while shared.inside.load(Ordering::SeqCst) > 0 {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

impl Helper {
    /// Helps until the leader is dropped.
    pub fn help(self) {
        let (shared, mut seen) = (&*self.shared, 0);
        while let Some(phase) = shared.wait(seen) {
            seen = phase;
            shared.inside.fetch_add(1, Ordering::SeqCst);
            if shared.phase.load(Ordering::SeqCst) == phase {
                // SAFETY: the leader waits for us before the work ends or another one is written.
                let work = unsafe { *shared.work.get() };
                let work = || work.into_iter().for_each(|work| shared.take(work, self.me));
                let done = catch_unwind(AssertUnwindSafe(work));
                if done.is_err() {
                    shared.failed.store(true, Ordering::Relaxed);
                }
            }
            shared.inside.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Shared {
    /// Does parts until none is left.
    fn take(&self, work: &Work<'_>, me: usize) {
        let parts = self.parts.load(Ordering::Relaxed);
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return;
            }
            work(part, me);
        }
    }

    /// The next phase with work after `seen`; `None` when there will be none.
    fn wait(&self, seen: usize) -> Option<usize> {
        let news = || {
            let phase = self.phase.load(Ordering::SeqCst);
            (phase % 2 == 1 && phase != seen).then_some(phase)
        };
        for _ in 0..SPINS {
            if let Some(phase) = news() {
                return Some(phase);
            }
            std::hint::spin_loop();
        }
        let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let phase = loop {
            if let Some(phase) = news() {
                break Some(phase);
            }
            if self.closed.load(Ordering::SeqCst) {
                break None;
            }
            bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        phase
    }

    fn wake(&self) {
        let _bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        self.bell.notify_all();
    }
}
