//! What all stages share: configuration, principles, templates, the base model.
//!
//! In: a checked configuration and the folder its paths start in. Out: a [`Setup`], with every file that decides
//! results hashed, so that fingerprints cover it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use tch::{Device, Kind};

use super::models::single_token;
use super::sft::end_token;
use crate::config::{Config, Dtype};
use crate::model::{LoraConfig, ModelConfig, QuantizationConfig, Tokenizer};
use crate::principle::{Finding, Library, Templates};
use crate::store::{self, FileEntry, Remote};
use crate::{Error, Result, torch, world};

/// Where the base model comes from.
#[derive(Debug, Clone)]
pub enum Base {
    /// A Hugging Face folder, and the hash of its files.
    Folder {
        /// The folder.
        path: PathBuf,
        /// blake3 over names and contents.
        hash: String,
    },
    /// A Hugging Face folder at a URL, fetched when a stage needs its weights.
    Remote {
        /// What is there.
        source: Box<Remote>,
        /// blake3 over names and contents, as for a folder.
        hash: String,
        /// A folder with its configuration and tokenizer.
        light: PathBuf,
    },
    /// The run makes it, in stage `base`.
    Pretrained,
}

/// What all stages of a run share.
#[derive(Debug)]
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// The principles.
    pub library: Library,
    /// The prompt templates.
    pub templates: Arc<Templates>,
    /// The base model.
    pub base: Base,
    /// Where training runs.
    pub device: Device,
    /// The number format of weights in training.
    pub kind: Kind,
    /// CPU threads.
    pub workers: usize,
    /// Relative paths of the configuration start here.
    pub folder: PathBuf,
    /// The local copies of data files that the configuration names by URL.
    pub fetched: BTreeMap<String, PathBuf>,
}

impl Setup {
    /// Loads everything that `config` names; relative paths start in `folder`. What stands at a URL is fetched, but a
    /// model only when these objects were never fetched before, since its hash is not known then.
    ///
    /// # Errors
    /// The first thing that is missing or wrong, with its place.
    pub async fn load(config: Config, folder: &Path) -> Result<Self> {
        let library = Library::load(folder, &config.principles.files)?.checked()?;
        let templates = config.templates.folder.as_ref().map(|path| folder.join(path));
        let templates = Templates::load(templates.as_deref(), &library)?;
        Finding::first(templates.check())?;
        let base = match config.model.base.as_str() {
            "pocket" => hashed(world::base::folder()?)?,
            "pretrain" => Base::Pretrained,
            url if store::is_url(url) => remote(url).await?,
            path => hashed(folder.join(path))?,
        };
        let mut fetched = BTreeMap::new();
        for url in config.data.prompts.iter().chain(&config.data.human_preferences).filter(|file| store::is_url(file)) {
            fetched.insert(url.clone(), store::local(url, folder).await?);
        }
        let device = torch::device(&config.model.device)?;
        let kind = match config.model.dtype {
            Dtype::Float32 => Kind::Float,
            Dtype::Bfloat16 => Kind::BFloat16,
        };
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let workers = if config.model.workers == 0 { cores } else { config.model.workers };
        let setup = Setup {
            config,
            library,
            templates: Arc::new(templates),
            base,
            device,
            kind,
            workers,
            folder: folder.to_path_buf(),
            fetched,
        };
        setup.check_names()?;
        setup.check_base()?;
        Ok(setup)
    }

    /// A part of the configuration, for the lineage: without what does not decide a model's bytes.
    pub(super) fn json(&self, part: &impl Serialize) -> Result<Value> {
        let mut value = serde_json::to_value(part).map_err(|e| Error::internal("configuration", e))?;
        let trainer = match value.get_mut("trainer") {
            Some(trainer) => trainer.as_object_mut(),
            None => value.as_object_mut(),
        };
        if let Some(trainer) = trainer {
            // Not `remove`, which would put the last key in its place.
            trainer.shift_remove("gradient_checkpointing");
        }
        Ok(value)
    }

    /// What of `[model]` decides a trained model's bytes, for the lineage: not how many threads, and not where the base
    /// lies (its hash is in the lineage).
    pub(super) fn model_json(&self) -> Value {
        let model = &self.config.model;
        let mut lora = json!(model.lora);
        // Keys that came after the first version count where they are set, so that older fingerprints hold.
        if let Some(lora) = lora.as_object_mut() {
            let plain = serde_json::to_value(LoraConfig::default()).unwrap_or_default();
            lora.retain(|key, value| {
                ["r", "lora_alpha", "target_modules"].contains(&key.as_str()) || plain[key] != *value
            });
        }
        let mut out = json!({"dtype": model.dtype, "device": model.device, "lora": lora});
        if let Some(quantization) = model.quantization_config.filter(QuantizationConfig::is_on) {
            out["quantization_config"] = json!(quantization);
        }
        // All weights in bfloat16 train as 32-bit copies since then.
        if model.lora.is_none() && model.dtype == Dtype::Bfloat16 {
            out["masters"] = json!("float32");
        }
        out
    }

