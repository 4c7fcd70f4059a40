//! Opens networks and engines: the base, and the models that the run has made.
//!
//! In: model folders. Out: [`Network`]s to train and engines to ask, in a catalog for SQL. A model of a run is
//! either a whole Hugging Face folder or an adapter on the base; which one, its files say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::prelude::SessionContext;

use super::setup::{Base, Setup};
use crate::draw::{Key, key};
use crate::engine::{Adapted, Engine, EngineOptions, Inference};
use crate::model::{Network, PlainWeights, Tokenizer};
use crate::query::{Models, SessionOptions, session};
use crate::stage::Job;
use crate::store::Artifact;
use crate::{Error, Result};

impl Setup {
    /// What a stage that uses the base model declares: an input when the run makes it, else its hash.
    pub(super) fn base_inputs(&self) -> Vec<Artifact> {
        match self.base {
            Base::Pretrained => vec![Artifact::model("base")],
            Base::Folder { .. } | Base::Remote { .. } => vec![],
        }
    }

    /// The same for the lineage.
    pub(super) fn base_models(&self) -> std::collections::BTreeMap<String, String> {
        match &self.base {
            Base::Pretrained => Default::default(),
            Base::Folder { hash, .. } | Base::Remote { hash, .. } => [("base".to_string(), hash.clone())].into(),
        }
    }

    /// The base model's folder.
    pub(super) async fn base_folder(&self, job: &Job) -> Result<PathBuf> {
        match &self.base {
            Base::Folder { path, .. } => Ok(path.clone()),
            Base::Remote { source, .. } => source.fetch().await,
            Base::Pretrained => job.model_folder("base").await,
        }
    }

    /// The draws of one stage.
    pub(super) fn key(&self, stage: &str) -> Key {
        key(self.config.seed, &[stage])
    }

    /// A base for adapters, quantised where the configuration says so.
    fn open_base(&self, base: &Path) -> Result<Network> {
        let quantization = self.config.model.quantization_config.unwrap_or_default();
        Network::open_quantized(base, self.kind, self.device, quantization)
    }

    /// A network of `folder`, on `base` when it is an adapter.
    pub(super) fn open(&self, base: &Path, folder: &Path) -> Result<Network> {
        if folder.join("adapter_config.json").exists() {
            self.open_base(base)?.with_adapter(folder)
        } else {
            Network::open(folder, self.kind, self.device)
        }
    }

    /// The weights of `folder` for an engine, on `base` when it is an adapter.
    fn plain(&self, base: &Path, folder: &Path) -> Result<PlainWeights> {
        if folder.join("adapter_config.json").exists() {
            PlainWeights::open(base, self.kind)?.with_adapter(folder)
        } else {
            PlainWeights::open(folder, self.kind)
        }
    }

    /// A network to train: a fresh adapter (or what `folder` has of one) with `[model.lora]`, else all weights.
    pub(super) fn trainable(&self, base: &Path, folder: &Path, key: Key) -> Result<Network> {
        let adapter = folder.join("adapter_config.json").exists();
        let network = if adapter { self.open(base, folder)? } else { self.open_base(folder)? };
        match &self.config.model.lora {
            Some(_) if network.lora().is_some() => Ok(network),
            Some(lora) => network.with_lora(lora, key),
            None => network.with_full_training(),
        }
    }

    /// A session for one stage, with the named models: `base`, or models of the run that the stage declares.
    /// `judge` is whichever model judges.
    pub(super) async fn session(self: &Arc<Self>, job: &Job, names: &[&str]) -> Result<(SessionContext, Arc<Models>)> {
        let models = Arc::new(Models::new());
        // A stage without models does not declare the base either.
        if !names.is_empty() {
            let base = self.base_folder(job).await?;
            for name in names {
                let real = if *name == "judge" { self.config.judge.model.as_str() } else { name };
                let folder = if real == "base" { base.clone() } else { job.model_folder(real).await? };
                self.register(&models, name, &base, &folder);
            }
        }
        let ctx = self.context(&models)?;
        job.bind(&ctx)?;
        Ok((ctx, models))
    }

    /// A session over a catalog.
    pub(super) fn context(&self, models: &Arc<Models>) -> Result<SessionContext> {
        let options = SessionOptions { target_partitions: self.workers, ..SessionOptions::default() };
        session(Arc::clone(models), Arc::clone(&self.templates), &options)
    }

    /// Adds a model to a catalog; it is loaded when a statement first asks it.
    pub fn register(self: &Arc<Self>, models: &Models, name: &str, base: &Path, folder: &Path) {
        let (setup, base, folder) = (Arc::clone(self), base.to_path_buf(), folder.to_path_buf());
        let for_tokenizer = base.clone();
        let rewards = name == "reward";
        models.register_with_tokenizer(
            name,
            move || setup.inference(&base, &folder, rewards),
            move || Ok(Arc::new(Tokenizer::open(&for_tokenizer)?)),
        );
    }

    /// The model of `folder`, to ask; `rewards` says whether it is asked for rewards.
    ///
    /// # Errors
    /// A model error for a folder that cannot be opened.
    pub fn inference(&self, base: &Path, folder: &Path, rewards: bool) -> Result<Arc<dyn Inference>> {
        Ok(Arc::new(self.model_engine(base, folder, rewards)?))
    }

