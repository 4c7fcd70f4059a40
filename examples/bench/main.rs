//! The side of `make bench` that is salmon: a process that stays up and does one piece of work per line.
//!
//! ```sh
//! cargo run --features bench --example bench -- --threads 2 < asks.jsonl
//! ```
//! In: lines of `{"do": ...}` ([`Ask`]), token ids as they come. Out: a line for each: what it gave, with the `seconds` that
//! the work took without reading, writing and loading; or `{"error": ...}`. `benches/side_by_side.py` asks.

#[path = "../shared/checkpoint.rs"]
mod checkpoint;
mod inference;
mod machine;
mod models;
mod training;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use inference::Model;
use salmon::model::LoraConfig;
use salmon::train::config::{PpoConfig, RewardConfig};
use salmon::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use training::{Policy, Reward};

/// One piece of work.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Ask {
    /// Write a model with random weights into `folder`.
    Make { model: String, folder: PathBuf },
    /// Load a model for inference, in place of the one before.
    Open { folder: PathBuf },
    /// Sample a response to each prompt.
    Generate { prompts: Vec<Vec<u32>>, max_tokens: usize, temperature: f64, seed: u64 },
    /// The log-probabilities of given responses.
    Logprobs { prompts: Vec<Vec<u32>>, responses: Vec<Vec<u32>> },
    /// The logits of these tokens after each prompt.
    Choice { prompts: Vec<Vec<u32>>, tokens: Vec<u32> },
    /// The reward head's score of each prompt.
    Reward { prompts: Vec<Vec<u32>> },
    /// Start to train a reward model.
    RewardTrainer { folder: PathBuf, lora: LoraConfig, config: RewardConfig, steps: usize },
    /// One optimizer step on pairs of (chosen, rejected).
    RewardStep { pairs: Vec<(Vec<u32>, Vec<u32>)> },
    /// Start PPO.
    Policy { folder: PathBuf, lora: LoraConfig, config: PpoConfig, steps: usize },
    /// One step of it: rollouts, rewards, updates.
    PpoStep { prompts: Vec<Vec<u32>>, max_tokens: usize, seed: u64 },
    /// The update alone, on rollouts of (prompt, response, reward) that another program made.
    PpoUpdate { rows: Vec<(Vec<u32>, Vec<u32>, f64)> },
    /// Free what was opened.
    Close,
    /// Resident memory.
    Memory,
    /// What the machine can do, measured for so long.
    Machine { seconds: f64 },
}

struct Driver {
    threads: usize,
    model: Option<Model>,
    reward: Option<Reward>,
    policy: Option<Policy>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let threads = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--threads", count] => count.parse().ok().filter(|&count: &usize| count > 0),
        _ => None,
    };
    let Some(threads) = threads else {
        eprintln!("usage: bench --threads N < ASKS.jsonl");
        return ExitCode::from(2);
    };
    let mut driver = Driver { threads, model: None, reward: None, policy: None };
    for line in std::io::stdin().lock().lines() {
        let answer = line
            .map_err(|e| Error::data("standard input", "cannot be read").because(e))
            .and_then(|line| serde_json::from_str(&line).map_err(|e| Error::data("ask", "is not one").because(e)))
            .and_then(|ask| driver.answer(ask))
            .unwrap_or_else(|error| json!({"error": error.to_string()}));
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            // Nobody listens any more.
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

impl Driver {
    fn answer(&mut self, ask: Ask) -> Result<Value> {
        match ask {
            Ask::Make { model, folder } => models::write(&model, &folder),
            Ask::Open { folder } => {
                self.model = None;
                Ok(self.model.insert(Model::open(&folder, self.threads)?).describe())
            }
            Ask::Generate { prompts, max_tokens, temperature, seed } => {
                opened(&self.model, "open")?.generate(prompts, max_tokens, temperature, seed)
            }
            Ask::Logprobs { prompts, responses } => opened(&self.model, "open")?.logprobs(prompts, responses),
            Ask::Choice { prompts, tokens } => opened(&self.model, "open")?.choice(prompts, &tokens),
            Ask::Reward { prompts } => opened(&self.model, "open")?.reward(prompts),
            Ask::RewardTrainer { folder, lora, config, steps } => {
                self.reward = Some(Reward::new(&folder, &lora, config, steps, self.threads)?);
                Ok(json!({}))
            }
            Ask::RewardStep { pairs } => opened_mut(&mut self.reward, "reward_trainer")?.step(pairs),
            Ask::Policy { folder, lora, config, steps } => {
                self.policy = Some(Policy::new(&folder, &lora, config, steps, self.threads)?);
                Ok(json!({}))
            }
            Ask::PpoStep { prompts, max_tokens, seed } => {
                opened_mut(&mut self.policy, "policy")?.step(prompts, max_tokens, seed)
            }
            Ask::PpoUpdate { rows } => opened_mut(&mut self.policy, "policy")?.update(rows),
            Ask::Close => {
                (self.model, self.reward, self.policy) = (None, None, None);
                Ok(json!({}))
            }
            Ask::Memory => machine::memory(),
            Ask::Machine { seconds } => machine::measure(self.threads, seconds),
        }
    }
}

fn opened<'a, T>(thing: &'a Option<T>, with: &str) -> Result<&'a T> {
    thing.as_ref().ok_or_else(|| Error::data("ask", format!("comes before `{with}`")))
}

fn opened_mut<'a, T>(thing: &'a mut Option<T>, with: &str) -> Result<&'a mut T> {
    thing.as_mut().ok_or_else(|| Error::data("ask", format!("comes before `{with}`")))
}