    /// The text of a template, for the lineage.
    pub(super) fn template(&self, name: &str) -> Result<(String, String)> {
        match self.templates.source(name) {
            Some(text) => Ok((name.to_string(), text.to_string())),
            None => {
                let known: Vec<&str> = self.templates.names().collect();
                Err(Error::config(
                    "templates",
                    format!("there is no template `{name}`; there are {}", known.join(", ")),
                ))
            }
        }
    }

    /// Sets and principles that the configuration names must exist.
    fn check_names(&self) -> Result<()> {
        let principles = &self.config.principles;
        self.library.set("principles.judge_set", &principles.judge_set)?;
        self.library.set("principles.aggregate_set", &principles.aggregate_set)?;
        for names in &principles.held_out {
            self.library.resolve("principles.held_out", names)?;
        }
        for policy in &self.config.policies {
            let place = format!("policies.{}", policy.name);
            self.library.resolve(&place, &policy.principles)?;
            if let Some(set) = &policy.draw_set {
                self.library.set(&place, set)?;
            }
        }
        let t = &self.config.templates;
        for name in [&t.self_align, &t.chat, &t.judge, &t.reward, &t.reward_rubric] {
            self.template(name)?;
        }
        Ok(())
    }
}

impl Setup {
    /// What of the base model can be known before a stage runs.
    fn check_base(&self) -> Result<()> {
        let path = match &self.base {
            Base::Folder { path, .. } | Base::Remote { light: path, .. } => path,
            Base::Pretrained => return Ok(()),
        };
        end_token(&ModelConfig::open(path)?, path)?;
        let tokenizer = Tokenizer::open(path)?;
        let reward = self.config.reward.answers.iter().flatten().map(|text| ("reward.answers", text));
        for (place, text) in self.config.judge.answers.iter().map(|text| ("judge.answers", text)).chain(reward) {
            single_token(&tokenizer, place, text)?;
        }
        Ok(())
    }
}

/// The folder with the hash of its files.
fn hashed(path: PathBuf) -> Result<Base> {
    let place = path.display().to_string();
    let missing =
        |e| Error::model(&place, "there is no such model folder; give the folder with config.json").because(e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(missing)? {
        let entry = entry.map_err(|e| Error::model(&place, "cannot be listed").because(e))?;
        if entry.path().is_file() {
            names.push(entry.path());
        }
    }
    names.sort();
    let mut files = Vec::with_capacity(names.len());
    for file in names {
        files.push((file.file_name().unwrap_or_default().to_string_lossy().into_owned(), hash_file(&file)?));
    }
    Ok(Base::Folder { path, hash: hash_of(&files) })
}

/// The folder at a URL with the hash of its files, which is that of the same folder on disk.
async fn remote(url: &str) -> Result<Base> {
    let source = Remote::folder(url).await?;
    if !source.names().any(|name| name == "config.json") {
        return Err(Error::model(source.url(), "there is no config.json below this URL; give that of a model folder"));
    }
    let entries = match source.recorded() {
        Some(entries) => entries,
        None => {
            source.fetch().await?;
            source
                .recorded()
                .ok_or_else(|| Error::internal(source.url(), "was fetched, but the cache does not know it"))?
        }
    };
    let light = source.without_weights().fetch().await?;
    let sum = |entry: FileEntry| match blake3::Hash::from_hex(&entry.blake3) {
        Ok(hash) => Ok((entry.path, hash)),
        Err(e) => Err(Error::internal(source.url(), "the cache holds a checksum that is none").because(e)),
    };
    let mut files = entries.into_iter().map(sum).collect::<Result<Vec<_>>>()?;
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Base::Remote { hash: hash_of(&files), light, source: Box::new(source) })
}

/// The hash of a model folder: over names and contents.
fn hash_of(files: &[(String, blake3::Hash)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, hash) in files {
        hasher.update(name.as_bytes()).update(hash.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// blake3 of a file's contents.
pub(super) fn hash_file(path: &Path) -> Result<blake3::Hash> {
    let bad = |e: std::io::Error| Error::data(path.display(), "cannot be read").because(e);
    let mut file = std::fs::File::open(path).map_err(bad)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(bad)?;
        if n == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update(&buffer[..n]);
    }
}
