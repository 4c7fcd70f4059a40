//! Learning-rate schedules under their Hugging Face names.
//!
//! In: the number of steps done. Out: the factor on the configured learning rate for the next step. Formulas
//! and edge cases as in `transformers.optimization` (with warm-up the first step has factor 0).

use serde::{Deserialize, Serialize};

/// `lr_scheduler_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    /// Always 1.
    Constant,
    /// Rises from 0 to 1 during warm-up, then 1.
    ConstantWithWarmup,
    /// Warm-up, then a straight line to 0.
    Linear,
    /// Warm-up, then half a cosine to 0.
    Cosine,
    /// Warm-up, then half a cosine to `min_lr_rate`.
    CosineWithMinLr,
}

/// A schedule over a known number of steps.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Its shape.
    pub scheduler: Scheduler,
    /// Steps of warm-up.
    pub warmup_steps: usize,
    /// Steps in all, warm-up included.
    pub total_steps: usize,
    /// The factor that `cosine_with_min_lr` ends at.
    pub min_lr_rate: f64,
}

impl Schedule {
    /// `warmup_steps` where it is given, else `warmup_ratio` of the steps, rounded up.
    pub fn new(
        scheduler: Scheduler,
        warmup_steps: usize,
        warmup_ratio: f64,
        min_lr_rate: f64,
        total_steps: usize,
    ) -> Self {
        let from_ratio = (total_steps as f64 * warmup_ratio).ceil() as usize;
        let warmup_steps = if warmup_steps > 0 { warmup_steps } else { from_ratio };
        Schedule { scheduler, warmup_steps, total_steps, min_lr_rate }
    }

    /// The factor for the step after `done` steps.
    pub fn factor(&self, done: usize) -> f64 {
        if self.scheduler != Scheduler::Constant && done < self.warmup_steps {
            return done as f64 / self.warmup_steps.max(1) as f64;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = done.saturating_sub(self.warmup_steps) as f64 / span;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
        match self.scheduler {
            Scheduler::Constant | Scheduler::ConstantWithWarmup => 1.0,
            Scheduler::Linear => (1.0 - progress).max(0.0),
            Scheduler::Cosine => cosine,
            Scheduler::CosineWithMinLr => cosine * (1.0 - self.min_lr_rate) + self.min_lr_rate,
        }
    }
}
