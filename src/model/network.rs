//! A network: which tensors it has, which of them train, and how one becomes another.
//!
//! In: a model folder, or tensors in memory. Out: a [`Network`], frozen at first. One set of frozen base tensors
//! serves many networks: `with_lora` and `with_adapter` share them and own nothing but the adapter and the head.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::folder::{Folder, read_adapter};
use super::forward::Tables;
use super::head::{Head, SCORE, random_score, row_difference};
use super::lora::{AdapterWeights, Lora, PREFIX, merge};
use super::lora_config::LoraConfig;
use super::matrix::{Matrix, QuantizationConfig, Quantizer};
use super::save::read_side_files;
use super::weights::Weights;
use crate::draw::Key;
use crate::torch::guard;
use crate::{Error, Result};

/// A network: a backbone (shared frozen tensors, or trainable ones of its own), an adapter, a head.
///
/// `Send`, not `Sync`: one thread uses it at a time; [`Network::replicate`] makes one for another thread.
pub struct Network {
    pub(super) config: Arc<ModelConfig>,
    /// Tokenizer files and the like of the folder, saved along.
    pub(super) files: Arc<BTreeMap<String, Vec<u8>>>,
    /// What an adapter's `base_model_name_or_path` says.
    pub(super) base: String,
    pub(super) kind: Kind,
    pub(super) weights: Weights,
    /// Whether `weights` are trainable and its own; they are f32 then, whatever `kind` is.
    pub(super) full: bool,
    /// Whether the backward pass computes the layers again instead of keeping what they computed.
    pub(super) gradient_checkpointing: bool,
    pub(super) lora: Option<Lora>,
    pub(super) head: Head,
    /// `[1, hidden]` f32 with [`Head::Linear`].
    pub(super) score: Option<Tensor>,
    /// The rotary tables of the positions used so far.
    pub(super) rotary: RefCell<Option<Tables>>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("base", &self.base)
            .field("kind", &self.kind)
            .field("full", &self.full)
            .field("lora", &self.lora.as_ref().map(|lora| &lora.config))
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// Opens a Hugging Face folder: frozen, without adapter, with [`Head::Linear`] where it holds a
    /// `score.weight`. `kind` is `Float` or `BFloat16`, whatever the file has.
    ///
    /// # Errors
    /// A model error that names the file and the field or tensor: unsupported configuration, pickle weights,
    /// missing, misshapen, unknown or non-finite tensors.
    pub fn open(folder: &Path, kind: Kind, device: Device) -> Result<Self> {
        Network::open_quantized(folder, kind, device, QuantizationConfig::default())
    }

    /// The same with quantised projections. They are frozen: an adapter trains on them, and nothing else.
    ///
    /// # Errors
    /// As [`Network::open`].
    pub fn open_quantized(folder: &Path, kind: Kind, device: Device, quantization: QuantizationConfig) -> Result<Self> {
        quantization.check("quantization_config")?;
        guard(&folder.display().to_string(), || {
            let _frozen = tch::no_grad_guard();
            let opened = Folder::open(folder)?;
            let files = read_side_files(folder)?;
            let quantizer = Quantizer::new(quantization, device);
            let weights = Weights::build(&opened.config, opened.untied, &quantizer, |name, shape| {
                opened.tensor(name, shape, kind, device)
            })?;
            let score = opened.score(device)?;
            let mut network = Network::assemble(opened.config, weights, files, kind)?;
            network.base = folder.display().to_string();
            network.head = if score.is_some() { Head::Linear } else { Head::None };
            network.score = score;
            Ok(network)
        })
    }

