//! How a trainer runs inside a stage: resume, checkpoints, metrics, progress.
//!
//! In: a trainer at step 0 and its rows. Out: the trained model and the stage's metrics, committed. A checkpoint is
//! taken every so many seconds and when the run is asked to stop; since every draw is keyed, it does not matter
//! for the result where they fall.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::rows::batch;
use crate::model::Network;
use crate::stage::Job;
use crate::train::reward::{PairExample, RewardTrainer};
use crate::train::sft::{Example, SftTrainer};
use crate::train::{Metrics, Plan};
use crate::{Error, Result, table};

/// One row of table `metrics`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Metric {
    stage: String,
    step: i64,
    name: String,
    value: f64,
}

/// Metrics of a stage so far; they travel with its checkpoints.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    rows: Vec<Metric>,
}

const METRICS: &str = "metrics.json";

impl Recorder {
    /// Adds the numbers of one step. What is not finite is left out: a table of numbers has no place for it.
    pub(super) fn add(&mut self, stage: &str, step: usize, metrics: &[(&'static str, f64)]) {
        let row = |(name, value): &(&'static str, f64)| Metric {
            stage: stage.to_string(),
            step: step as i64,
            name: name.to_string(),
            value: *value,
        };
        self.rows.extend(metrics.iter().filter(|(_, value)| value.is_finite()).map(row));
    }

    /// Writes them into a checkpoint folder.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(METRICS);
        // Bits as text: JSON numbers do not come back exactly everywhere.
        let rows: Vec<(&str, i64, &str, u64)> =
            self.rows.iter().map(|m| (m.stage.as_str(), m.step, m.name.as_str(), m.value.to_bits())).collect();
        let text = serde_json::to_vec(&rows).map_err(|e| Error::internal(METRICS, e))?;
        fs::write(&path, text).map_err(|e| Error::store(path.display(), "cannot be written").because(e))
    }

    /// Reads them back.
    pub(super) fn restore(folder: &Path) -> Result<Self> {
        let path = folder.join(METRICS);
        let text =
            fs::read(&path).map_err(|e| Error::store(path.display(), "is missing from the checkpoint").because(e))?;
        let rows: Vec<(String, i64, String, u64)> = serde_json::from_slice(&text).map_err(|e| {
            Error::store(path.display(), "is damaged; delete the checkpoint to start the stage again").because(e)
        })?;
        let row = |(stage, step, name, bits)| Metric { stage, step, name, value: f64::from_bits(bits) };
        Ok(Recorder { rows: rows.into_iter().map(row).collect() })
    }

    /// Writes table `metrics`.
    pub(super) async fn write(&self, job: &Job) -> Result<()> {
        let rows = batch(table::metrics().schema(), &self.rows)?;
        job.write_table("metrics", futures::stream::iter(rows.map(Ok::<_, Error>))).await?;
        Ok(())
    }
}

/// When to take a checkpoint.
pub(super) struct Pace {
    every: Duration,
    last: Instant,
}

impl Pace {
    pub(super) fn new(seconds: f64) -> Self {
        Pace { every: Duration::from_secs_f64(seconds), last: Instant::now() }
    }

    /// Whether one is due; the clock starts again then.
    pub(super) fn due(&mut self) -> bool {
        let due = self.last.elapsed() >= self.every;
        if due {
            self.last = Instant::now();
        }
        due
    }
}

/// What both trainers of rows can do.
pub(super) trait Trainer: Send + 'static {
    /// A row.
    type Row: Send + 'static;
    fn train(&mut self, rows: &[Self::Row], plan: &Plan, each: impl FnMut(&Self, &Metrics) -> Result<()>)
    -> Result<()>;
    fn save(&self, folder: &Path) -> Result<()>;
    fn restore(&mut self, folder: &Path) -> Result<bool>;
    fn steps_done(&self) -> usize;
    fn into_network(self) -> Network;
}

macro_rules! trainer {
    ($trainer:ident, $row:ident) => {
        impl Trainer for $trainer {
            type Row = $row;
            fn train(
                &mut self,
                rows: &[$row],
                plan: &Plan,
                each: impl FnMut(&Self, &Metrics) -> Result<()>,
            ) -> Result<()> {
                $trainer::train(self, rows, plan, each)
            }
            fn save(&self, folder: &Path) -> Result<()> {
                $trainer::save(self, folder)
            }
            fn restore(&mut self, folder: &Path) -> Result<bool> {
                $trainer::restore(self, folder)
            }
            fn steps_done(&self) -> usize {
                $trainer::steps_done(self)
            }
            fn into_network(self) -> Network {
                $trainer::into_network(self)
            }
        }
    };
}

trainer!(SftTrainer, Example);
trainer!(RewardTrainer, PairExample);

/// What a trainer's stage is told besides its rows.
pub(super) struct Order {
    /// The stage in `metrics`.
    pub(super) stage: String,
    /// The output model's name.
    pub(super) model: String,
    /// Seconds between checkpoints.
    pub(super) checkpoint_seconds: f64,
    pub(super) plan: Plan,
    /// Step-0 metrics, e.g. how many rows were left out.
    pub(super) counts: Vec<(&'static str, f64)>,
}

/// Trains to the end of the plan, from the newest checkpoint on, and writes model and metrics.
pub(super) async fn train<T: Trainer>(job: Arc<Job>, mut trainer: T, rows: Vec<T::Row>, order: Order) -> Result<()> {
    let scratch = job.scratch()?;
    let folder = scratch.path().join("checkpoint");
    let checkpoints = job.checkpoints(&order.model)?;
    let mut recorder = Recorder::default();
    recorder.add(&order.stage, 0, &order.counts);
    if checkpoints.restore(&folder).await?.is_some() && trainer.restore(&folder)? {
        recorder = Recorder::restore(&folder)?;
    }
    let runtime = Handle::current();
    let total = order.plan.steps() as u64;
    let model = scratch.path().join("model");
    let worker = Arc::clone(&job);
    let recorder = tokio::task::spawn_blocking(move || -> Result<Recorder> {
        let job = worker;
        let mut pace = Pace::new(order.checkpoint_seconds);
        job.advance(trainer.steps_done() as u64, Some(total), "steps");
        trainer.train(&rows, &order.plan, |trainer, metrics| {
            let step = trainer.steps_done();
            recorder.add(&order.stage, step, metrics);
            job.advance(step as u64, Some(total), "steps");
            let stopping = job.stop().asked();
            if pace.due() || stopping {
                trainer.save(&folder)?;
                recorder.save(&folder)?;
                runtime.block_on(checkpoints.save(step as u64, &folder))?;
            }
            job.stop().check(&order.stage)
        })?;
        trainer.into_network().save(&model)?;
        runtime.block_on(job.write_model(&order.model, &model))?;
        Ok(recorder)
    })
    .await
    .map_err(|e| Error::internal("trainer", "its thread died").because(e))??;
    recorder.write(&job).await
}
