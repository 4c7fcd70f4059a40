//! `salmon score`: the reward of responses under principles.
//!
//! In: an instruction and a response, or a file with many; principles by name or as text. Out: one number per
//! response on stdout, in the order of the input.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use clap::Args;
use serde::Deserialize;

use super::sql;
use crate::catalog::opened::{OpenRun, text, whole};
use crate::principle::Chosen;
use crate::query::{self, Params};
use crate::{Error, Result};

const SQL: &str = include_str!("../../sql/score.sql");

/// Score responses under principles, with a run's reward model.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// The run: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(long, default_value = "runs/main", value_name = "URL")]
    pub run: String,
    /// The reward model
    #[arg(long, default_value = "reward", value_name = "NAME")]
    pub model: String,
    /// What was asked
    #[arg(long, value_name = "TEXT", requires = "response", required_unless_present = "file")]
    pub instruction: Option<String>,
    /// What was answered
    #[arg(long, value_name = "TEXT", requires = "instruction")]
    pub response: Option<String>,
    /// A JSONL file with `instruction` and `response` per line; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["instruction", "response"])]
    pub file: Option<PathBuf>,
    /// A principle of the run, a set of them, or `not NAME`; for several, repeat it
    #[arg(long, value_name = "NAME")]
    pub principle: Vec<String>,
    /// A principle in your own words; it comes after the named ones
    #[arg(long, value_name = "TEXT")]
    pub text: Vec<String>,
}

/// One line of `--file`.
#[derive(Debug, Deserialize)]
struct Pair {
    instruction: String,
    response: String,
}

/// Runs the command.
///
/// # Errors
/// A configuration error for a principle or model that the run does not have; a data error for a bad line or a
/// response that does not fit into the model's context; a store error for a place that holds no run.
pub async fn run(args: ScoreArgs) -> Result<()> {
    let pairs = match (&args.file, args.instruction, args.response) {
        (Some(file), _, _) => read(file)?,
        (None, Some(instruction), Some(response)) => vec![Pair { instruction, response }],
        _ => return Err(Error::config("score", "needs --instruction and --response, or --file")),
    };
    let run = OpenRun::open(&args.run).await?;
    let manifest = run.model(&args.model).await?;
    let principled = text(&manifest, "reward_template");
    let template = principled.or(text(&manifest, "rubric_template")).ok_or_else(|| {
        Error::config("--model", format!("`{}` is not a reward model; leave it out to take `reward`", args.model))
    })?;
    let mut chosen = run.library().await?.resolve("--principle", &args.principle)?;
    let own = |text: String| Chosen { name: text.clone(), negated: false, text };
    chosen.extend(args.text.into_iter().map(own));
    if chosen.is_empty() && principled.is_some() {
        return Err(Error::config("score", "needs a --principle of the run, or one in your own words with --text"));
    }

    let ctx = run.session(&manifest, "reward").await?;
    let (asked, shown) = (asked(&pairs)?, shown(&chosen)?);
    query::register_batches(&ctx, "asked", asked.schema(), vec![asked])?;
    query::register_batches(&ctx, "chosen", shown.schema(), vec![shown])?;
    let limit = |name: &str, default| whole(&manifest, name).unwrap_or(default);
    let params = Params::new()
        .with("template", template)
        .with("max_query_tokens", limit("max_query_tokens", run.config.reward.max_query_tokens))
        .with("max_response_tokens", limit("max_response_tokens", run.config.reward.max_response_tokens));
    for batch in query::sql(&ctx, SQL, &params).await?.collect().await? {
        let (ordinals, scores) = (batch.column(0), batch.column(1));
        let scores = scores.as_primitive_opt::<Float64Type>();
        let ordinals = ordinals.as_primitive_opt::<arrow::datatypes::Int64Type>();
        let (Some(ordinals), Some(scores)) = (ordinals, scores) else {
            return Err(Error::internal("score", "the columns have other types"));
        };
        for (ordinal, score) in ordinals.iter().zip(scores) {
            let row = ordinal.unwrap_or_default() + 1;
            let long = || Error::data(format!("response {row}"), "does not fit into the reward model's context");
            sql::say(&format!("{:.6}\n", score.ok_or_else(long)?))?;
        }
    }
    Ok(())
}

/// The lines of a JSONL file.
fn read(path: &Path) -> Result<Vec<Pair>> {
    let text = sql::read(path).map_err(|e| Error::data(path.display(), "cannot be read").because(e))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let pairs = lines
        .map(|(i, line)| {
            serde_json::from_str(line).map_err(|e| {
                let place = format!("{}:{}", path.display(), i + 1);
                Error::data(place, "is not an object with the texts `instruction` and `response`").because(e)
            })
        })
        .collect::<Result<Vec<Pair>>>()?;
    if pairs.is_empty() {
        return Err(Error::data(path.display(), "holds no line; write one JSON object per line"));
    }
    Ok(pairs)
}

fn asked(pairs: &[Pair]) -> Result<RecordBatch> {
    let text = |of: fn(&Pair) -> &String| Arc::new(StringArray::from_iter_values(pairs.iter().map(of))) as ArrayRef;
    let ordinals = Arc::new(Int64Array::from_iter_values(0..pairs.len() as i64)) as ArrayRef;
    let columns =
        [("ordinal", ordinals), ("instruction", text(|p| &p.instruction)), ("response", text(|p| &p.response))];
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn shown(chosen: &[Chosen]) -> Result<RecordBatch> {
    let text = |of: fn(&Chosen) -> &String| Arc::new(StringArray::from_iter_values(chosen.iter().map(of))) as ArrayRef;
    let places = Arc::new(Int64Array::from_iter_values(0..chosen.len() as i64)) as ArrayRef;
    let negated = BooleanArray::from(chosen.iter().map(|c| c.negated).collect::<Vec<_>>());
    let columns = [
        ("place", places),
        ("name", text(|c| &c.name)),
        ("negated", Arc::new(negated) as ArrayRef),
        ("text", text(|c| &c.text)),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
