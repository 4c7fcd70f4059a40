//! When to kill.
//!
//! In: how long each stage of an uninterrupted run takes. Out: moments spread over the whole run: half of them even in
//! time, half even over the stages (short ones are hit as often as long ones); a third of all close to a commit.

use salmon::draw::Key;

use crate::attempt::Trail;

/// One stage of an uninterrupted run.
#[derive(Debug, Clone)]
pub struct Span {
    /// The stage.
    pub name: String,
    /// Seconds from its beginning to that of the next.
    pub seconds: f64,
    /// Shards or steps; 1 for a stage that has none.
    pub units: u64,
}

/// An uninterrupted run.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Its stages, in order.
    pub spans: Vec<Span>,
    /// Seconds before the first of them.
    pub before: f64,
}

/// A moment to kill at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Index of the stage; `None` while the program starts.
    pub stage: Option<usize>,
    /// How much of the stage's time has passed.
    pub part: f64,
    /// By SIGTERM instead of SIGKILL.
    pub ask: bool,
}

impl Timeline {
    /// From what an uninterrupted run said.
    pub fn of(trail: &Trail, began: std::time::Instant, ended: std::time::Instant) -> Timeline {
        let starts: Vec<_> = trail.stages.iter().map(|stage| stage.began).chain([ended]).collect();
        let spans = trail.stages.iter().zip(starts.windows(2)).map(|(stage, at)| Span {
            name: stage.name.clone(),
            seconds: (at[1] - at[0]).as_secs_f64(),
            units: stage.total.unwrap_or(1).max(1),
        });
        let before = trail.stages.first().map_or(0.0, |stage| (stage.began - began).as_secs_f64());
        Timeline { spans: spans.collect(), before }
    }

    /// Seconds of all stages.
    pub fn seconds(&self) -> f64 {
        self.spans.iter().map(|span| span.seconds).sum()
    }

    /// Where a stage is.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.spans.iter().position(|span| span.name == name)
    }

    /// `count` moments in the order in which a run comes to them.
    pub fn targets(&self, key: Key, count: usize) -> Vec<Target> {
        let mut targets: Vec<Target> = (0..count as u64).map(|n| self.target(key.with(n))).collect();
        targets.sort_by(|a, b| (a.stage, a.part).partial_cmp(&(b.stage, b.part)).unwrap_or(std::cmp::Ordering::Equal));
        targets
    }

    fn target(&self, key: Key) -> Target {
        if key.uniform(0) < 0.05 {
            return Target { stage: None, part: key.uniform(1), ask: false };
        }
        let stage = if key.uniform(2) < 0.5 {
            key.below(3, self.spans.len().max(1) as u64) as usize
        } else {
            let mut at = key.uniform(3) * self.seconds();
            let over = self.spans.iter().position(|span| {
                at -= span.seconds;
                at < 0.0
            });
            over.unwrap_or(self.spans.len().saturating_sub(1))
        };
        // A third of the kills come around the commit at a stage's end.
        let part = if key.uniform(4) < 1.0 / 3.0 { 0.9 + 0.2 * key.uniform(5) } else { key.uniform(5) };
        Target { stage: Some(stage), part, ask: key.uniform(6) < 0.125 }
    }
}
