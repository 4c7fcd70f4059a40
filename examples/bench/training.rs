//! Trainers that are stepped.
//!
//! In: a model folder, settings, then rows for each step. Out: JSON with the step's metrics and seconds.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use salmon::draw::key;
use salmon::engine::{Adapted, Engine, EngineOptions};
use salmon::model::{Head, LoraConfig, Network, Tokenizer};
use salmon::train::config::{PpoConfig, RewardConfig};
use salmon::train::ppo::{PpoTrainer, Row};
use salmon::train::reward::{PairExample, RewardTrainer};
use salmon::train::{Metrics, Run};
use salmon::{Error, Result};
use serde_json::{Map, Value, json};
use tch::{Device, Kind};

use super::inference::{asked, response, rewards, sampling, score};

fn run(stage: &str, total_steps: usize, workers: usize) -> Run {
    Run { stage: stage.into(), total_steps, workers, key: key(1, &[stage]) }
}

fn answer(seconds: f64, metrics: Metrics) -> Value {
    let metrics: Map<String, Value> = metrics.into_iter().map(|(name, value)| (name.into(), json!(value))).collect();
    json!({"seconds": seconds, "metrics": metrics})
}

/// A reward model in training.
pub(crate) struct Reward(RewardTrainer);

impl Reward {
    /// An adapter and a linear head on the folder's weights, in f32.
    pub(crate) fn new(
        folder: &Path,
        lora: &LoraConfig,
        config: RewardConfig,
        steps: usize,
        threads: usize,
    ) -> Result<Reward> {
        let network = Network::open(folder, Kind::Float, Device::Cpu)?.with_lora(lora, key(1, &["reward"]))?;
        let network = network.with_head(Head::Linear, key(1, &["head"]))?;
        Ok(Reward(RewardTrainer::new(network, config, run("reward", steps, threads))?))
    }

    pub(crate) fn step(&mut self, pairs: Vec<(Vec<u32>, Vec<u32>)>) -> Result<Value> {
        let pairs: Vec<_> = pairs.into_iter().map(|(chosen, rejected)| PairExample { chosen, rejected }).collect();
        let batch: Vec<&PairExample> = pairs.iter().collect();
        let start = Instant::now();
        let metrics = self.0.step(&batch)?;
        Ok(answer(start.elapsed().as_secs_f64(), metrics))
    }
}

/// A policy in PPO with its reference, value and reward model: adapters on one base, as `[model.lora]` makes them.
pub(crate) struct Policy {
    trainer: PpoTrainer,
    policy: Adapted,
    reward: Adapted,
}

impl Policy {
    pub(crate) fn new(
        folder: &Path,
        lora: &LoraConfig,
        config: PpoConfig,
        steps: usize,
        threads: usize,
    ) -> Result<Policy> {
        let base = Network::open(folder, Kind::Float, Device::Cpu)?;
        let member = |name: &str| base.with_lora(lora, key(1, &[name]));
        let scorer = |name: &str| member(name)?.with_head(Head::Linear, key(1, &["head"]));
        let (policy, reward, value) = (member("policy")?, scorer("reward")?, scorer("value")?);
        let tokenizer = Arc::new(Tokenizer::open(folder)?);
        let options = EngineOptions { workers: threads, ..EngineOptions::default() };
        let engine = Arc::new(Engine::new(base.config(), &base, tokenizer, base.head(), options)?);
        let on_engine = |network: &Network| {
            let adapter = network.adapter()?.ok_or_else(|| Error::internal("bench", "a network is no adapter"))?;
            Adapted::new(&engine, &adapter)
        };
        Ok(Policy {
            policy: on_engine(&policy)?,
            reward: on_engine(&reward)?,
            trainer: PpoTrainer::new(policy, base.replicate()?, value, config, run("policy", steps, threads))?,
        })
    }

    /// Responses, their rewards, the updates, and the new adapter into the engine.
    pub(crate) fn step(&mut self, prompts: Vec<Vec<u32>>, max_tokens: usize, seed: u64) -> Result<Value> {
        let start = Instant::now();
        let (rollouts, answers) = asked(&self.policy, sampling(prompts.clone(), max_tokens, 1.0, seed))?;
        let responses: Vec<Vec<u32>> = answers.into_iter().filter_map(response).collect();
        let whole = prompts.iter().zip(&responses).map(|(prompt, response)| [&prompt[..], response].concat()).collect();
        let (scoring, scores) = asked(&self.reward, rewards(whole))?;
        let rows: Vec<Row> = prompts
            .into_iter()
            .zip(responses)
            .zip(scores.iter().filter_map(score))
            .map(|((query_ids, response_ids), reward)| Row { query_ids, response_ids, reward: f64::from(reward) })
            .collect();
        let updating = Instant::now();
        let metrics = self.trainer.step(&rows)?.metrics;
        let updating = updating.elapsed().as_secs_f64();
        if let Some(adapter) = self.trainer.policy().adapter()? {
            self.policy.reload(&adapter)?;
        }
        let mut answer = answer(start.elapsed().as_secs_f64(), metrics);
        answer["parts"] = json!({"rollouts": rollouts, "scoring": scoring, "updating": updating});
        Ok(answer)
    }

    /// The updates alone, as the trainer makes them of given rollouts.
    pub(crate) fn update(&mut self, rows: Vec<(Vec<u32>, Vec<u32>, f64)>) -> Result<Value> {
        let row = |(query_ids, response_ids, reward)| Row { query_ids, response_ids, reward };
        let rows: Vec<Row> = rows.into_iter().map(row).collect();
        let start = Instant::now();
        let metrics = self.trainer.step(&rows)?.metrics;
        Ok(answer(start.elapsed().as_secs_f64(), metrics))
    }
}
