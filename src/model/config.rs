//! What a model is: the fields of `config.json` that this crate uses, checked.
//!
//! In: `config.json` (and `generation_config.json` for further end tokens). Out: a [`ModelConfig`], or one error
//! that names the file, the field and what is supported. Fields we do not use are carried along for `save`.

use std::path::Path;

use serde_json::{Map, Value, json};
use tch::Kind;

use crate::{Error, Result};

/// The architectures that can be read, by the name in `architectures`.
const ARCHITECTURES: [&str; 2] = ["LlamaForCausalLM", "LlamaForSequenceClassification"];

/// Shape and constants of one LLaMA-layout model.
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
    /// The longest sequence, in tokens.
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
            for id in (Fields { map: &map, place: &place }).tokens("eos_token_id", config.vocab_size)? {
                if !config.eos_token_ids.contains(&id) {
                    config.eos_token_ids.push(id);
                }
            }
        }
        Ok(config)
    }

    /// Checks the fields of a `config.json`; `place` names it in errors.
    pub fn from_json(raw: Map<String, Value>, place: &str) -> Result<Self> {
        let fields = Fields { map: &raw, place };
        fields.check_architecture()?;
        fields.check_unsupported()?;
        let hidden_size = fields.size("hidden_size")?;
        let num_attention_heads = fields.size("num_attention_heads")?;
        let num_key_value_heads = fields.maybe_size("num_key_value_heads")?.unwrap_or(num_attention_heads);
        if num_attention_heads % num_key_value_heads != 0 {
            return Err(fields.wrong(
                "num_key_value_heads",
                format!("{num_key_value_heads} does not divide num_attention_heads = {num_attention_heads}"),
            ));
        }
        let head_dim = match fields.maybe_size("head_dim")? {
            Some(width) => width,
            None if hidden_size % num_attention_heads == 0 => hidden_size / num_attention_heads,
            None => {
                let text = format!("{hidden_size} is not a multiple of num_attention_heads = {num_attention_heads}");
                return Err(fields.wrong("hidden_size", text));
            }
        };
        if head_dim % 2 != 0 {
            return Err(fields.wrong("head_dim", format!("{head_dim} is odd; rotary embeddings need an even width")));
        }
        let vocab_size = fields.size("vocab_size")?;
        Ok(ModelConfig {
            vocab_size,
            hidden_size,
            intermediate_size: fields.size("intermediate_size")?,
            num_hidden_layers: fields.size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta: fields.rope_theta()?,
            max_position_embeddings: fields.maybe_size("max_position_embeddings")?.unwrap_or(2048),
            tie_word_embeddings: fields.flag("tie_word_embeddings")?,
            bos_token_id: fields.tokens("bos_token_id", vocab_size)?.first().copied(),
            eos_token_ids: fields.tokens("eos_token_id", vocab_size)?,
            pad_token_id: fields.tokens("pad_token_id", vocab_size)?.first().copied(),
            torch_dtype: fields.dtype()?,
            raw,
        })
    }

    /// `1 / theta^(2i / head_dim)` for `i` in `0..head_dim / 2`, rounded to f32 where transformers rounds.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        (0..self.head_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / self.head_dim as f32;
                1.0 / self.rope_theta.powf(f64::from(exponent)) as f32
            })
            .collect()
    }

    /// Whether the checkpoint is a classifier without an unembedding of its own.
    pub(crate) fn is_classifier(&self) -> bool {
        self.raw.get("architectures").is_some_and(|names| names[0] == ARCHITECTURES[1])
    }

    /// The value of a field of `config.json` that this struct has no member for.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.raw.get(name)
    }

    /// `config.json` for weights of type `kind`, with everything the file held before. `classifier` is for a
    /// linear reward head: transformers then opens it as a sequence classifier with one label.
    pub(crate) fn to_json(&self, kind: Kind, classifier: bool) -> Map<String, Value> {
        let mut raw = self.raw.clone();
        raw.insert("architectures".into(), json!([ARCHITECTURES[usize::from(classifier)]]));
        raw.insert("model_type".into(), json!("llama"));
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

/// Typed access to the fields of one file, with errors that name file and field.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    place: &'a str,
}

