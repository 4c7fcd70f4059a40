//! What a model folder gives for a text, for comparison with other programs:
//!
//! ```sh
//! cargo run --example logprobs -- models/base [models/adapter] < texts.jsonl
//! ```
//!
//! In: a Hugging Face folder, perhaps a PEFT folder on it, and lines of `{"text": ...}`. Out: per line
//! `{"ids": [...], "logprobs": [...], "score": ...}`: token ids with the bos token, the log-probability of every token but
//! the first in nats (none from a classifier without an unembedding), and the score of the last position where the
//! folder has a linear head.

use std::io::BufRead;
use std::path::Path;
use std::process::ExitCode;

use salmon::model::{Head, Network, Tokenizer};
use salmon::{Error, Result};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

fn main() -> ExitCode {
    let folders: Vec<String> = std::env::args().skip(1).collect();
    match folders.as_slice() {
        [base] => finish(answer(Path::new(base), None)),
        [base, adapter] => finish(answer(Path::new(base), Some(Path::new(adapter)))),
        _ => {
            eprintln!("usage: logprobs FOLDER [ADAPTER] < TEXTS.jsonl");
            ExitCode::from(2)
        }
    }
}

fn finish(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("logprobs: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn answer(base: &Path, adapter: Option<&Path>) -> Result<()> {
    let tokenizer = Tokenizer::open(base)?;
    let mut network = Network::open(base, Kind::Float, Device::Cpu)?;
    if let Some(adapter) = adapter {
        network = network.with_adapter(adapter)?;
    }
    let bad = |number: usize| Error::data(format!("line {}", number + 1), "is not an object with the text `text`");
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.map_err(|e| Error::data("standard input", "cannot be read").because(e))?;
        let row: Value = serde_json::from_str(&line).map_err(|e| bad(number).because(e))?;
        let text = row.get("text").and_then(Value::as_str).ok_or_else(|| bad(number))?;
        let ids = tokenizer.encode(text, true)?;
        println!("{}", row_of(&network, &ids)?);
    }
    Ok(())
}

fn row_of(network: &Network, ids: &[u32]) -> Result<Value> {
    let _frozen = tch::no_grad_guard();
    let ids_bt = Tensor::from_slice(&ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>()).unsqueeze(0);
    if network.head() == Head::Linear {
        let scores = network.scores(&network.hidden(&ids_bt)?.select(1, -1))?;
        return Ok(json!({"ids": ids, "score": Vec::<f32>::try_from(scores)?.first()}));
    }
    let logprobs = network.log_probs(&ids_bt)?.squeeze_dim(0);
    Ok(json!({"ids": ids, "logprobs": Vec::<f32>::try_from(logprobs)?}))
}
