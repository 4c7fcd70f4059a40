//! Pre-training of the pocket world's base model, from drawn weights to one that answers and judges.
//!
//! ```text
//! Curriculum ─ kinds ─> Supply ─ two micro-batches ─> SftTrainer ─ loss of every verdict ─> Curriculum
//! ```
//!
//! In: a key. Out: a LLaMA-layout network in bfloat16, with its tokenizer. A step has two micro-batches, each of one
//! kind of document and of equal weight. Every draw is keyed, so the same key gives the same bytes, whatever the
//! number of workers and however often the run stops.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use tch::{Kind as Type, Tensor};

use super::check::PRINCIPLES;
use super::corpus::{Document, Kind, Loss, Supply, SupplyState};
use super::curriculum::{Curriculum, CurriculumState, Options};
use super::dice::Dice;
use super::vocabulary::vocabulary;
use crate::draw::Key;
use crate::model::{ModelConfig, Network};
use crate::torch::guard;
use crate::train::config::SftConfig;
use crate::train::sft::{Example, SftTrainer};
use crate::train::{Metrics, Run};
use crate::{Error, Result};

/// The shape of the base model.
const CONFIG: &str = include_str!("../../datasets/pocket/config.json");
/// Micro-batches of a step.
const MICRO_BATCHES: usize = 2;
/// Steps between reports of all running losses.
const REPORT: usize = 50;
/// Deviation of the embeddings at the start: a token's identity dominates the residual stream.
const EMBEDDING: f64 = 0.125;
/// What is written back into the residual stream starts this much smaller than the rest.
const OUTPUT: f64 = 0.1;

/// The name of the stage in errors and metrics.
pub const STAGE: &str = "base";

/// Pre-trains a base model, or goes on from the folder that [`Pretraining::save`] wrote. `each` sees every step.
///
/// The network is frozen and in bfloat16; it saves as a Hugging Face folder with its `tokenizer.json`.
///
/// # Errors
/// A training error where a loss is not finite, a store error for a folder without a whole checkpoint, and those of
/// `each`.
pub fn pretrain(
    key: Key,
    workers: usize,
    options: Options,
    resume: Option<&Path>,
    mut each: impl FnMut(&Pretraining, &Metrics) -> Result<()>,
) -> Result<Network> {
    let mut run = Pretraining::new(key, workers, options)?;
    if let Some(folder) = resume {
        run.restore(folder)?;
    }
    while let Some(metrics) = run.step()? {
        each(&run, &metrics)?;
    }
    run.finish()
}

/// A run of pre-training.
pub struct Pretraining {
    key: Key,
    trainer: SftTrainer,
    curriculum: Curriculum,
    supply: Supply,
}

/// What a checkpoint has besides the trainer's.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    curriculum: CurriculumState,
    supply: SupplyState,
}

/// Parts of the key.
const WEIGHTS: u64 = 0;
const KINDS: u64 = 1;
const DOCUMENTS: u64 = 2;

impl Pretraining {
    fn new(key: Key, workers: usize, options: Options) -> Result<Self> {
        let network = initial(key.with(WEIGHTS))?.with_full_training()?;
        let config = SftConfig {
            adam_beta1: 0.9,
            adam_beta2: 0.97,
            adam_epsilon: 1e-8,
            weight_decay: 0.05,
            max_grad_norm: 1.0,
            // Holds the step, so the trainer splits it into two halves of about the same cost.
            micro_batch_tokens: MICRO_BATCHES * super::corpus::MICRO_BATCH,
            ..SftConfig::default()
        };
        // The learning rate comes from the curriculum, so the number of steps does not matter.
        let run = Run { stage: STAGE.into(), total_steps: 0, workers, key };
        let trainer = SftTrainer::new(network, config, run)?;
        Ok(Pretraining { key, trainer, curriculum: Curriculum::new(options), supply: Supply::new(key.with(DOCUMENTS)) })
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.trainer.steps_done()
    }

    /// Where the run stands.
    pub fn curriculum(&self) -> &Curriculum {
        &self.curriculum
    }