    /// A model of the run, to read from; `rewards` says whether it is asked for rewards.
    ///
    /// # Errors
    /// A model error for a folder that cannot be opened.
    pub fn network(&self, base: &Path, folder: &Path, rewards: bool) -> Result<Network> {
        let network = self.open(base, folder)?;
        // The folder holds a linear head; a Yes/No head is in the configuration only.
        if rewards { self.with_reward_head(network, &Tokenizer::open(base)?) } else { Ok(network) }
    }

    /// An engine with the weights of `folder`, read as they are packed.
    fn model_engine(&self, base: &Path, folder: &Path, rewards: bool) -> Result<Engine> {
        if self.config.model.quantization_config.is_some_and(|config| config.is_on()) {
            // What adapters were trained on is what quantised weights round to.
            return self.engine(&self.network(base, folder, rewards)?, base);
        }
        let tokenizer = Tokenizer::open(base)?;
        let weights = self.plain(base, folder)?;
        let head = if rewards { self.reward_head(weights.head(), &tokenizer, folder)? } else { weights.head() };
        let config = weights.config().clone();
        Engine::new(&config, weights, Arc::new(tokenizer), head, self.engine_options())
    }

    /// An engine with the network's weights as they are now.
    pub(super) fn engine(&self, network: &Network, base: &Path) -> Result<Engine> {
        let tokenizer = Arc::new(Tokenizer::open(base)?);
        Engine::new(network.config(), network, tokenizer, network.head(), self.engine_options())
    }

    fn engine_options(&self) -> EngineOptions {
        EngineOptions { workers: self.workers, ..EngineOptions::default() }
    }
}

/// A tokenizer's id for a text that must be one token.
pub(super) fn single_token(tokenizer: &Tokenizer, place: &str, text: &str) -> Result<u32> {
    if let Some(id) = tokenizer.token(text) {
        return Ok(id);
    }
    match tokenizer.encode(text, false)?.as_slice() {
        [id] => Ok(*id),
        ids => Err(Error::config(place, format!("`{text}` is {} tokens of the model, it must be one", ids.len()))),
    }
}

/// The models of one stage that are adapters on one base: the base's network, opened once, and one engine with its
/// weights that answers for all of them. `None` when the models are whole folders.
pub(super) struct Family(Option<(Network, Arc<Engine>)>);

/// A model that a stage asks while it trains it.
#[derive(Clone)]
pub(super) enum Live {
    /// An adapter on its family's engine.
    Adapter(Arc<Adapted>),
    /// An engine with weights of its own.
    Whole(Arc<Engine>),
}

impl Live {
    /// For a catalog.
    pub(super) fn inference(&self) -> Arc<dyn Inference> {
        match self {
            Live::Adapter(model) => Arc::clone(model) as Arc<dyn Inference>,
            Live::Whole(engine) => Arc::clone(engine) as Arc<dyn Inference>,
        }
    }

    /// Gives the model the weights that `network`, which it was made from, has now.
    pub(super) fn update(&self, network: &Network) -> Result<()> {
        match (self, network.adapter()?) {
            (Live::Adapter(model), Some(adapter)) => model.reload(&adapter),
            (Live::Adapter(_), None) => Err(Error::internal("policy", "its network is no adapter any more")),
            (Live::Whole(engine), _) => engine.reload(network),
        }
    }
}

impl Setup {
    /// The family of these model folders.
    pub(super) fn family(&self, base: &Path, folders: &[&PathBuf]) -> Result<Family> {
        let shared = self.config.model.lora.is_some() || folders.iter().any(|f| f.join("adapter_config.json").exists());
        if !shared {
            return Ok(Family(None));
        }
        let network = self.open_base(base)?;
        let engine = Arc::new(self.engine(&network, base)?);
        Ok(Family(Some((network, engine))))
    }

    /// A model of the family, to read from.
    pub(super) fn open_in(&self, family: &Family, folder: &Path) -> Result<Network> {
        match &family.0 {
            Some((base, _)) if folder.join("adapter_config.json").exists() => base.with_adapter(folder),
            _ => Network::open(folder, self.kind, self.device),
        }
    }

    /// A model of the family, to train: its adapter on the shared base, or all of its weights.
    pub(super) fn member(&self, family: &Family, folder: &Path, name: &str) -> Result<Network> {
        let network = self.open_in(family, folder)?;
        match &self.config.model.lora {
            Some(_) if network.lora().is_some() => Ok(network),
            Some(lora) => network.with_lora(lora, self.key(name)),
            None => network.with_full_training(),
        }
    }

    /// A model of the family, to ask: with the weights that `network` has now.
    pub(super) fn live(&self, family: &Family, network: &Network, base: &Path) -> Result<Live> {
        Ok(match (&family.0, network.adapter()?) {
            (Some((_, engine)), Some(adapter)) => Live::Adapter(Arc::new(Adapted::new(engine, &adapter)?)),
            _ => Live::Whole(Arc::new(self.engine(network, base)?)),
        })
    }
}
