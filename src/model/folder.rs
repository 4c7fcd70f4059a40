//! An opened model folder: its configuration and its checkpoint, which fit together.
//!
//! In: a Hugging Face folder. Out: its tensors by name, for a [`Network`] or, as [`PlainWeights`],
//! for the decoder. That every tensor has a place is known from the headers, before the first one is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::head::{Head, SCORE};
use super::lora::{Lora, PREFIX, merge};
use super::matrix::{Matrix, QuantizationConfig, Quantizer};
use super::network::Network;
use super::save::read_adapter_config;
use super::weights::{LM_HEAD, Weights};
use crate::torch::guard;
use crate::{Error, Result};

/// A model folder whose tensors have been matched with its configuration by name.
pub(crate) struct Folder {
    pub(crate) config: ModelConfig,
    /// Whether there is an unembedding of its own.
    pub(crate) untied: bool,
    checkpoint: Checkpoint,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let config = ModelConfig::open(path)?;
        let checkpoint = Checkpoint::open(path)?;
        let untied = !config.tie_word_embeddings && (checkpoint.has(LM_HEAD) || !config.is_classifier());
        let mut known: BTreeSet<String> = [SCORE.to_string()].into();
        let mut embedding = String::new();
        // The list of names and shapes is that of the loader; nothing is loaded.
        let plain = Quantizer::new(QuantizationConfig::default(), Device::Cpu);
        Weights::build(&config, untied, &plain, |name, shape| {
            checkpoint.check(name, shape)?;
            if known.len() == 1 {
                embedding = name.to_string();
            }
            known.insert(name.to_string());
            Ok::<_, Error>(Tensor::new())
        })?;
        if config.tie_word_embeddings && known.insert(LM_HEAD.to_string()) && checkpoint.has(LM_HEAD) {
            checkpoint.check_copy(LM_HEAD, &embedding)?;
        }
        checkpoint.no_others(&known)?;
        Ok(Folder { config, untied, checkpoint })
    }

    /// A tensor of the backbone.
    pub(crate) fn tensor(&self, name: &str, shape: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.checkpoint.tensor(name, shape, kind, device)
    }

    /// The linear head, `[1, hidden]` f32, if the folder has one.
    pub(crate) fn score(&self, device: Device) -> Result<Option<Tensor>> {
        if !self.checkpoint.has(SCORE) {
            return Ok(None);
        }
        self.checkpoint.tensor(SCORE, &[1, self.config.hidden_size as i64], Kind::Float, device).map(Some)
    }
}

/// Where the decoder takes its weights from: plain f32 tensors on the CPU under their Hugging Face names, adapters
/// merged. Each tensor is taken once, so that whoever packs them holds no more than one.
pub trait WeightSource {
    /// The tensor `name`.
    ///
    /// # Errors
    /// A model error when it is missing or cannot be read. The caller checks its shape.
    fn take(&mut self, name: &str, shape: &[i64]) -> Result<Tensor>;
}

impl WeightSource for BTreeMap<String, Tensor> {
    fn take(&mut self, name: &str, _: &[i64]) -> Result<Tensor> {
        self.remove(name).ok_or_else(|| Error::model(name, "this tensor is missing"))
    }
}

/// The weights as they are now, with the bits of [`Network::merged`], which holds all of them at once.
impl WeightSource for &Network {
    fn take(&mut self, name: &str, _: &[i64]) -> Result<Tensor> {
        guard(name, || {
            let _frozen = tch::no_grad_guard();
            let missing = || Error::model(name, "this tensor is missing");
            let weight = match name {
                SCORE => self.score.as_ref().ok_or_else(missing)?.detach(),
                _ => match self.lora.as_ref().and_then(|lora| lora.saved(name)) {
                    Some(saved) => saved.detach(),
                    None => merged(&self.weights.get(name).ok_or_else(missing)?, self.lora.as_ref(), name)?,
                },
            };
            Ok(weight.to_device(Device::Cpu).to_kind(Kind::Float).contiguous())
        })
    }
}