    /// A frozen network from tensors in memory (Hugging Face names, one type, one device). `files` are saved
    /// along, by name: `tokenizer.json` and the like.
    pub fn from_tensors(
        config: ModelConfig,
        mut tensors: BTreeMap<String, Tensor>,
        files: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self> {
        guard("tensors in memory", || {
            let untied = !config.tie_word_embeddings;
            let mut kind = None;
            let plain = Quantizer::new(QuantizationConfig::default(), Device::Cpu);
            let weights = Weights::build(&config, untied, &plain, |name, shape| {
                let wrong = |problem: String| Error::model("tensors in memory", format!("tensor {name} {problem}"));
                let tensor = tensors.remove(name).ok_or_else(|| wrong("is missing".into()))?;
                if tensor.size() != shape {
                    return Err(wrong(format!("has shape {:?}; the configuration needs {shape:?}", tensor.size())));
                }
                if *kind.get_or_insert(tensor.kind()) != tensor.kind() {
                    return Err(wrong(format!("is {:?} among others of another type", tensor.kind())));
                }
                Ok(tensor.detach())
            })?;
            match tensors.keys().next() {
                Some(name) => {
                    Err(Error::model("tensors in memory", format!("tensor {name} has no place in this model")))
                }
                None => Network::assemble(config, weights, files, kind.unwrap_or(Kind::Float)),
            }
        })
    }

    fn assemble(config: ModelConfig, weights: Weights, files: BTreeMap<String, Vec<u8>>, kind: Kind) -> Result<Self> {
        if !matches!(kind, Kind::Float | Kind::BFloat16) {
            return Err(Error::config(
                "dtype",
                format!("{kind:?} is not supported for computing; use float32 or bfloat16"),
            ));
        }
        Ok(Network {
            config: Arc::new(config),
            files: Arc::new(files),
            base: String::new(),
            kind,
            weights,
            full: false,
            gradient_checkpointing: false,
            lora: None,
            head: Head::None,
            score: None,
            rotary: RefCell::new(None),
        })
    }

    /// A network on the same frozen base tensors, with `adapter` in place of any that `self` has.
    fn on_same_base(&self, lora: Option<Lora>) -> Network {
        Network {
            config: Arc::clone(&self.config),
            files: Arc::clone(&self.files),
            base: self.base.clone(),
            kind: self.kind,
            weights: self.weights.map(Tensor::detach),
            full: false,
            gradient_checkpointing: self.gradient_checkpointing,
            lora,
            head: self.head,
            score: self.score.as_ref().map(|score| score.detach().copy()),
            rotary: RefCell::new(None),
        }
        .settled()
    }

    /// Marks what trains, after the adapter, the weights or the head changed.
    fn settled(self) -> Self {
        for (_, tensor) in self.trainable() {
            let _ = tensor.set_requires_grad(true);
        }
        self
    }

    /// A fresh trainable adapter on the same frozen base tensors (no copy). It changes nothing before training.
    pub fn with_lora(&self, lora: &LoraConfig, key: Key) -> Result<Self> {
        guard("LoRA adapter", || {
            lora.check("LoRA adapter")?;
            Ok(self.on_same_base(Some(Lora::fresh(lora, &self.config, &self.weights, key, self.device())?)))
        })
    }

    /// The trainable adapter of a PEFT folder (`adapter_config.json`, `adapter_model.safetensors`, with a linear
    /// head as `base_model.model.score.weight`) on the same frozen base tensors.
    pub fn with_adapter(&self, folder: &Path) -> Result<Self> {
        guard(&folder.display().to_string(), || {
            let (lora, score) = read_adapter(folder, &self.config, self.device())?;
            let mut network = self.on_same_base(Some(lora));
            if score.is_some() {
                network.score = score;
                network.head = Head::Linear;
            }
            Ok(network.settled())
        })
    }

    /// Trainable f32 copies of all tensors, the adapter (if any) merged in.
    ///
    /// # Errors
    /// A configuration error for quantised weights, which cannot be trained.
    pub fn with_full_training(&self) -> Result<Self> {
        guard("full training", || {
            if self.weights.is_quantized() {
                return Err(Error::config("quantization_config", "quantised weights do not train; train LoRA on them"));
            }
            let mut network = self.on_same_base(None);
            network.weights = {
                let _frozen = tch::no_grad_guard();
                self.merged_weights(Kind::Float).map(|tensor| tensor.to_kind(Kind::Float).copy())
            };
            network.full = true;
            Ok(network.settled())
        })
    }

    /// The network with another head. [`Head::Linear`] keeps a `score.weight` that is there, and otherwise draws
    /// it from N(0, 1 / sqrt(hidden + 1)) with `key`. It trains if the network does (adapter or full).
    pub fn with_head(mut self, head: Head, key: Key) -> Result<Self> {
        guard("reward head", || {
            if let Head::YesNo { yes, no } = head {
                self.check_tokens(yes, no)?;
            }
            self.score = match (head, self.score.take()) {
                (Head::Linear, None) => Some(random_score(self.config.hidden_size, key, self.device())),
                (Head::Linear, score) => score,
                _ => None,
            };
            self.head = head;
            Ok(self.settled())
        })
    }

    /// [`Head::Linear`] that begins as the Yes/No margin before any soft cap: the unembedding row of `yes` minus that of
    /// `no`.
    pub fn with_margin_head(mut self, yes: u32, no: u32) -> Result<Self> {
        guard("reward head", || {
            self.check_tokens(yes, no)?;
            self.score = Some(row_difference(&self.unembedding()?, yes, no).detach().copy());
            self.head = Head::Linear;
            Ok(self.settled())
        })
    }

    fn check_tokens(&self, yes: u32, no: u32) -> Result<()> {
        drop(self.unembedding()?);
        match [yes, no].into_iter().find(|id| *id as usize >= self.config.vocab_size) {
            Some(id) => Err(Error::config("reward head", format!("token {id} is outside of the vocabulary"))),
            None => Ok(()),
        }
    }

    /// The same network for another thread: frozen tensors shared, trainable ones copied.
    pub fn replicate(&self) -> Result<Self> {
        guard("replica", || {
            let mut network = self.on_same_base(self.lora.as_ref().map(|lora| lora.map(|t| t.detach().copy())));
            if self.full {
                network.weights = self.weights.map(|tensor| tensor.detach().copy());
                network.full = true;
            }
            Ok(network.settled())
        })
    }

    /// Whether a backward pass computes each layer again instead of keeping its activations: one more forward pass
    /// for memory of `layers x tokens x hidden` numbers and one layer's activations. Gradients stay the same.
    pub fn with_gradient_checkpointing(mut self, on: bool) -> Self {
        self.gradient_checkpointing = on;
        self
    }

    /// The same tensors once more, trainable ones included, for a closure that outlives the borrow of `self`.
    pub(super) fn alias(&self) -> Network {
        Network {
            config: Arc::clone(&self.config),
            files: Arc::clone(&self.files),
            base: self.base.clone(),
            kind: self.kind,
            weights: self.weights.map(Tensor::shallow_clone),
            full: self.full,
            gradient_checkpointing: false,
            lora: self.lora.as_ref().map(|lora| lora.map(Tensor::shallow_clone)),
            head: self.head,
            score: self.score.as_ref().map(Tensor::shallow_clone),
            rotary: RefCell::new(None),
        }
    }

    /// The network under another name for its base, which `save` writes as `base_model_name_or_path`.
    pub fn with_base_name(mut self, name: &str) -> Self {
        self.base = name.to_string();
        self
    }

    /// The trainable tensors (leaves) in a fixed order, by their names in the saved file: PEFT names for an
    /// adapter, Hugging Face names for full training; a linear head last. Empty for a frozen network.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        let own = |(name, tensor): (String, &Tensor)| (name, tensor.shallow_clone());
        let (mut named, prefix) = match &self.lora {
            Some(lora) => (lora.named().into_iter().map(own).collect(), PREFIX),
            None if self.full => (self.weights.named(), ""),
            None => return Vec::new(),
        };
        named.extend(self.score.as_ref().map(|score| (format!("{prefix}{SCORE}"), score.shallow_clone())));
        named
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The head.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The adapter's configuration, if there is one.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref().map(|lora| &lora.config)
    }

