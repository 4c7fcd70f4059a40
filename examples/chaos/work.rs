//! How much work a kill costs.
//!
//! In: how far a stage was when it was killed, and where the next attempt went on. Out: the share of an uninterrupted
//! run that had to be done again. A unit (shard, step; the whole of a stage that has none) counts in full when it was
//! under way, so the figures are upper bounds. Loading models and listing the store is not counted.

use std::fmt;

use crate::attempt::{Stage, Trail};
use crate::plan::Timeline;

/// What the kills of one configuration cost.
#[derive(Debug, Default)]
pub struct Work {
    /// A kill whose next attempt has not come back to its stage yet.
    open: Option<Stage>,
    /// Share of a run, and what was lost, per kill.
    lost: Vec<(f64, String)>,
}

impl Work {
    /// A kill: where the attempt was.
    pub fn killed(&mut self, trail: &Trail) {
        let Some(stage) = trail.last().filter(|stage| stage.ended.is_none()) else {
            // Between two stages, or while the program starts: nothing was under way.
            self.lost.push((0.0, "nothing".into()));
            return;
        };
        match &mut self.open {
            Some(open) if open.name == stage.name => {
                open.done = stage.done.or(open.done);
                open.total = stage.total.or(open.total);
                self.lost.push((0.0, "counted with the next kill".into()));
            }
            open => *open = Some(stage.clone()),
        }
    }

    /// A later attempt: whether it says how much was lost.
    pub fn resumed(&mut self, trail: &Trail, timeline: &Timeline) {
        let Some(open) = &self.open else { return };
        let Some(span) = timeline.spans.iter().find(|span| span.name == open.name) else { return };
        let units = match trail.stages.iter().find(|stage| stage.name == open.name) {
            None if trail.cached.contains(&open.name) => 0,
            None => return,
            Some(again) => match (open.done, again.done, open.total) {
                // The unit under way is lost, and those whose commit had not landed.
                (Some((_, last)), Some((first, _)), Some(total)) => (last + 1).min(total).saturating_sub(first),
                // It died before it said how far it was.
                (None, Some(_), _) => 0,
                (None, None, _) if again.ended.is_some() => 1,
                _ => return,
            },
        };
        let share = units as f64 * span.seconds / span.units as f64 / timeline.seconds();
        self.lost.push((share, format!("{units} of {} in {}", span.units, span.name)));
        self.open = None;
    }

    /// Work of a run with one kill, against one pass: the mean.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.lost.iter().map(|(share, _)| share).sum();
        1.0 + sum / self.lost.len().max(1) as f64
    }

    /// The worst kill: work against one pass, and what was lost.
    pub fn worst(&self) -> (f64, &str) {
        let worst = self.lost.iter().max_by(|a, b| a.0.total_cmp(&b.0));
        worst.map_or((1.0, "nothing"), |(share, what)| (1.0 + share, what))
    }

    /// Takes the kills of another run of the same configuration.
    pub fn add(&mut self, other: Work) {
        self.lost.extend(other.lost);
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (worst, what) = self.worst();
        write!(f, "work of a run with one kill {:.3}x of one pass, {worst:.3}x at worst ({what})", self.mean())
    }
}