    /// One step; `None` where the run is over.
    fn step(&mut self) -> Result<Option<Metrics>> {
        let step = self.trainer.steps_done();
        if self.curriculum.advance(step) {
            self.supply.discard();
        }
        if self.curriculum.is_over() {
            return Ok(None);
        }
        let (kinds, shares): (Vec<Kind>, Vec<f64>) = self.curriculum.shares().into_iter().unzip();
        let mut dice = Dice::new(self.key.with(KINDS).with(step as u64));
        let mut batches: Vec<(Kind, Vec<Document>)> = Vec::with_capacity(MICRO_BATCHES);
        for _ in 0..MICRO_BATCHES {
            let kind = kinds[dice.weighted(&shares)];
            batches.push((kind, self.supply.next(kind, &self.curriculum.emphasis(kind))));
        }
        let examples: Vec<Example> = batches.iter().flat_map(|(_, documents)| examples(documents)).collect();
        let rows: Vec<&Example> = examples.iter().collect();
        let done = self.trainer.step_at(&rows, self.curriculum.learning_rate(step))?;

        let mut losses = done.token_losses.iter();
        for (kind, documents) in &batches {
            let mut means = Means::default();
            for (document, losses) in documents.iter().zip(losses.by_ref()) {
                document.losses.iter().zip(losses).for_each(|(what, loss)| means.add(*what, f64::from(*loss)));
                self.curriculum.count(document.ids.len() as u64 - 1);
            }
            means.each(|principle, mean| self.curriculum.record(*kind, principle, mean));
        }
        let mut metrics = done.metrics;
        metrics.push(("stage", self.curriculum.stage() as f64));
        metrics.push(("gates/closed", self.curriculum.closed() as f64));
        if (step + 1).is_multiple_of(REPORT) {
            self.report(&mut metrics);
        }
        Ok(Some(metrics))
    }

    /// Adds the running losses: `loss/<kind>` of prose, `loss/<kind>/<principle>` of verdicts.
    fn report(&self, metrics: &mut Metrics) {
        for kind in Kind::ALL {
            let names = &NAMES[kind as usize];
            metrics.extend(self.curriculum.prose_loss(kind).map(|loss| (names.0.as_str(), loss)));
            for (p, name) in names.1.iter().enumerate() {
                metrics.extend(self.curriculum.loss(kind, p).map(|loss| (name.as_str(), loss)));
            }
        }
    }

    /// Saves where the run stands into `folder`, replacing older steps there.
    ///
    /// # Errors
    /// A store error that names the file.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = curriculum_file(folder, self.steps_done());
        let bad = |e: std::io::Error| Error::store(path.display(), "cannot be written; is the disk full?").because(e);
        let state = State { curriculum: self.curriculum.state(), supply: self.supply.state() };
        let text = serde_json::to_vec(&state).map_err(|e| Error::internal(path.display(), e))?;
        fs::create_dir_all(folder).and_then(|()| fs::write(&path, text)).map_err(bad)?;
        // The trainer's files appear at once, and a checkpoint counts from then on.
        self.trainer.save(folder)?;
        for entry in fs::read_dir(folder).map_err(bad)? {
            let other = entry.map_err(bad)?.path();
            let name = other.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(CURRICULUM) && other != path {
                fs::remove_file(&other).map_err(bad)?;
            }
        }
        Ok(())
    }

    fn restore(&mut self, folder: &Path) -> Result<()> {
        if !self.trainer.restore(folder)? {
            return Err(Error::store(folder.display(), "has no checkpoint to go on from"));
        }
        let path = curriculum_file(folder, self.steps_done());
        let text = fs::read(&path).map_err(|e| {
            Error::store(path.display(), "is missing from the checkpoint; remove it to start over").because(e)
        })?;
        let state: State = serde_json::from_slice(&text)
            .map_err(|e| Error::store(path.display(), "is damaged; remove the checkpoint to start over").because(e))?;
        self.curriculum = Curriculum::restore(&state.curriculum);
        self.supply = Supply::restore(self.key.with(DOCUMENTS), &state.supply);
        Ok(())
    }

    fn finish(self) -> Result<Network> {
        let network = self.trainer.into_network();
        guard(STAGE, || {
            let round = |(name, tensor): (String, Tensor)| (name, tensor.to_kind(Type::BFloat16));
            let tensors = network.merged()?.into_iter().map(round).collect();
            Network::from_tensors(network.config().clone(), tensors, side_files()?)
        })
    }
}

