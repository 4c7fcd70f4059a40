//! What a model is: the fields of `config.json` that this crate uses, checked.
//!
//! In: `config.json` (and `generation_config.json` for further end tokens). Out: a [`ModelConfig`], or one error
//! that names the file, the field and what is supported. Sizes are read here, what else differs from architecture to
//! architecture in `architecture`. Fields we do not use are carried along for `save`.

use std::path::Path;

use serde_json::{Map, Value, json};
use tch::Kind;

use super::architecture::{self, Architecture, Sizes};
use super::fields::Fields;
use super::weights;
use crate::{Error, Result};

/// The most layers of a model.
const MOST_LAYERS: usize = 10_000;

/// Shape and constants of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Rows of the embedding; token ids are `0..vocab_size`.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// The longest sequence, in tokens: the field of that name, and what a scaling of positions makes of it.
    pub max_position_embeddings: usize,
    /// Whether the unembedding is the embedding.
    pub tie_word_embeddings: bool,
    /// The token before every document, if the model has one.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a response, of `config.json` and `generation_config.json`.
    pub eos_token_ids: Vec<u32>,
    /// The padding token, if the model has one.
    pub pad_token_id: Option<u32>,
    /// The type the checkpoint says its weights have (`Float`, `BFloat16` or `Half`).
    pub torch_dtype: Kind,
    /// What it computes.
    pub(crate) architecture: Architecture,
    /// The file as read, so that `save` keeps what we do not use.
    raw: Map<String, Value>,
}

impl ModelConfig {
    /// Reads `config.json` of a model folder, and the end tokens of `generation_config.json` where there is one.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let mut config = ModelConfig::from_json(read_object(&path)?, &path.display().to_string())?;
        let path = folder.join("generation_config.json");
        if path.exists() {
            let place = path.display().to_string();
            let map = read_object(&path)?;
            for id in Fields::new(&map, &place).tokens("eos_token_id", config.vocab_size)? {
                if !config.eos_token_ids.contains(&id) {
                    config.eos_token_ids.push(id);
                }
            }
        }
        Ok(config)
    }

    /// Checks the fields of a `config.json`; `place` names it in errors.
    pub fn from_json(raw: Map<String, Value>, place: &str) -> Result<Self> {
        let fields = Fields::new(&raw, place);
        let family = architecture::family(&fields)?;
        let hidden_size = fields.size("hidden_size")?;
        let num_attention_heads = fields.size("num_attention_heads")?;
        let num_key_value_heads = fields.maybe_size("num_key_value_heads")?.unwrap_or(num_attention_heads);
        if num_attention_heads % num_key_value_heads != 0 {
            return Err(fields.wrong(
                "num_key_value_heads",
                format!("{num_key_value_heads} does not divide num_attention_heads = {num_attention_heads}"),
            ));
        }
        let head_dim = match (fields.maybe_size("head_dim")?, family.defaults.head_dim) {
            (Some(width), _) => width,
            (None, Some(width)) if !fields.has("head_dim") => width,
            _ if hidden_size % num_attention_heads == 0 => hidden_size / num_attention_heads,
            _ => {
                let text = format!("{hidden_size} is not a multiple of num_attention_heads = {num_attention_heads}");
                return Err(fields.wrong("hidden_size", text));
            }
        };
        if head_dim % 2 != 0 {
            return Err(fields.wrong("head_dim", format!("{head_dim} is odd; rotary embeddings need an even width")));
        }
        let vocab_size = fields.size("vocab_size")?;
        let num_hidden_layers = fields.size("num_hidden_layers")?;
        // There is something for every layer in memory before the first tensor is looked for.
        if num_hidden_layers > MOST_LAYERS {
            return Err(fields.wrong("num_hidden_layers", format!("{num_hidden_layers} is more than {MOST_LAYERS}")));
        }
        let architecture = architecture::describe(&fields, family, &Sizes { layers: num_hidden_layers, head_dim })?;
        Ok(ModelConfig {
            vocab_size,
            hidden_size,
            intermediate_size: fields.size("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(family.defaults.rms_norm_eps),
            rope_theta: architecture.ropes[0].theta,
            max_position_embeddings: architecture.context,
            tie_word_embeddings: fields.flag("tie_word_embeddings", family.defaults.tie_word_embeddings)?,
            bos_token_id: fields.tokens("bos_token_id", vocab_size)?.first().copied(),
            eos_token_ids: fields.tokens("eos_token_id", vocab_size)?,
            pad_token_id: fields.tokens("pad_token_id", vocab_size)?.first().copied(),
            torch_dtype: fields.dtype()?,
            architecture,
            raw,
        })
    }

    /// Whether the checkpoint is a classifier without an unembedding of its own.
    pub(crate) fn is_classifier(&self) -> bool {
        self.raw.get("architectures").is_some_and(|names| names[0] == self.architecture.family.classifier)
    }

    /// The projections of a layer by name: what `target_modules` of an adapter may hold.
    pub fn projections(&self) -> Vec<&'static str> {
        weights::projections(self).iter().map(|projection| projection.name).collect()
    }

    /// The value of a field of `config.json` that this struct has no member for.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.raw.get(name)
    }

    /// `config.json` for weights of type `kind`, with everything the file held before. `classifier` is for a
    /// linear reward head: transformers then opens it as a sequence classifier with one label.
    pub(crate) fn to_json(&self, kind: Kind, classifier: bool) -> Map<String, Value> {
        let mut raw = self.raw.clone();
        let family = self.architecture.family;
        raw.insert("architectures".into(), json!([if classifier { family.classifier } else { family.causal }]));
        raw.insert("model_type".into(), json!(family.model_type));
        raw.insert("torch_dtype".into(), json!(dtype_name(kind)));
        if raw.contains_key("dtype") {
            raw.insert("dtype".into(), json!(dtype_name(kind)));
        }
        if classifier {
            raw.insert("id2label".into(), json!({"0": "reward"}));
            raw.insert("label2id".into(), json!({"reward": 0}));
        }
        raw
    }
}

/// The name transformers has for a weight type.
fn dtype_name(kind: Kind) -> &'static str {
    match kind {
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        _ => "float32",
    }
}

/// A JSON file that holds one object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::model(path.display(), "cannot read this file of the model folder").because(e))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::model(path.display(), "is not a JSON object")),
        Err(e) => Err(Error::model(path.display(), "is not valid JSON").because(e)),
    }
}
