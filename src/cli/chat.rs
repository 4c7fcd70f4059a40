//! `salmon chat`: asks a policy of a run.
//!
//! In: prompts from `--prompt`, standard input or the keyboard, a line each. Out: one answer each on stdout. The
//! models are trained on single turns, so every prompt stands for itself: nothing that was said before is shown.

use std::io::{BufRead, IsTerminal};

use arrow::array::{Array, AsArray};
use clap::Args;
use datafusion::prelude::SessionContext;
use rustyline::error::ReadlineError;

use super::sql;
use crate::catalog::opened::{OpenRun, real, text, texts, whole};
use crate::query::{self, Params};
use crate::{Error, Result};

const SQL: &str = include_str!("../../sql/chat.sql");

/// Talk to a run's policy. Every line is a fresh prompt; the same seed and turn give the same answer.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// The run: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(long, default_value = "runs/main", value_name = "URL")]
    pub run: String,
    /// The policy; without it the configuration's first one that the run has, else `sft`
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub policy: Option<String>,
    /// Another model of the run, such as `sft`
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Answer this and end
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Sampling temperature, 0 for the likeliest answer; without it that of the rollouts
    #[arg(long, value_name = "T", allow_negative_numbers = true, value_parser = temperature)]
    pub temperature: Option<f64>,
    /// Most tokens of an answer; without it as in training
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub max_tokens: Option<i64>,
    /// Seed of the draws
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub seed: i64,
}

/// A temperature on the command line.
pub(super) fn temperature(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a number from 0 up".into()),
    }
}

/// Runs the command.
///
/// # Errors
/// A configuration error for a model that the run does not have; a data error for a prompt that leaves no room for
/// an answer; a store error for a place that holds no run.
pub async fn run(args: ChatArgs) -> Result<()> {
    let run = OpenRun::open(&args.run).await?;
    let name = match (&args.policy, &args.model) {
        (Some(policy), _) => format!("policy:{policy}"),
        (None, Some(model)) => model.clone(),
        (None, None) => {
            let mut policies = run.config.policies.iter().map(|policy| format!("policy:{}", policy.name));
            policies.find(|policy| run.has(policy)).unwrap_or_else(|| "sft".into())
        }
    };
    let manifest = run.model(&name).await?;
    let template = text(&manifest, "chat_template").ok_or_else(|| {
        Error::config("--model", format!("`{name}` does not answer prompts; choose `sft` or a policy"))
    })?;
    let defaults = &run.config.responses;
    let params = Params::new()
        .with("chat_template", template)
        .with("temperature", args.temperature.or(real(&manifest, "temperature")).unwrap_or(defaults.temperature))
        .with("top_p", real(&manifest, "top_p").unwrap_or(defaults.top_p))
        .with("max_tokens", args.max_tokens.or(whole(&manifest, "max_tokens")).unwrap_or(defaults.max_tokens))
        .with_texts("stop", &texts(&manifest, "stop").unwrap_or_else(|| defaults.stop.clone()))
        .with("seed", args.seed);
    let ctx = run.session(&manifest, "policy").await?;
    let mut chat = Chat { ctx, params, turn: 0 };
    if let Some(prompt) = &args.prompt {
        return chat.turn(prompt).await;
    }
    if std::io::stdin().is_terminal() {
        eprintln!("{name} of {}; every line is a fresh prompt, without what was said before; ctrl-d ends", args.run);
        return chat.keyboard().await;
    }
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| Error::data("standard input", "cannot be read as text").because(e))?;
        if !line.trim().is_empty() {
            chat.turn(&line).await?;
        }
    }
    Ok(())
}

struct Chat {
    ctx: SessionContext,
    params: Params,
    /// How many prompts were asked before; part of what the draws are keyed by.
    turn: i64,
}

impl Chat {
    /// Asks, and writes the answer.
    async fn turn(&mut self, prompt: &str) -> Result<()> {
        let params = self.params.clone().with("instruction", prompt).with("turn", self.turn);
        self.turn += 1;
        let rows = query::sql(&self.ctx, SQL, &params).await?.collect().await?;
        let cell = |name: &str| {
            let array = rows.first()?.column_by_name(name)?.as_string_opt::<i32>()?;
            (!array.is_empty() && array.is_valid(0)).then(|| array.value(0))
        };
        let finish = cell("finish_reason");
        if finish == Some("prompt_too_long") {
            return Err(Error::data("prompt", "leaves no room for an answer in the model's context; shorten it"));
        }
        sql::say(&format!("{}\n", cell("response").unwrap_or_default()))?;
        if finish == Some("length") {
            eprintln!("(cut: the answer reached its most tokens; --max-tokens sets them)");
        }
        Ok(())
    }

    async fn keyboard(&mut self) -> Result<()> {
        let bad = |e: ReadlineError| Error::internal("chat", "the terminal cannot be read").because(e);
        let mut editor = rustyline::DefaultEditor::new().map_err(bad)?;
        loop {
            match editor.readline("you> ") {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => {
                    let _ = editor.add_history_entry(line.as_str());
                    if let Err(error) = self.turn(&line).await {
                        eprintln!("salmon: {error}");
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(()),
                Err(e) => return Err(bad(e)),
            }
        }
    }
}
