//! `salmon logprobs`: how likely a model folder finds every token of a text, and what it would have said instead.
//!
//! In: a Hugging Face folder of any supported architecture, a text or token ids. Out: a row per token on stdout, and one
//! for the token that would come next; their sum on stderr.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch, StringArray, UInt32Array};
use arrow::util::pretty::pretty_format_batches;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::at_hand::AtHand;
use super::sql::say;
use crate::{Error, Result};

/// Show how likely a model folder finds every token of a text.
#[derive(Debug, Args)]
pub struct LogprobsArgs {
    /// The model: a Hugging Face folder, or a URL such as s3://bucket/models/llama
    #[arg(long, value_name = "FOLDER")]
    pub model: PathBuf,
    /// The text; the model's bos token is put first
    #[arg(long, value_name = "TEXT", required_unless_present = "ids", conflicts_with = "ids")]
    pub text: Option<String>,
    /// The text as token ids, e.g. 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub ids: Vec<u32>,
    /// How many of the likeliest tokens to show at each position
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub top: usize,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// A JSON array of objects.
    Json,
}

/// One position: what stands there, and what the model expected after everything before it.
#[derive(Serialize)]
struct Position {
    position: usize,
    /// Nothing for the token that would come next.
    token_id: Option<u32>,
    /// Its text as the vocabulary has it.
    token: Option<String>,
    /// Natural logarithm; nothing for the first token, which nothing was expected before.
    logprob: Option<f32>,
    /// The likeliest tokens, the first one first.
    top: Vec<Likely>,
}

#[derive(Serialize)]
struct Likely {
    token_id: u32,
    token: Option<String>,
    logprob: f32,
}

/// Runs the command.
///
/// # Errors
/// A model error for a folder that cannot be read; a data error for tokens that the model does not know or that do not
/// fit into its context; a configuration error for a text where the folder has no tokenizer.
pub async fn run(args: LogprobsArgs) -> Result<()> {
    let at_hand = AtHand::open(&args.model).await?;
    let ids = at_hand.ids("--text", args.text.as_deref(), args.ids)?;
    let expected = at_hand.network.expectations(&ids, args.top)?;
    let positions: Vec<Position> = (0..=ids.len())
        .map(|position| {
            let before = position.checked_sub(1).and_then(|before| expected.get(before));
            let token_id = ids.get(position).copied();
            let likely = before.map_or(&[][..], |expected| &expected.likeliest);
            Position {
                position,
                token_id,
                token: token_id.and_then(|id| at_hand.token(id)),
                logprob: before.and_then(|expected| expected.next),
                top: likely
                    .iter()
                    .map(|&(token_id, logprob)| Likely { token_id, token: at_hand.token(token_id), logprob })
                    .collect(),
            }
        })
        .collect();
    match args.format {
        Format::Table => say(&table(&positions)?)?,
        Format::Json => {
            let text = serde_json::to_string(&positions)
                .map_err(|e| Error::internal("logprobs", "the rows cannot be written").because(e))?;
            say(&format!("{text}\n"))?;
        }
    }
    let scored: Vec<f64> = positions.iter().filter_map(|position| position.logprob).map(f64::from).collect();
    if !scored.is_empty() {
        let sum: f64 = scored.iter().sum();
        let perplexity = (-sum / scored.len() as f64).exp();
        eprintln!("{} tokens after the first: log-probability {sum:.4}, perplexity {perplexity:.4}", scored.len());
    }
    Ok(())
}

fn table(positions: &[Position]) -> Result<String> {
    let shown = |token: &Option<String>, id: u32| match token {
        Some(text) => format!("{text:?}"),
        None => id.to_string(),
    };
    let top = |position: &Position| {
        let likely = position.top.iter().map(|l| format!("{} {:.3}", shown(&l.token, l.token_id), l.logprob));
        likely.collect::<Vec<_>>().join("  ")
    };
    let tokens = positions.iter().map(|p| p.token.as_ref().map(|text| format!("{text:?}")));
    let columns: [(&str, ArrayRef); 5] = [
        ("position", Arc::new(UInt32Array::from_iter_values(positions.iter().map(|p| p.position as u32)))),
        ("token_id", Arc::new(UInt32Array::from_iter(positions.iter().map(|p| p.token_id)))),
        ("token", Arc::new(StringArray::from_iter(tokens))),
        ("logprob", Arc::new(Float32Array::from_iter(positions.iter().map(|p| p.logprob)))),
        ("top", Arc::new(StringArray::from_iter_values(positions.iter().map(top)))),
    ];
    // A column of nothing would have no type otherwise.
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))?;
    Ok(format!("{}\n", pretty_format_batches(&[batch])?))
}
