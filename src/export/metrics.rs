//! The training curves of a run, as trainers of Hugging Face leave them.
//!
//! In: table `metrics`, and from the manifests when each stage ran. Out: per stage a folder (`sft`, `reward`,
//! `policy/<name>`) with `trainer_state.json` and a TensorBoard event file. Metrics have no times, so that running
//! again gives the same bytes; the time of a step is put evenly between the beginning and the end of its stage.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::AsArray;
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use serde_json::{Map, Value, json};

use super::card;
use super::events::EventFile;
use crate::query::{self, Params};
use crate::store::{Artifact, Current, Manifest, Store};
use crate::{Error, Result};

const SQL: &str = include_str!("../../sql/export/metrics.sql");

/// The metrics of one step, by name.
type Steps = BTreeMap<i64, Vec<(String, f64)>>;

/// Writes the curves of every stage of the run to `folder`, and a card; gives the stages.
///
/// # Errors
/// A data error for a run that has no metrics yet; a store error for what cannot be read or written.
pub async fn write_metrics(ctx: &SessionContext, store: &Store, folder: &Path) -> Result<Vec<String>> {
    let manifests = Current::load(store).await?.manifests(store, &Artifact::table("metrics")).await?;
    let mut stages = Vec::new();
    for manifest in &manifests {
        let steps = steps(ctx, &manifest.lineage.stage).await?;
        if !steps.is_empty() {
            write_stage(manifest, &steps, &folder.join(manifest.lineage.stage.replace(':', "/")))?;
            stages.push(manifest.lineage.stage.clone());
        }
    }
    if stages.is_empty() {
        return Err(Error::data(store, "has no metrics yet; a stage that trains makes them"));
    }
    card::metrics(store.url(), &stages, folder)?;
    Ok(stages)
}

async fn steps(ctx: &SessionContext, stage: &str) -> Result<Steps> {
    let mut rows = query::sql(ctx, SQL, &Params::new().with("stage", stage)).await?.execute_stream().await?;
    let mut steps = Steps::new();
    while let Some(batch) = rows.try_next().await? {
        let (numbers, names) =
            (batch.column(0).as_primitive_opt::<Int64Type>(), batch.column(1).as_string_opt::<i32>());
        let values = batch.column(2).as_primitive_opt::<Float64Type>();
        let (Some(numbers), Some(names), Some(values)) = (numbers, names, values) else {
            return Err(Error::internal("export metrics", "the columns have other types"));
        };
        for row in 0..batch.num_rows() {
            steps.entry(numbers.value(row)).or_default().push((names.value(row).to_string(), values.value(row)));
        }
    }
    Ok(steps)
}

fn write_stage(manifest: &Manifest, steps: &Steps, folder: &Path) -> Result<()> {
    let bad = |e: std::io::Error| Error::store(folder.display(), "cannot be written").because(e);
    std::fs::create_dir_all(folder).map_err(bad)?;
    let mut text = serde_json::to_string_pretty(&trainer_state(manifest, steps))
        .map_err(|e| Error::internal("trainer_state.json", "cannot be written").because(e))?;
    text.push('\n');
    std::fs::write(folder.join("trainer_state.json"), text).map_err(bad)?;

    let info = &manifest.info;
    let began = string_to_timestamp_nanos(&info.started).unwrap_or_default() as f64 / 1e9;
    let last = steps.keys().next_back().copied().unwrap_or_default().max(1) as f64;
    // TensorBoard finds files by this name; what follows it is a trainer's time, machine and process.
    let name = format!("events.out.tfevents.{}.{}.0", began as i64, info.host);
    let mut file = EventFile::create(&folder.join(name), began)?;
    for (step, metrics) in steps {
        let tagged: Vec<(String, f64)> =
            metrics.iter().map(|(name, value)| (format!("train/{name}"), *value)).collect();
        file.scalars(began + info.seconds * *step as f64 / last, *step, &tagged)?;
    }
    file.finish()
}

/// `trainer_state.json` with fields of transformers' `TrainerState` only: it refuses others.
fn trainer_state(manifest: &Manifest, steps: &Steps) -> Value {
    let logs: Vec<Value> = steps
        .iter()
        .map(|(step, metrics)| {
            let mut log: Map<String, Value> =
                metrics.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            log.insert("step".into(), json!(step));
            Value::Object(log)
        })
        .collect();
    let last = |name: &str| {
        let found = steps.values().rev().find_map(|metrics| metrics.iter().find(|(own, _)| own == name));
        found.map_or(Value::Null, |(_, value)| json!(value))
    };
    let parameters = &manifest.lineage.parameters;
    let trainer = parameters.get("trainer").or_else(|| parameters.get("ppo")?.get("trainer"));
    let setting = |name: &str| trainer.and_then(|trainer| trainer.get(name)).cloned();
    let steps_done = steps.keys().next_back().copied().unwrap_or_default();
    json!({
        "best_metric": null,
        "best_model_checkpoint": null,
        "epoch": last("epoch"),
        "eval_steps": 500,
        "global_step": steps_done,
        "is_hyper_param_search": false,
        "is_local_process_zero": true,
        "is_world_process_zero": true,
        "log_history": logs,
        "logging_steps": 1,
        "max_steps": steps_done,
        "num_input_tokens_seen": last("num_tokens").as_f64().unwrap_or_default() as i64,
        "num_train_epochs": setting("num_train_epochs").unwrap_or(json!(1)),
        "save_steps": 500,
        "stateful_callbacks": {},
        "total_flos": 0,
        "train_batch_size": setting("batch_size"),
        "trial_name": null,
        "trial_params": null,
    })
}
