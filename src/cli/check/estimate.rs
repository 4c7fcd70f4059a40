//! What a run will take: memory, floating-point operations and time of every stage.
//!
//! ```text
//! tokens of a stage ─ read | sampled | trained ──> FLOPs ──> time on stated hardware
//! config.json, [model], trainer ─────────────────> memory of one device
//! ```
//! Operations: 2 per weight of a projection and token, 4 per head dimension and pair of positions, 2 per number of the
//! unembedding where logits are made. A backward pass is as much again for the frozen weights below an adapter, twice as
//! much where all weights train, and one forward pass more with gradient checkpointing.
//!
//! Memory: weights, f32 adapters or masters with their gradient and AdamW's two moments, and the activations of one
//! micro-batch. Sampling packs the base as f32 for a CPU and holds blocks of keys and values.

use std::fmt::Write;

use super::cost::{self, Cost, Sizes};
use super::data::Data;
use super::hardware::Hardware;
use crate::Result;
use crate::config::{Config, Dtype, Ppo};
use crate::model::{Dimensions, ModelConfig};
use crate::principle::Library;
use crate::stage::{Planned, State};
use crate::train::config::Common;

/// Sequences that one device samples at a time.
const SAMPLED_TOGETHER: f64 = 128.0;
/// Bytes of keys and values that an engine allocates at most by default.
const BLOCKS: f64 = (512u64 << 20) as f64;
/// Bytes of the program itself: libtorch, the query engine, tables.
const PROGRAM: f64 = (150u64 << 20) as f64;

/// The model of a run, in numbers.
pub(super) struct Anatomy {
    model: ModelConfig,
    dimensions: Dimensions,
    /// Numbers of one adapter; 0 where all weights train.
    adapter: f64,
    /// Bytes of the frozen base of adapters.
    base: f64,
    /// Bytes of one number in training.
    number: f64,
    workers: f64,
}

/// What one stage takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub(super) flops: f64,
    /// Bytes on one device.
    pub(super) memory: f64,
    pub(super) seconds: f64,
}

impl Anatomy {
    pub(super) fn new(config: &Config, model: &ModelConfig, workers: usize) -> Result<Self> {
        let dimensions = Dimensions::of(model)?;
        let adapter = match &config.model.lora {
            Some(lora) => lora.parameters(model)? as f64,
            None => 0.0,
        };
        let number = if config.model.dtype == Dtype::Bfloat16 { 2 } else { 4 };
        let quantization = config.model.quantization_config.unwrap_or_default();
        let projections: u64 =
            dimensions.projections.iter().map(|[out, input]| quantization.bytes(*out, *input, number)).sum();
        let base = (projections + number * dimensions.others) as f64;
        Ok(Anatomy { model: model.clone(), dimensions, adapter, base, number: number as f64, workers: workers as f64 })
    }

    fn heads(&self) -> f64 {
        (self.model.num_attention_heads * self.model.head_dim) as f64
    }

    /// Operations of a forward pass over one token of a sequence of `length`, without logits: of weights that a frozen
    /// base has, and of what has two operands with a gradient (attention, adapters).
    fn forward(&self, length: f64) -> [f64; 2] {
        let attention = 4.0 * self.model.num_hidden_layers as f64 * self.heads() * length / 2.0;
        [2.0 * self.dimensions.projected() as f64, 2.0 * self.adapter + attention]
    }

    /// Operations of the logits after one token.
    fn logits(&self) -> f64 {
        2.0 * (self.model.vocab_size * self.model.hidden_size) as f64
    }

    /// Operations of a trainer's forward and backward passes.
    fn trainer(&self, cost: &Cost, checkpointing: bool) -> f64 {
        let [weights, others] = self.forward(cost.length);
        let backward = if self.adapter > 0.0 { 1.0 } else { 2.0 };
        let again = if checkpointing { cost.trained * (weights + others) } else { 0.0 };
        let weights = cost.trained * weights + cost.trained_logits * self.logits();
        (1.0 + backward) * weights + 3.0 * cost.trained * others + again
    }

    /// Bytes of the network that trains, with gradients and moments; without the base of an adapter.
    fn trained(&self) -> f64 {
        let numbers = if self.adapter > 0.0 { self.adapter } else { self.dimensions.parameters() as f64 };
        // Weights, two moments, the sum of gradients, and a gradient in each worker.
        4.0 * numbers * (4.0 + self.workers)
    }

    /// Bytes of the activations of one micro-batch in every worker; `batch` are the tokens of a whole step.
    fn activations(&self, common: &Common, batch: f64, logits: bool) -> f64 {
        let (c, tokens) = (&self.model, (common.micro_batch_tokens as f64).min(batch / self.workers));
        let (hidden, inner, heads) = (c.hidden_size as f64, c.intermediate_size as f64, self.heads());
        let keys = (c.num_key_value_heads * c.head_dim) as f64;
        // Residuals and norms; queries, keys, values, turned ones, what attention gives; gate, its function, up, product.
        let layer = (5.0 * hidden + 3.0 * heads + 3.0 * keys + 4.0 * inner) * self.number;
        let layers = c.num_hidden_layers as f64;
        let kept =
            if common.gradient_checkpointing { layers * hidden * self.number + 2.0 * layer } else { layers * layer };
        // Logits, their logarithms and a gradient of each, f32.
        let head = if logits { 4.0 * 4.0 * c.vocab_size as f64 } else { 0.0 };
        self.workers * tokens * (kept + head)
    }

    /// Bytes of weights that train as a whole or are frozen as a whole.
    fn whole(&self) -> f64 {
        self.dimensions.parameters() as f64 * self.number
    }

