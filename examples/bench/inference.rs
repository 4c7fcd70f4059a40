//! A model that is asked.
//!
//! In: prompts. Out: JSON with the answers and the seconds between submitting the first prompt and the last answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures::executor::block_on;
use salmon::draw::key;
use salmon::engine::{Engine, EngineOptions, Inference, Output, Request, Sampling, Task};
use salmon::model::{ModelConfig, PlainWeights, Tokenizer};
use salmon::{Error, Result};
use serde_json::{Value, json};
use tch::Kind;

/// A model folder, packed for the decoder.
pub(crate) struct Model {
    engine: Engine,
    config: ModelConfig,
}

impl Model {
    /// Loads a folder, with its reward head if it has one.
    pub(crate) fn open(folder: &Path, threads: usize) -> Result<Model> {
        let tokenizer = Arc::new(Tokenizer::open(folder)?);
        // As `salmon run` does by default.
        let weights = PlainWeights::open(folder, Kind::Float)?;
        let (config, head) = (weights.config().clone(), weights.head());
        let options = EngineOptions { workers: threads, ..EngineOptions::default() };
        Ok(Model { engine: Engine::new(&config, weights, tokenizer, head, options)?, config })
    }

    /// How many weights the products of one layer have, all and those of keys and values; how many the head has; and the
    /// bytes of all, of which a token reads each once: the head is the embedding.
    pub(crate) fn describe(&self) -> Value {
        let c = &self.config;
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let (queries, keys) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        json!({
            "layers": c.num_hidden_layers, "layer_weights": hidden * (2 * queries + 2 * keys + 3 * inner),
            "key_value_weights": hidden * 2 * keys, "head_weights": hidden * c.vocab_size,
            "weight_bytes": self.engine.weight_bytes(),
        })
    }

    /// Samples a response of exactly so many tokens to each prompt; no token of these models ends one.
    pub(crate) fn generate(
        &self,
        prompts: Vec<Vec<u32>>,
        max_tokens: usize,
        temperature: f64,
        seed: u64,
    ) -> Result<Value> {
        let (seconds, outputs) = asked(&self.engine, sampling(prompts, max_tokens, temperature, seed))?;
        let ids: Vec<Vec<u32>> = outputs.into_iter().filter_map(response).collect();
        Ok(json!({"seconds": seconds, "ids": ids}))
    }

    pub(crate) fn logprobs(&self, prompts: Vec<Vec<u32>>, responses: Vec<Vec<u32>>) -> Result<Value> {
        let task = |(prompt, response)| Request { prompt, task: Task::Logprobs { response } };
        let (seconds, outputs) = asked(&self.engine, prompts.into_iter().zip(responses).map(task).collect())?;
        let take = |output| if let Output::Logprobs(logprobs) = output { Some(logprobs) } else { None };
        Ok(json!({"seconds": seconds, "logprobs": outputs.into_iter().filter_map(take).collect::<Vec<_>>()}))
    }

    pub(crate) fn choice(&self, prompts: Vec<Vec<u32>>, tokens: &[u32]) -> Result<Value> {
        let task = |prompt| Request { prompt, task: Task::Choice { tokens: tokens.to_vec() } };
        let (seconds, outputs) = asked(&self.engine, prompts.into_iter().map(task).collect())?;
        let take = |output| if let Output::Logits(logits) = output { Some(logits) } else { None };
        Ok(json!({"seconds": seconds, "logits": outputs.into_iter().filter_map(take).collect::<Vec<_>>()}))
    }

    pub(crate) fn reward(&self, prompts: Vec<Vec<u32>>) -> Result<Value> {
        let (seconds, outputs) = asked(&self.engine, rewards(prompts))?;
        Ok(json!({"seconds": seconds, "scores": outputs.iter().filter_map(score).collect::<Vec<_>>()}))
    }
}

/// Asks a model and takes the time.
pub(crate) fn asked(model: &dyn Inference, requests: Vec<Request>) -> Result<(f64, Vec<Output>)> {
    let (start, count) = (Instant::now(), requests.len());
    let outputs = block_on(model.submit(requests))?;
    let seconds = start.elapsed().as_secs_f64();
    if outputs.len() != count {
        return Err(Error::internal("bench", format!("{count} requests, {} answers", outputs.len())));
    }
    Ok((seconds, outputs))
}

pub(crate) fn sampling(prompts: Vec<Vec<u32>>, max_tokens: usize, temperature: f64, seed: u64) -> Vec<Request> {
    let sampling = Arc::new(Sampling { temperature, top_p: 1.0, top_k: 0, max_tokens, stop: Vec::new() });
    let keys = key(seed, &["bench"]);
    let task = |i| Task::Generate { sampling: Arc::clone(&sampling), key: keys.with(i as u64) };
    prompts.into_iter().enumerate().map(|(i, prompt)| Request { prompt, task: task(i) }).collect()
}

pub(crate) fn rewards(prompts: Vec<Vec<u32>>) -> Vec<Request> {
    prompts.into_iter().map(|prompt| Request { prompt, task: Task::Reward }).collect()
}

pub(crate) fn response(output: Output) -> Option<Vec<u32>> {
    if let Output::Generation(generation) = output { Some(generation.ids) } else { None }
}

pub(crate) fn score(output: &Output) -> Option<f32> {
    if let Output::Reward(score) = output { Some(*score) } else { None }
}
