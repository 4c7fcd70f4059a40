//! Model folders: what `save` writes, and what an adapter folder says about itself.
//!
//! In: a network. Out: a Hugging Face folder (frozen or fully trained network), or a PEFT folder (adapter); both
//! with the tokenizer files of the folder the network came from. The same network gives the same bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tch::Tensor;

use super::checkpoint;
use super::config::read_object;
use super::head::SCORE;
use super::lora::PREFIX;
use super::lora_config::{ALL_LINEAR, LoraConfig, Targets};
use super::network::Network;
use super::weights::PROJECTIONS;
use crate::torch::guard;
use crate::{Error, Result};

/// Files that travel with the weights.
const SIDE_FILES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// The files of [`SIDE_FILES`] that a folder has.
pub(super) fn read_side_files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for name in SIDE_FILES {
        let path = folder.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => drop(files.insert(name.to_string(), bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::model(path.display(), "cannot read this file of the model folder").because(e)),
        }
    }
    Ok(files)
}

impl Network {
    /// Writes the network to `folder` (made if missing) and gives the files written, in order.
    ///
    /// - with an adapter: `adapter_model.safetensors` and `adapter_config.json` in PEFT's layout, the linear head
    ///   among the tensors, as peft has it for sequence classification;
    /// - otherwise: `model.safetensors` in the network's type and `config.json`, the linear head as
    ///   `score.weight`.
    ///
    /// # Errors
    /// A store error that names the file.
    pub fn save(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        guard(&folder.display().to_string(), || {
            std::fs::create_dir_all(folder)
                .map_err(|e| Error::store(folder.display(), "cannot make this folder").because(e))?;
            let score = |prefix: &str| Some((format!("{prefix}{SCORE}"), self.score.as_ref()?.shallow_clone()));
            let clone = |(name, tensor): (String, &Tensor)| (name, tensor.shallow_clone());
            // Full training holds f32 copies; a model has the type it is computed in.
            let typed = |(name, tensor): (String, Tensor)| (name, tensor.to_kind(self.kind));
            let (weights, tensors, description, content) = match &self.lora {
                Some(lora) => (
                    "adapter_model.safetensors",
                    lora.named().into_iter().map(clone).chain(score(PREFIX)).collect(),
                    "adapter_config.json",
                    adapter_config(&lora.config, &self.config.projections(), &self.base, self.score.is_some()),
                ),
                None => (
                    "model.safetensors",
                    self.weights.named().into_iter().map(typed).chain(score("")).collect(),
                    "config.json",
                    self.config.to_json(self.kind, self.score.is_some()),
                ),
            };
            let mut written = vec![folder.join(weights)];
            checkpoint::write(&folder.join(weights), tensors)?;
            let mut text = serde_json::to_string_pretty(&content)
                .map_err(|e| Error::internal(description, "cannot be written").because(e))?;
            text.push('\n');
            let side = self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
            for (name, bytes) in side.chain([(description, text.as_bytes())]) {
                let path = folder.join(name);
                std::fs::write(&path, bytes)
                    .map_err(|e| Error::store(path.display(), "cannot write this file").because(e))?;
                written.push(path);
            }
            Ok(written)
        })
    }
}