/// A weight with its adapter, in f32.
fn merged(weight: &Matrix, lora: Option<&Lora>, name: &str) -> Result<Tensor> {
    Ok(match lora.and_then(|lora| lora.pair_of(name)) {
        Some(pair) => merge(weight, pair),
        None => weight.dense(Kind::Float),
    })
}

/// The weights of a model folder, and of an adapter on it, for the decoder: read when they are taken. They have the
/// bits of [`Network::merged`] of the same folders.
pub struct PlainWeights {
    folder: Folder,
    /// The type that a network of this folder computes in; f32 weights are rounded to it.
    kind: Kind,
    lora: Option<Lora>,
    score: Option<Tensor>,
}

impl std::fmt::Debug for PlainWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainWeights").field("kind", &self.kind).field("head", &self.head()).finish_non_exhaustive()
    }
}

impl PlainWeights {
    /// Opens a Hugging Face folder, as [`Network::open`] does.
    ///
    /// # Errors
    /// As [`Network::open`]; values that are not finite show when their tensor is taken.
    pub fn open(path: &Path, kind: Kind) -> Result<Self> {
        guard(&path.display().to_string(), || {
            let folder = Folder::open(path)?;
            let score = folder.score(Device::Cpu)?;
            Ok(PlainWeights { folder, kind, lora: None, score })
        })
    }

    /// The same weights with the adapter of a PEFT folder merged, and with its linear head if it has one.
    ///
    /// # Errors
    /// As [`Network::with_adapter`].
    pub fn with_adapter(mut self, path: &Path) -> Result<Self> {
        guard(&path.display().to_string(), || {
            let (lora, score) = read_adapter(path, &self.folder.config, Device::Cpu)?;
            self.lora = Some(lora);
            self.score = score.or(self.score.take());
            Ok(self)
        })
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.folder.config
    }

    /// [`Head::Linear`] where the folders hold a `score.weight`.
    pub fn head(&self) -> Head {
        if self.score.is_some() { Head::Linear } else { Head::None }
    }
}

impl WeightSource for PlainWeights {
    fn take(&mut self, name: &str, shape: &[i64]) -> Result<Tensor> {
        guard(name, || {
            let _frozen = tch::no_grad_guard();
            if name == SCORE {
                return self.score.take().ok_or_else(|| Error::model(name, "this tensor is missing"));
            }
            if let Some(saved) = self.lora.as_ref().and_then(|lora| lora.saved(name)) {
                return Ok(saved.f_to_kind(Kind::Float)?);
            }
            let weight = self.folder.tensor(name, shape, self.kind, Device::Cpu)?;
            merged(&Matrix::Dense(weight), self.lora.as_ref(), name)
        })
    }
}

/// The adapter of a PEFT folder for such a model, and its linear head (`base_model.model.score.weight`).
pub(super) fn read_adapter(path: &Path, model: &ModelConfig, device: Device) -> Result<(Lora, Option<Tensor>)> {
    let lora = read_adapter_config(path)?;
    let checkpoint = Checkpoint::adapter(path)?;
    let mut known = BTreeSet::new();
    let mut take = |name: &str, shape: &[i64]| {
        known.insert(name.to_string());
        if checkpoint.has(name) {
            let problem = "does not fit its adapter_config.json or this base model; is it an adapter for another one?";
            checkpoint.check(name, shape).map_err(|e| Error::model(path.display(), problem).because(e))?;
        }
        checkpoint.tensor(name, shape, Kind::Float, device)
    };
    let lora = Lora::build(&lora, model, &mut take)?;
    let score = format!("{PREFIX}{SCORE}");
    let score = match checkpoint.has(&score) {
        true => Some(take(&score, &[1, model.hidden_size as i64])?),
        false => None,
    };
    checkpoint.no_others(&known)?;
    Ok((lora, score))
}
