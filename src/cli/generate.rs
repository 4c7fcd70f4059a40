//! `salmon generate`: what a model folder says after a prompt.
//!
//! In: a Hugging Face folder of any supported architecture, a text or token ids. Out: the response on stdout, as text or
//! with its tokens and their log-probabilities.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use super::at_hand::AtHand;
use super::chat::temperature;
use super::sql::say;
use crate::draw::key;
use crate::engine::{Engine, EngineOptions, Finish, Generation, Inference, Output, Request, Sampling, Task};
use crate::model::Tokenizer;
use crate::{Error, Result};

/// Let a model folder go on from a prompt; the same seed gives the same answer.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The model: a Hugging Face folder, or a URL such as s3://bucket/models/llama
    #[arg(long, value_name = "FOLDER")]
    pub model: PathBuf,
    /// The prompt as it stands, without a chat template; the model's bos token is put first
    #[arg(long, value_name = "TEXT", required_unless_present = "ids", conflicts_with = "ids")]
    pub prompt: Option<String>,
    /// The prompt as token ids, e.g. 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub ids: Vec<u32>,
    /// Most tokens of the response
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Sampling temperature, 0 for the likeliest token each time
    #[arg(long, default_value_t = 1.0, value_name = "T", allow_negative_numbers = true, value_parser = temperature)]
    pub temperature: f64,
    /// Sample among the likeliest tokens that together reach this probability; 1 for all
    #[arg(long, default_value_t = 1.0, value_name = "P", allow_negative_numbers = true, value_parser = share)]
    pub top_p: f64,
    /// Sample among this many of the likeliest tokens; 0 for all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub top_k: usize,
    /// End the response before this text; for several, repeat it
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
    /// Seed of the draws
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(0..))]
    pub seed: u64,
    /// How the response is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How a response is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Its text; its token ids where the folder has no tokenizer.
    Text,
    /// An object with its text, token ids, log-probabilities and finish reason.
    Json,
}

fn share(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("expected a number above 0 and at most 1".into()),
    }
}

/// A response in JSON.
#[derive(Serialize)]
struct Response<'a> {
    /// Nothing where the folder has no tokenizer.
    text: Option<&'a str>,
    token_ids: &'a [u32],
    logprobs: &'a [f32],
    finish_reason: &'static str,
    prompt_token_ids: &'a [u32],
}

/// Runs the command.
///
/// # Errors
/// A model error for a folder that cannot be read; a data error for a prompt that the model does not know or that leaves
/// no room for a response; a configuration error for a text where the folder has no tokenizer.
pub async fn run(args: GenerateArgs) -> Result<()> {
    let at_hand = AtHand::open(&args.model).await?;
    let prompt = at_hand.ids("--prompt", args.prompt.as_deref(), args.ids)?;
    let (network, has_text) = (at_hand.network, at_hand.tokenizer.is_some());
    let context = network.config().max_position_embeddings;
    if prompt.len() >= context {
        let problem = format!("{} tokens leave no room for a response in the context of {context}", prompt.len());
        return Err(Error::data("prompt", problem));
    }
    if !has_text && !args.stop.is_empty() {
        return Err(Error::config("--stop", "the model folder has no tokenizer.json to find a text with"));
    }
    let tokenizer = match at_hand.tokenizer {
        Some(tokenizer) => tokenizer,
        None => numbers(network.config().vocab_size)?,
    };
    let options = EngineOptions { workers: 1, ..EngineOptions::default() };
    let engine = Engine::new(network.config(), network.merged()?, Arc::new(tokenizer), network.head(), options)?;
    drop(network);

    let sampling = Arc::new(Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        max_tokens: args.max_tokens as usize,
        stop: args.stop,
    });
    let task = Task::Generate { sampling, key: key(args.seed, &["generate"]) };
    let outputs = engine.submit(vec![Request { prompt: prompt.clone(), task }]).await?;
    let Some(Output::Generation(Generation { ids, text, logprobs, finish })) = outputs.into_iter().next() else {
        return Err(Error::internal("generate", "the engine gave another output"));
    };
    match args.format {
        Format::Text => {
            say(&format!("{text}\n"))?;
            if finish == Finish::Length {
                eprintln!("(cut: the response reached its most tokens; --max-tokens sets them)");
            }
            Ok(())
        }
        Format::Json => {
            let response = Response {
                text: has_text.then_some(text.as_str()),
                token_ids: &ids,
                logprobs: &logprobs,
                finish_reason: match finish {
                    Finish::Stop => "stop",
                    Finish::Length => "length",
                },
                prompt_token_ids: &prompt,
            };
            let line = serde_json::to_string(&response)
                .map_err(|e| Error::internal("generate", "the response cannot be written").because(e))?;
            say(&format!("{line}\n"))
        }
    }
}

/// A tokenizer whose texts are the ids, for a folder without one.
fn numbers(vocab: usize) -> Result<Tokenizer> {
    let ids: serde_json::Map<_, _> = (0..vocab).map(|id| (id.to_string(), json!(id))).collect();
    let model = json!({"type": "WordLevel", "vocab": ids, "unk_token": "0"});
    let file = json!({"version": "1.0", "added_tokens": [], "model": model});
    Tokenizer::from_bytes(file.to_string().as_bytes(), "token ids")
}
