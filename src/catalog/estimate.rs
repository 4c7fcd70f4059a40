//! What the models of a statement will have to do, and how long that takes here.
//!
//! In: rows and tokens of each call. Out: the same as text, with a time from the size of the models and what this machine
//! computes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::prelude::{DataFrame, SessionContext};
use tokio::sync::OnceCell;

use super::models::Known;
use crate::Result;
use crate::model::{Dimensions, ModelConfig};
use crate::query::Work;
use crate::torch;

/// What the models of a plan will have to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Estimate {
    /// Each call.
    pub work: Vec<Work>,
    /// Seconds on this machine, roughly.
    pub seconds: f64,
}

impl Estimate {
    pub(super) async fn of(work: Vec<Work>, known: &Known) -> Result<Self> {
        let mut operations = 0.0;
        for work in &work {
            let config = ModelConfig::open(&known.base(&work.model).await?)?;
            let weights = Dimensions::of(&config)?.parameters() as f64;
            operations += 2.0 * weights * (work.read + work.sampled);
        }
        Ok(Estimate { work, seconds: operations / speed().await? })
    }

    /// Whether every call asks at most so many rows.
    pub fn within(&self, rows: u64) -> bool {
        self.work.iter().all(|work| work.rows <= rows && !work.more)
    }

    /// The rows of EXPLAIN, and one more with this.
    pub(super) async fn beside(&self, session: &SessionContext, explained: DataFrame) -> Result<DataFrame> {
        let mut batches = explained.collect().await?;
        if let Some(first) = batches.first().filter(|_| !self.work.is_empty()) {
            let text = |text: String| Arc::new(StringArray::from(vec![text])) as ArrayRef;
            let columns = vec![text("models".into()), text(self.to_string())];
            batches.push(RecordBatch::try_new(first.schema(), columns)?);
        }
        Ok(session.read_batches(batches)?)
    }
}

/// Floating-point operations per second that this machine reaches, measured once.
async fn speed() -> Result<f64> {
    static SPEED: OnceCell<f64> = OnceCell::const_new();
    let measure = || async {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let measured =
            tokio::task::spawn_blocking(move || torch::speed(threads, std::time::Duration::from_millis(100)));
        measured.await.map_err(|e| crate::Error::internal("speed", "could not be measured").because(e))?
    };
    SPEED.get_or_try_init(measure).await.copied()
}

impl fmt::Display for Estimate {
    /// `reward('reward') for 1,200 rows, about 96,000 tokens to read; about 2 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A judge is asked in two orders: one line for both.
        let mut calls: BTreeMap<(&str, &str), Work> = BTreeMap::new();
        for work in &self.work {
            let sum = calls.entry((work.function, work.model.as_str()));
            let sum = sum.or_insert_with(|| Work { rows: 0, read: 0.0, sampled: 0.0, ..work.clone() });
            (sum.rows, sum.more) = (sum.rows.max(work.rows), sum.more || work.more);
            (sum.read, sum.sampled) = (sum.read + work.read, sum.sampled + work.sampled);
        }
        for work in calls.values() {
            let least = if work.more { "at least " } else { "" };
            write!(f, "{}('{}') for {least}{} rows", work.function, work.model, grouped(work.rows as f64))?;
            write!(f, ", about {} tokens to read", grouped(work.read))?;
            if work.sampled > 0.0 {
                write!(f, " and at most {} to write", grouped(work.sampled))?;
            }
            f.write_str("; ")?;
        }
        if self.work.is_empty() { Ok(()) } else { write!(f, "about {}", time(self.seconds)) }
    }
}

/// `12,345`.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{:.0} s", s.max(1.0)),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