/// `adapter_config.json` as peft reads it.
fn adapter_config(lora: &LoraConfig, projections: &[&str], base: &str, classifier: bool) -> Map<String, Value> {
    // Whole numbers as such, as people write them.
    let number = |x: f64| if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) };
    // Names that are projections as they stand come in a fixed order, whatever order the user gave.
    let targets = match &lora.target_modules {
        Targets::Names(names) => {
            let mut names = names.clone();
            names.sort_by_key(|name| PROJECTIONS.iter().position(|known| known == name));
            names.dedup();
            json!(names)
        }
        // As in peft, which takes the names down.
        Targets::Pattern(text) if text == ALL_LINEAR => json!(projections),
        Targets::Pattern(text) => json!(text),
    };
    let mut saved = lora.modules_to_save.clone();
    if classifier {
        saved.extend(["classifier", "score"].map(String::from));
    }
    let saved = if saved.is_empty() { Value::Null } else { json!(saved) };
    let layers = if lora.layers_to_transform.is_empty() { Value::Null } else { json!(lora.layers_to_transform) };
    let alphas: Map<String, Value> =
        lora.alpha_pattern.0.iter().map(|(pattern, alpha)| (pattern.clone(), number(*alpha))).collect();
    let fields = [
        ("alpha_pattern", Value::Object(alphas)),
        ("base_model_name_or_path", json!(base)),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
        ("init_lora_weights", json!(true)),
        ("layers_to_transform", layers),
        ("lora_alpha", number(lora.lora_alpha)),
        ("lora_dropout", json!(0.0)),
        ("modules_to_save", saved),
        ("peft_type", json!("LORA")),
        ("r", json!(lora.r)),
        ("rank_pattern", json!(lora.rank_pattern)),
        ("target_modules", targets),
        ("task_type", json!(if classifier { "SEQ_CLS" } else { "CAUSAL_LM" })),
        ("use_rslora", json!(lora.use_rslora)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

/// The fields of `adapter_config.json` that [`LoraConfig`] has.
const LORA: [&str; 8] = [
    "r",
    "lora_alpha",
    "target_modules",
    "layers_to_transform",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
];

/// Reads and checks `adapter_config.json`. Dropout is ignored: this crate trains without.
pub(super) fn read_adapter_config(folder: &Path) -> Result<LoraConfig> {
    let path = folder.join("adapter_config.json");
    let place = path.display().to_string();
    let mut map = read_object(&path)?;
    refuse_variants(&map, &place)?;
    map.retain(|name, value| LORA.contains(&name.as_str()) && !value.is_null());
    for name in ["r", "lora_alpha", "target_modules"] {
        if !map.contains_key(name) {
            return Err(Error::model(&place, format!("`{name}` is missing; a LoRA configuration needs it")));
        }
    }
    if let Some(layer @ Value::Number(_)) = map.get_mut("layers_to_transform") {
        *layer = json!([layer.take()]);
    }
    // peft lists every name that a classifier may give its head.
    if let Some(Value::Array(modules)) = map.get_mut("modules_to_save") {
        modules.retain(|module| *module != "score" && *module != "classifier");
    }
    let lora: LoraConfig = serde_json::from_value(Value::Object(map))
        .map_err(|e| Error::model(&place, "is not a LoRA configuration").because(e))?;
    lora.check(&place)?;
    Ok(lora)
}

/// An error for everything that changes the arithmetic and that we do not do, variants of later peft versions included.
fn refuse_variants(map: &Map<String, Value>, place: &str) -> Result<()> {
    let plain = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text == "none",
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    };
    let refused = |name: &str, value: &Value| {
        Err(Error::model(place, format!("{name}: {value} is not supported; only plain LoRA is")))
    };
    if map.get("peft_type").is_some_and(|kind| kind != "LORA") {
        return Err(Error::model(place, format!("peft_type: {} is not supported; only LORA is", map["peft_type"])));
    }
    let unsupported = [
        "bias",
        "fan_in_fan_out",
        "lora_bias",
        "layer_replication",
        "exclude_modules",
        "target_parameters",
        "trainable_token_indices",
        "alora_invocation_tokens",
    ];
    let changes = |name: &str| {
        unsupported.contains(&name)
            || ((name.starts_with("use_") || name.ends_with("_pattern") || name.ends_with("_config"))
                && !LORA.contains(&name)
                && name != "layers_pattern")
    };
    if let Some((name, value)) = map.iter().find(|(name, value)| changes(name) && !plain(value)) {
        return refused(name, value);
    }
    // Where the layers are in the module paths: here, always under this name.
    let layers = [json!("layers"), json!(["layers"])];
    if let Some(value) = map.get("layers_pattern").filter(|value| !plain(value) && !layers.contains(value)) {
        return refused("layers_pattern", value);
    }
    // These initialisations also change the base weights.
    match map.get("init_lora_weights") {
        Some(value @ Value::String(_)) if *value != "gaussian" => refused("init_lora_weights", value),
        _ => Ok(()),
    }
}