    /// Bytes of an engine: the base as f32, and blocks for sequences of `length`.
    fn engine(&self, length: f64) -> f64 {
        let c = &self.model;
        let cached = (2 * c.num_key_value_heads * c.head_dim * c.num_hidden_layers) as f64 * 4.0;
        let used = cached * SAMPLED_TOGETHER * length;
        4.0 * self.dimensions.parameters() as f64 + used.min(BLOCKS.max(cached * c.max_position_embeddings as f64))
    }

    /// Memory of a stage that trains.
    fn training(&self, common: &Common, batch: f64, logits: bool) -> f64 {
        let base = if self.adapter > 0.0 { self.base } else { 0.0 };
        base + self.trained() + self.activations(common, batch, logits)
    }

    /// Memory of a PPO stage: policy and value train, the reference is read, rollouts come from an engine.
    fn ppo(&self, ppo: &Ppo, length: f64) -> f64 {
        let common = ppo.trainer.common();
        let batch = ppo.trainer.batch_size.div_ceil(ppo.trainer.num_mini_batches) as f64 * length;
        let networks = match self.adapter > 0.0 {
            // Two that train, the reference and the reward model, on one base.
            true => self.base + 2.0 * self.trained() + 4.0 * 2.0 * self.adapter + self.engine(length),
            // Two engines, one of which is packed anew while the old one still answers.
            false => {
                2.0 * self.trained()
                    + self.whole()
                    + 3.0 * self.engine(length)
                    + 4.0 * self.dimensions.parameters() as f64
            }
        };
        networks + self.activations(&common, batch, true)
    }

    /// What `stage` with this cost takes on `hardware`.
    pub(super) fn estimate(&self, stage: &str, cost: &Cost, config: &Config, hardware: &Hardware) -> Result<Estimate> {
        let policy = config.policies.iter().find(|policy| stage.strip_prefix("policy:") == Some(&policy.name));
        let ppo = policy.map(|policy| config.ppo_of(policy)).transpose()?;
        // The trainer, and the sequences of a step.
        let trainer = match (stage, &ppo) {
            ("sft", _) => Some((config.sft.common(), config.sft.batch_size)),
            ("reward", _) => Some((config.reward.trainer.common(), 2 * config.reward.trainer.batch_size)),
            ("reward_pretraining", _) => {
                config.reward_pretraining.as_ref().map(|p| (p.trainer.common(), 2 * p.trainer.batch_size))
            }
            (_, Some(ppo)) => Some((ppo.trainer.common(), ppo.trainer.batch_size)),
            _ => None,
        };
        let trained = self.trainer(cost, trainer.is_some_and(|(common, _)| common.gradient_checkpointing));
        let forward = self.forward(cost.length).iter().sum::<f64>();
        let read = cost.read * forward + cost.read_logits * self.logits();
        let sampled = cost.sampled * (forward + self.logits());
        let memory = match (&trainer, &ppo) {
            (_, Some(ppo)) => self.ppo(ppo, cost.length),
            (Some((common, rows)), None) => self.training(common, *rows as f64 * cost.length, stage == "sft"),
            _ if cost.calls > 0 => self.engine(cost.length),
            _ => 0.0,
        };
        let memory = if memory > 0.0 { memory + PROGRAM } else { 0.0 };
        let speed = hardware.flops * hardware.count as f64;
        // Every step of sampling reads all weights once for the sequences it goes on with.
        let weights = self.dimensions.parameters() as f64 * if hardware.own { 4.0 } else { 2.0 };
        let steps = cost.sampled / SAMPLED_TOGETHER / hardware.count as f64;
        let sampling = (sampled / speed).max(steps * weights / hardware.bandwidth);
        Ok(Estimate { flops: trained + read + sampled, memory, seconds: (trained + read) / speed + sampling })
    }
}

/// Floating-point operations, memory of a device and time of every stage that is left to do.
pub(super) fn table(
    config: &Config,
    library: &Library,
    data: &Data,
    sizes: &Sizes,
    planned: &[Planned],
    anatomy: &Anatomy,
    hardware: &Hardware,
) -> Result<String> {
    let head = format!("on {}", hardware.title());
    let width = planned.iter().map(|stage| stage.stage.len()).chain([head.len()]).max().unwrap_or(0);
    let mut text = format!("\n{head:<width$}{:>14}{:>16}{:>12}\n", "FLOPs", "GB a device", "time");
    let (mut flops, mut most, mut seconds) = (0.0, 0.0f64, 0.0);
    for stage in planned.iter().filter(|stage| matches!(stage.state, State::Run(_))) {
        let cost = cost::of(&stage.stage, config, library, data, sizes)?;
        let takes = anatomy.estimate(&stage.stage, &cost, config, hardware)?;
        if takes.flops == 0.0 {
            continue;
        }
        let full =
            if hardware.memory > 0.0 && takes.memory > hardware.memory { "  more than a device has" } else { "" };
        let numbers = line(takes.flops, takes.memory, takes.seconds);
        let _ = writeln!(text, "{:<width$}{numbers}{full}", stage.stage);
        (flops, most, seconds) = (flops + takes.flops, most.max(takes.memory), seconds + takes.seconds);
    }
    let _ = writeln!(text, "{:<width$}{}", "to do", line(flops, most, seconds));
    Ok(text)
}

fn line(flops: f64, memory: f64, seconds: f64) -> String {
    let time = match seconds {
        s if s < 100.0 => format!("{s:.1} s"),
        s if s < 6000.0 => format!("{:.1} min", s / 60.0),
        s if s < 360_000.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    };
    format!("{flops:>14.2e}{:>16.2}{time:>12}", memory / 1e9)
}
