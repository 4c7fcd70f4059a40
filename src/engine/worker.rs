//! A worker thread: turn, step, deliver, until the engine is closed.
//!
//! In: turns from [`Shared`]. Out: each job's output, or its error. A panic in a step fails the jobs of that step
//! and nothing else.
//!
//! The threads of an engine are workers of their own, or one worker with a team of helpers (`Engine::new` says when).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::native::{Decoder, Sampler, Scratch, Span, Team};
use super::request::Output;
use super::shared::{Running, Shared};
use super::stats::StepCount;
use crate::{Error, Result};

/// The body of the thread that takes turns as worker `me`, with the threads of `team`.
pub(super) fn work(shared: &Arc<Shared>, me: usize, team: Team) {
    // A bug outside of a step must not leave callers waiting: dropped jobs fail, and the engine closes.
    if catch_unwind(AssertUnwindSafe(|| run(shared, me, team))).is_err() {
        shared.close();
    }
}

fn run(shared: &Shared, me: usize, mut team: Team) {
    let mut running = Vec::new();
    let mut memory: Option<(Scratch, Sampler)> = None;
    while let Some(decoder) = shared.turn(me, &mut running) {
        let (scratch, sampler) = memory.get_or_insert_with(|| {
            (decoder.scratch(shared.most_rows, team.members()), Sampler::new(decoder.shape().vocab))
        });
        let means = Means { decoder: &decoder, team: &mut team, scratch, sampler };
        let stepped = catch_unwind(AssertUnwindSafe(|| step(shared, means, &mut running)));
        if let Err(panic) = stepped {
            let cause = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            for r in &mut running {
                let problem = format!("a bug stopped this row: {}", cause.unwrap_or("unknown"));
                r.job.finish(Err(Error::internal("engine", problem)));
            }
            memory = None;
        }
    }
}

/// What a worker computes with.
struct Means<'a> {
    decoder: &'a Decoder,
    team: &'a mut Team,
    scratch: &'a mut Scratch,
    sampler: &'a mut Sampler,
}

fn step(shared: &Shared, means: Means<'_>, running: &mut [Running]) {
    let Means { decoder, team, scratch, sampler } = means;
    let started = Instant::now();
    let mut count = StepCount::default();
    // Which job each wanted row belongs to.
    let mut owners = Vec::new();
    let mut spans = Vec::with_capacity(running.len());
    for (i, r) in running.iter().enumerate() {
        let Some(lease) = r.lease.as_ref().filter(|_| r.planned > 0) else { continue };
        let (tokens, wanted) = r.job.next(r.planned);
        owners.extend(std::iter::repeat_n(i, wanted));
        let adapter = r.variant.adapter.as_ref();
        spans.push(Span { tokens, start: r.job.computed(), blocks: lease.blocks(), wanted, adapter });
        *if r.job.is_decoding() { &mut count.decoded } else { &mut count.prompt } += tokens.len() as u64;
    }
    let rows = decoder.step(team, scratch, &spans);
    debug_assert_eq!(rows, owners.len());
    drop(spans);
    for r in running.iter_mut() {
        r.job.advance(r.planned);
    }

    let mut done: Vec<(usize, Result<Output>)> = Vec::new();
    let mut at = 0;
    while at < owners.len() {
        let whole = owners[at..].iter().take_while(|&&i| running[i].job.wants_logits()).count();
        if whole == 0 {
            let r = &running[owners[at]];
            done.push((owners[at], r.job.take_hidden(&r.variant, decoder, scratch, at)));
            at += 1;
            continue;
        }
        let rows = whole.min(Decoder::logit_rows(scratch));
        decoder.logits(team, scratch, at, rows);
        for (row, &owner) in owners[at..at + rows].iter().enumerate() {
            // A job that failed in an earlier row has no use for the later ones.
            if done.last().is_some_and(|(last, _)| *last == owner) {
                continue;
            }
            let before = running[owner].job.waiting();
            let logits = decoder.logit_row(scratch, row);
            let result = running[owner].job.take_logits(&shared.model, decoder, sampler, logits);
            count.generated += (running[owner].job.waiting() - before) as u64;
            done.extend(result.transpose().map(|result| (owner, result)));
        }
        at += rows;
    }
    shared.counters.step(&count, started.elapsed());
    for (owner, result) in done {
        shared.counters.finished();
        running[owner].job.finish(result);
    }
}
