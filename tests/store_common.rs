//! What the store tests share: small tables, small graphs, and a second process that can die.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use salmon::stage::{Graph, Job, Options, Planned, Silent, Stage, Stop};
use salmon::store::{Artifact, Lineage, Store, Version};
use salmon::{Error, Result, draw};

/// A version of table `name` with a made-up fingerprint.
pub(crate) fn version(name: &str) -> Version {
    Version::new(Artifact::table(name), "0123456789abcdef").unwrap()
}

/// Rows `range` of a `metrics` table; the name column is text that does not compress.
pub(crate) fn metrics(range: std::ops::Range<i64>) -> RecordBatch {
    let text = |row: i64| -> String {
        let key = draw::key(row as u64, &["text"]);
        (0..4 + row % 7).map(|n| format!("{:016x}", key.draw(n as u64))).collect()
    };
    RecordBatch::try_from_iter([
        ("stage", Arc::new(StringArray::from_iter_values(range.clone().map(|_| "sft"))) as ArrayRef),
        ("step", Arc::new(Int64Array::from_iter_values(range.clone()))),
        ("name", Arc::new(StringArray::from_iter_values(range.clone().map(text)))),
        ("value", Arc::new(Float64Array::from_iter_values(range.map(|row| row as f64 / 3.0)))),
    ])
    .unwrap()
}

/// A stream of batches that do not fail.
pub(crate) fn stream(batches: Vec<RecordBatch>) -> impl futures::Stream<Item = Result<RecordBatch>> + Unpin {
    futures::stream::iter(batches.into_iter().map(Ok::<_, Error>))
}

/// Every object below `prefix` with its bytes; manifests without what is only for information.
pub(crate) async fn contents(store: &Store, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in store.list(prefix).await.unwrap() {
        let mut bytes = store.get(&entry.key).await.unwrap().unwrap().to_vec();
        if entry.key.ends_with("manifest.json") {
            let mut value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            let map = value.as_object_mut().unwrap();
            map.remove("info");
            map.remove("checksum");
            bytes = serde_json::to_vec(&value).unwrap();
        }
        found.insert(entry.key, bytes);
    }
    found
}

/// A stage that writes `rows` metrics with parameter `scale`, reading `inputs`.
pub(crate) fn stage(name: &str, inputs: Vec<Artifact>, outputs: Vec<Artifact>, recipe: Lineage) -> Stage {
    Stage::new(name, inputs, outputs.clone(), recipe, move |job: Arc<Job>| {
        let outputs = outputs.clone();
        async move {
            for output in &outputs {
                job.write_table(&output.name, stream(vec![empty_or_metrics(&output.name)])).await?;
            }
            Ok(())
        }
    })
}

/// Ten metrics, or no rows of any other table.
fn empty_or_metrics(name: &str) -> RecordBatch {
    match name {
        "metrics" => metrics(0..10),
        other => RecordBatch::new_empty(salmon::table::by_name(other).unwrap().schema()),
    }
}

pub(crate) async fn run(graph: &Graph, store: &Store, options: &Options) -> Result<Vec<Planned>> {
    salmon::stage::run(graph, store, options, Arc::new(Silent), &Stop::new()).await
}

/// Set in the second process, to the folder it works in.
pub(crate) const CHILD: &str = "SALMON_TEST_CHILD";

/// Runs the test `name` of this binary in a process of its own, with `CHILD` set to `folder`.
pub(crate) fn child(name: &str, folder: &Path, environment: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, folder)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}