const CURRICULUM: &str = "curriculum-";

fn curriculum_file(folder: &Path, step: usize) -> PathBuf {
    folder.join(format!("{CURRICULUM}{step:08}.json"))
}

/// The names of the running losses, by kind: of prose, and of every principle.
static NAMES: LazyLock<Vec<(String, Vec<String>)>> = LazyLock::new(|| {
    let names = |kind: Kind| {
        // The name that serde gives it.
        let name = serde_json::to_value(kind).ok().and_then(|v| v.as_str().map(str::to_string)).unwrap_or_default();
        let of = |principle: &str| format!("loss/{name}/{principle}");
        (format!("loss/{name}"), PRINCIPLES.into_iter().map(of).collect())
    };
    Kind::ALL.into_iter().map(names).collect()
});

/// The documents of one micro-batch as rows whose weights sum to 1.
fn examples(documents: &[Document]) -> Vec<Example> {
    let learned: usize = documents.iter().map(Document::learned).sum();
    let weight = 1.0 / learned.max(1) as f32;
    let example = |document: &Document| Example {
        ids: document.ids.clone(),
        weights: document.losses.iter().map(|loss| if *loss == Loss::None { 0.0 } else { weight }).collect(),
    };
    documents.iter().map(example).collect()
}

/// Mean losses by principle, and of prose.
#[derive(Default)]
struct Means(BTreeMap<Option<usize>, (f64, usize)>);

impl Means {
    fn add(&mut self, what: Loss, loss: f64) {
        let principle = match what {
            Loss::None => return,
            Loss::Language => None,
            Loss::Verdict(principle) => Some(principle),
        };
        let (sum, count) = self.0.entry(principle).or_default();
        *sum += loss;
        *count += 1;
    }

    fn each(&self, mut take: impl FnMut(Option<usize>, f64)) {
        self.0.iter().for_each(|(principle, (sum, count))| take(*principle, sum / *count as f64));
    }
}

fn side_files() -> Result<BTreeMap<String, Vec<u8>>> {
    Ok([("tokenizer.json".to_string(), vocabulary().tokenizer_json()?)].into())
}

/// The network before the first step: norms 1, everything else normal.
fn initial(key: Key) -> Result<Network> {
    const PLACE: &str = "config.json of the pocket world";
    let raw = serde_json::from_str(CONFIG).map_err(|e| Error::internal(PLACE, e))?;
    let config = ModelConfig::from_json(raw, PLACE)?;
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    guard(STAGE, || {
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, shape: &[usize], deviation: Option<f64>| {
            let stream = key.with(tensors.len() as u64);
            let value = |i: u64| deviation.map_or(1.0, |deviation| (deviation * stream.normal(i)) as f32);
            let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(value).collect();
            let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            tensors.insert(name, Tensor::from_slice(&values).view(shape.as_slice()));
        };
        add("model.embed_tokens.weight".into(), &[config.vocab_size, hidden], Some(EMBEDDING));
        for l in 0..config.num_hidden_layers {
            let at = |name: &str| format!("model.layers.{l}.{name}.weight");
            let (inner, outer) = (1.0 / (hidden as f64).sqrt(), OUTPUT / (wide as f64).sqrt());
            add(at("input_layernorm"), &[hidden], None);
            add(at("self_attn.q_proj"), &[queries, hidden], Some(inner));
            add(at("self_attn.k_proj"), &[keys, hidden], Some(inner));
            add(at("self_attn.v_proj"), &[keys, hidden], Some(inner));
            add(at("self_attn.o_proj"), &[hidden, queries], Some(OUTPUT / (queries as f64).sqrt()));
            add(at("post_attention_layernorm"), &[hidden], None);
            add(at("mlp.gate_proj"), &[wide, hidden], Some(inner));
            add(at("mlp.up_proj"), &[wide, hidden], Some(inner));
            add(at("mlp.down_proj"), &[hidden, wide], Some(outer));
        }
        add("model.norm.weight".into(), &[hidden], None);
        Network::from_tensors(config, tensors, side_files()?)
    })
}
