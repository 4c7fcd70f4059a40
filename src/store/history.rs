//! What was run, when and where.
//!
//! In: one [`Record`] per stage that ran to its commit. Out: small JSON objects under `runs/`, and the `runs`
//! table made of them. History is for reading; nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder};
use serde::{Deserialize, Serialize};

use super::manifest::{FORMAT, Info};
use super::{Kind, Store};
use crate::{Error, Result};

/// One output of a stage that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Table or model.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The version.
    pub fingerprint: String,
    /// Rows, 0 for a model.
    pub rows: u64,
}

/// One execution of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format of this object.
    pub format: u64,
    /// The stage.
    pub stage: String,
    /// What it made.
    pub made: Vec<Made>,
    /// Inputs and models with their fingerprints.
    pub inputs: BTreeMap<String, String>,
    /// When, where, how long.
    pub info: Info,
}

impl Record {
    /// A record of `stage`.
    pub fn new(stage: &str, made: Vec<Made>, inputs: BTreeMap<String, String>, info: Info) -> Self {
        Record { format: FORMAT, stage: stage.to_string(), made, inputs, info }
    }

    /// Writes it under a key that sorts by time.
    pub async fn write(&self, store: &Store) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::internal("runs", "a record").because(e))?;
        let when: String = self.info.started.chars().filter(char::is_ascii_alphanumeric).collect();
        store.put(&format!("runs/{when}-{}-{}.json", self.stage, std::process::id()), text).await
    }
}

/// All records, oldest first.
///
/// # Errors
/// A store error that names a record that cannot be read.
pub async fn records(store: &Store) -> Result<Vec<Record>> {
    let keys = store.list("runs").await?.into_iter().map(|entry| entry.key).filter(|key| key.ends_with(".json"));
    let read = |key: String| async move {
        let bytes = store.get(&key).await?.unwrap_or_default();
        serde_json::from_slice::<Record>(&bytes)
            .map_err(|e| Error::store(store.name_of(&key), "is damaged; delete it").because(e))
    };
    Store::each(keys.collect(), read).await
}

/// The `runs` table: one row per output of a record.
pub fn table(records: &[Record]) -> Result<RecordBatch> {
    let rows: Vec<(&Record, &Made)> = records.iter().flat_map(|r| r.made.iter().map(move |made| (r, made))).collect();
    let text = |pick: &dyn Fn(&(&Record, &Made)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(pick)))
    };
    let mut inputs = ListBuilder::new(StringBuilder::new());
    for (record, _) in &rows {
        inputs.append_value(record.inputs.iter().map(|(name, print)| Some(format!("{name}={print}"))));
    }
    let columns: Vec<ArrayRef> = vec![
        text(&|(record, _)| record.stage.clone()),
        text(&|(_, made)| made.name.clone()),
        text(&|(_, made)| made.fingerprint.clone()),
        Arc::new(inputs.finish()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, made)| made.rows as i64))),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|(record, _)| record.info.seconds))),
        text(&|(record, _)| record.info.started.clone()),
        text(&|(record, _)| record.info.host.clone()),
        text(&|(record, _)| record.info.version.clone()),
    ];
    Ok(RecordBatch::try_new(crate::table::runs().schema(), columns)?)
}

impl Info {
    /// What is known when a stage begins: time, machine and version.
    pub fn begin() -> Self {
        Info { rows: 0, seconds: 0.0, started: now(), host: host(), version: env!("CARGO_PKG_VERSION").to_string() }
    }
}

/// The time: UTC with microseconds, RFC 3339.
pub(super) fn now() -> String {
    utc(SystemTime::now())
}

fn utc(time: SystemTime) -> String {
    let micros = time.duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_micros() as i64);
    match arrow::temporal_conversions::timestamp_us_to_datetime(micros) {
        Some(datetime) => format!("{}Z", datetime.format("%Y-%m-%dT%H:%M:%S%.6f")),
        None => String::new(),
    }
}

pub(super) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).map(|name| name.trim().to_string());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".into())
}
