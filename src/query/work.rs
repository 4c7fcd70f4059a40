//! What the models of a plan will have to do, found out before they do it.
//!
//! ```text
//! plan ─> every ModelExec ─> its input: rows from statistics, or counted; tokens from the first prompts
//! ```
//! In: a physical plan. Out: rows and tokens of each call. The input of an operator is run for that, without the models;
//! one that needs another model's answers is as large as that one's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::stats::Precision;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;

use super::call::Operation;
use super::exec::{ExecCall, ModelExec};
use crate::Result;
use crate::model::Tokenizer;

/// Rows whose prompts are encoded.
const SAMPLE: usize = 128;
/// How long rows are counted.
const PATIENCE: Duration = Duration::from_secs(3);

/// What one call will ask.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// The function.
    pub function: &'static str,
    /// The model's name.
    pub model: String,
    /// Rows; a LIMIT above a filter on answers may stop earlier.
    pub rows: u64,
    /// Whether there may be more: they were not counted to the end.
    pub more: bool,
    /// Tokens that the model reads.
    pub read: f64,
    /// Tokens that it samples at most.
    pub sampled: f64,
}

/// `reward('reward')`, if the operator is one that asks models.
pub fn model_call(plan: &dyn ExecutionPlan) -> Option<String> {
    let exec = plan.downcast_ref::<ModelExec>()?;
    let names = exec.calls.iter().map(|call| format!("{}('{}')", call.operation.function().name(), call.model));
    Some(names.collect::<Vec<_>>().join(", "))
}

/// Whether any operator of the plan asks a model.
pub fn asks_models(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<ModelExec>() || plan.children().into_iter().any(asks_models)
}

/// What every call of the plan will ask, those nearest to the rows first.
///
/// # Errors
/// Those of the operators below the models, and of tokenizers.
pub async fn work(plan: &Arc<dyn ExecutionPlan>, task: &Arc<TaskContext>) -> Result<Vec<Work>> {
    let mut open = vec![Arc::clone(plan)];
    let mut execs = Vec::new();
    while let Some(plan) = open.pop() {
        open.extend(plan.children().into_iter().cloned());
        if plan.is::<ModelExec>() {
            execs.push(plan);
        }
    }
    let mut works: Vec<Work> = Vec::new();
    // What is deeper in the plan was found later.
    for plan in execs.into_iter().rev() {
        let Some(exec) = plan.downcast_ref::<ModelExec>() else { continue };
        let asked = match asks_models(&exec.input) {
            true => after(exec, &works),
            false => probe(exec, task).await?,
        };
        works.extend(asked);
    }
    Ok(works)
}

/// The work of an operator that reads the answers of others: as many rows as they have, and what they read and sample.
fn after(exec: &ModelExec, below: &[Work]) -> Vec<Work> {
    let largest = below.iter().max_by_key(|work| work.rows);
    let (rows, more) = largest.map_or((0, false), |work| (work.rows, work.more));
    let read = largest.map_or(0.0, |work| work.read + work.sampled);
    exec.calls.iter().map(|call| one(call, rows, more, read)).collect()
}

fn one(call: &ExecCall, rows: u64, more: bool, read: f64) -> Work {
    let sampled = match &call.operation {
        Operation::Generate { sampling, .. } => rows as f64 * sampling.max_tokens as f64,
        _ => 0.0,
    };
    Work { function: call.operation.function().name(), model: call.model.clone(), rows, more, read, sampled }
}

/// Runs the input of an operator as far as needed.
async fn probe(exec: &ModelExec, task: &Arc<TaskContext>) -> Result<Vec<Work>> {
    let statistics = StatisticsContext::new().compute(exec.input.as_ref(), &StatisticsArgs::new())?.num_rows;
    let known = match statistics {
        // Those of a scan do not know its limit.
        Precision::Exact(rows) if !limited(&exec.input) => Some(rows as u64),
        _ => None,
    };
    let mut tokenizers = Vec::with_capacity(exec.calls.len());
    for call in exec.calls.iter() {
        tokenizers.push(exec.models.tokenizer(&call.model)?);
    }
    let (began, mut rows, mut sample, mut more) = (Instant::now(), 0u64, 0usize, false);
    let mut tokens = vec![0usize; exec.calls.len()];
    let mut batches = execute_stream(reset_plan_states(Arc::clone(&exec.input))?, Arc::clone(task))?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        let part = batch.slice(0, batch.num_rows().min(SAMPLE - sample));
        sample += part.num_rows();
        if part.num_rows() > 0 {
            for ((call, tokenizer), tokens) in exec.calls.iter().zip(&tokenizers).zip(&mut tokens) {
                *tokens += count(call, tokenizer, &part)?;
            }
        }
        if known.is_some() && sample == SAMPLE {
            break;
        }
        if began.elapsed() > PATIENCE {
            more = known.is_none();
            break;
        }
    }
    let rows = known.unwrap_or(rows);
    let all = |tokens: usize| tokens as f64 * rows as f64 / sample.max(1) as f64;
    Ok(exec.calls.iter().zip(tokens).map(|(call, tokens)| one(call, rows, more, all(tokens))).collect())
}

fn limited(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.fetch().is_some() || plan.children().into_iter().any(limited)
}

/// Tokens that the model reads for these rows.
fn count(call: &ExecCall, tokenizer: &Tokenizer, rows: &RecordBatch) -> Result<usize> {
    let mut tokens = 0;
    // The second argument of generate only names the row.
    let read = if matches!(call.operation, Operation::Generate { .. }) { 1 } else { call.args.len() };
    for arg in call.args.iter().take(read) {
        let values: ArrayRef = arg.evaluate(rows)?.into_array(rows.num_rows())?;
        match values.data_type() {
            DataType::Utf8 => {
                for text in values.as_string::<i32>().iter().flatten() {
                    tokens += tokenizer.encode(text, true)?.len();
                }
            }
            _ => tokens += values.as_list_opt::<i32>().map_or(0, |lists| lists.values().len()),
        }
    }
    Ok(tokens)
}