    /// The type of the weights and of the residual stream.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Numbers in the weights and the score head, without an adapter's, however the weights are held.
    ///
    /// # Errors
    /// None that an open model can have.
    pub fn parameters(&self) -> Result<u64> {
        let mut count = self.score.as_ref().map_or(0, |score| score.numel() as u64);
        let plain = Quantizer::new(QuantizationConfig::default(), Device::Cpu);
        Weights::build(self.config(), self.weights.lm_head.is_some(), &plain, |_, shape| {
            count += shape.iter().product::<i64>() as u64;
            Ok(Tensor::new())
        })?;
        Ok(count)
    }

    /// Where the weights lie.
    pub fn device(&self) -> Device {
        self.weights.embedding.device()
    }

    /// The weights with the adapter merged into them: what it changes in `kind`, the others as they are.
    pub(super) fn merged_weights(&self, kind: Kind) -> Weights {
        let mut weights = self.weights.map(Tensor::detach);
        if let Some(lora) = &self.lora {
            for (l, layer) in weights.layers.iter_mut().enumerate() {
                for (p, linear) in layer.projections.iter_mut().enumerate() {
                    if let Some(pair) = lora.pair(l, p) {
                        linear.weight = Matrix::Dense(merge(&linear.weight, pair).to_kind(kind));
                    }
                }
            }
            if let Some(saved) = &lora.embedding {
                weights.embedding = saved.detach();
            }
            if let Some(saved) = &lora.lm_head {
                weights.lm_head = Some(saved.detach());
            }
        }
        weights
    }

    /// The adapter and the head as they are now, for a decoder that has the base; `None` where the network is more than
    /// low-rank differences to its base: fully trained, or with whole modules of its own.
    pub fn adapter(&self) -> Result<Option<AdapterWeights>> {
        guard("adapter", || {
            let Some(lora) = self.lora.as_ref().filter(|lora| lora.embedding.is_none() && lora.lm_head.is_none())
            else {
                return Ok(None);
            };
            let score = self.score.as_ref().map(|score| score.detach().to_device(Device::Cpu).contiguous().copy());
            Ok(Some(AdapterWeights { pairs: lora.pairs(), head: self.head, score }))
        })
    }

    /// Plain f32 CPU tensors under Hugging Face names for the decoder: the adapter merged, `score.weight` with a
    /// linear head, no `lm_head.weight` where it is the embedding. A snapshot: later training does not change it.
    pub fn merged(&self) -> Result<BTreeMap<String, Tensor>> {
        guard("merged weights", || {
            let _frozen = tch::no_grad_guard();
            let weights = self.merged_weights(Kind::Float);
            let score = self.score.as_ref().map(|score| (SCORE.to_string(), score.shallow_clone()));
            // What trains changes in place, so it is copied; frozen tensors are shared.
            let trained: BTreeSet<_> = self.trainable().iter().map(|(_, tensor)| tensor.data_ptr()).collect();
            let copy = |tensor: Tensor| {
                let out = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
                if out.data_ptr() == tensor.data_ptr() && trained.contains(&tensor.data_ptr()) {
                    out.copy()
                } else {
                    out
                }
            };
            Ok(weights.named().into_iter().chain(score).map(|(name, tensor)| (name, copy(tensor))).collect())
        })
    }
}