impl Fields<'_> {
    fn wrong(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        Error::model(self.place, format!("{name}: {problem}"))
    }

    /// The field, with `null` as if it were missing.
    fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn maybe_size(&self, name: &str) -> Result<Option<usize>> {
        // Sizes above 2^31 are no model; the bound keeps every product of two within i64.
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(size) if (1..=i32::MAX as u64).contains(&size) => Ok(Some(size as usize)),
                _ => Err(self.wrong(name, format!("{value} is not a positive whole number"))),
            },
        }
    }

    fn size(&self, name: &str) -> Result<usize> {
        self.maybe_size(name)?.ok_or_else(|| self.wrong(name, "missing; a LLaMA model needs it"))
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number > 0.0 && number.is_finite() => Ok(Some(number)),
                _ => Err(self.wrong(name, format!("{value} is not a positive number"))),
            },
        }
    }

    fn flag(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None => Ok(false),
            Some(value) => {
                value.as_bool().ok_or_else(|| self.wrong(name, format!("{value} is neither true nor false")))
            }
        }
    }

    /// A token id, a list of them, or nothing.
    fn tokens(&self, name: &str, vocab_size: usize) -> Result<Vec<u32>> {
        let values = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let mut ids = Vec::new();
        for value in values {
            // -1 is how some LLaMA folders say "none".
            if value.as_i64() == Some(-1) {
                continue;
            }
            match value.as_u64() {
                Some(id) if id < vocab_size as u64 => ids.push(id as u32),
                _ => return Err(self.wrong(name, format!("{value} is not a token id below vocab_size = {vocab_size}"))),
            }
        }
        Ok(ids)
    }

    fn rope_theta(&self) -> Result<f64> {
        let nested = self.get("rope_parameters").and_then(Value::as_object);
        let nested = match nested {
            Some(map) => Fields { map, place: self.place }.number("rope_theta")?,
            None => None,
        };
        Ok(nested.or(self.number("rope_theta")?).unwrap_or(10_000.0))
    }

    fn dtype(&self) -> Result<Kind> {
        let name = if self.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
        match self.get(name).map(Value::as_str) {
            None | Some(Some("float32")) => Ok(Kind::Float),
            Some(Some("bfloat16")) => Ok(Kind::BFloat16),
            Some(Some("float16")) => Ok(Kind::Half),
            _ => {
                let value = self.get(name).cloned().unwrap_or_default();
                Err(self.wrong(name, format!("{value} is not supported; use float32, bfloat16 or float16")))
            }
        }
    }

    fn check_architecture(&self) -> Result<()> {
        match self.get("architectures") {
            Some(names) => match names[0].as_str() {
                Some(name) if ARCHITECTURES.contains(&name) => Ok(()),
                _ => Err(self.wrong(
                    "architectures",
                    format!("{names} is not supported; this version reads {}", ARCHITECTURES.join(" and ")),
                )),
            },
            None => match self.get("model_type").and_then(Value::as_str) {
                Some("llama") => Ok(()),
                other => Err(self.wrong(
                    "model_type",
                    format!("{:?} is not supported; this version reads \"llama\"", other.unwrap_or("(missing)")),
                )),
            },
        }
    }

    /// Everything that would change the arithmetic and that we do not do.
    fn check_unsupported(&self) -> Result<()> {
        for name in ["attention_bias", "mlp_bias"] {
            if self.flag(name)? {
                return Err(self.wrong(name, "true is not supported; only projections without biases are"));
            }
        }
        if let Some(value) = self.get("hidden_act").filter(|value| *value != "silu") {
            return Err(self.wrong("hidden_act", format!("{value} is not supported; only \"silu\" is")));
        }
        if self.get("quantization_config").is_some() {
            return Err(self.wrong("quantization_config", "quantised weights are not supported; use f32, bf16 or f16"));
        }
        if let Some(value) = self.get("partial_rotary_factor").filter(|value| value.as_f64() != Some(1.0)) {
            return Err(self.wrong("partial_rotary_factor", format!("{value} is not supported; only 1.0 is")));
        }
        for name in ["rope_scaling", "rope_parameters"] {
            let Some(value) = self.get(name) else { continue };
            let kind = value.get("rope_type").or(value.get("type"));
            if !value.is_object() || kind.is_some_and(|kind| kind != "default") {
                return Err(self.wrong(name, format!("{value} is not supported; only the default rotary embedding is")));
            }
        }
        Ok(())
    }
}
