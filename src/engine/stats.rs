//! What an engine has done so far.
//!
//! In: counts from the worker threads. Out: [`EngineStats`], a snapshot that callers subtract to show rates.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Totals since the engine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EngineStats {
    /// Requests finished.
    pub rows: u64,
    /// Tokens of prompts (and of given responses) computed.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were not computed, because an earlier row shared them.
    pub prefix_hit_tokens: u64,
    /// Tokens sampled.
    pub generated_tokens: u64,
    /// Calls of the decoder.
    pub steps: u64,
    /// Seconds of worker time in rows of prompts; a step of both kinds is split by rows.
    pub prefill_seconds: f64,
    /// Seconds of worker time in rows of sampled tokens.
    pub decode_seconds: f64,
}

/// The counters behind [`EngineStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    rows: AtomicU64,
    prompt_tokens: AtomicU64,
    prefix_hit_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    steps: AtomicU64,
    prefill_nanos: AtomicU64,
    decode_nanos: AtomicU64,
}

/// What one step computed.
#[derive(Debug, Default)]
pub(super) struct StepCount {
    pub(super) prompt: u64,
    pub(super) decoded: u64,
    pub(super) generated: u64,
}

impl Counters {
    pub(super) fn hit(&self, tokens: usize) {
        self.prefix_hit_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    pub(super) fn finished(&self) {
        self.rows.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn step(&self, count: &StepCount, time: Duration) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.prompt_tokens.fetch_add(count.prompt, Ordering::Relaxed);
        self.generated_tokens.fetch_add(count.generated, Ordering::Relaxed);
        let nanos = time.as_nanos() as u64;
        let prefill = (nanos as f64 * count.prompt as f64 / (count.prompt + count.decoded).max(1) as f64) as u64;
        self.prefill_nanos.fetch_add(prefill, Ordering::Relaxed);
        self.decode_nanos.fetch_add(nanos - prefill, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> EngineStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EngineStats {
            rows: get(&self.rows),
            prompt_tokens: get(&self.prompt_tokens),
            prefix_hit_tokens: get(&self.prefix_hit_tokens),
            generated_tokens: get(&self.generated_tokens),
            steps: get(&self.steps),
            prefill_seconds: get(&self.prefill_nanos) as f64 / 1e9,
            decode_seconds: get(&self.decode_nanos) as f64 / 1e9,
        }
    }
}
