//! One model as a Hugging Face or PEFT folder.
//!
//! In: the network with its head, the tokenizer, the templates it reads. Out: weights, `config.json`, tokenizer files
//! completed so that `AutoTokenizer` gives our token ids, `chat_template.jinja` in the layout the model was trained in,
//! `reward_template.jinja` for a reward model, and a card.

use std::path::Path;

use datafusion::prelude::SessionContext;
use serde_json::{Map, Value, json};
use tch::Kind;

use super::card;
use super::chat::chat_template;
use crate::model::{Head, Network, Tokenizer};
use crate::principle::Templates;
use crate::{Error, Result};

/// What is exported.
#[derive(Debug)]
pub struct Model<'a> {
    /// Its name in the run: `sft`, `reward`, `policy:<name>`, `base`.
    pub name: &'a str,
    /// Its weights, with the head that the run gives it.
    pub network: Network,
    /// The run's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The templates of its lineage.
    pub templates: &'a Templates,
    /// The template of its prompts, for a model that answers.
    pub chat_template: Option<&'a str>,
    /// The template of its prompts, for a reward model.
    pub reward_template: Option<&'a str>,
}

/// In which form.
#[derive(Debug, Clone)]
pub enum Form {
    /// Whole, an adapter merged into the weights.
    Merged {
        /// The number format.
        kind: Kind,
        /// Bytes of one weight file at most.
        max_shard_size: u64,
    },
    /// The adapter alone, as trained.
    Adapter {
        /// The base model that it names.
        base: String,
    },
}

/// Writes the model and its card to `folder`.
///
/// # Errors
/// A configuration error for the adapter of a model that has none; a model error for weights that the number format
/// cannot hold; a store error for what cannot be written.
pub async fn write_model(
    ctx: &SessionContext,
    model: Model<'_>,
    form: &Form,
    about: card::Run,
    folder: &Path,
) -> Result<()> {
    let settings = Settings::of(&model)?;
    let card = card::Weights::new(&model, form, settings.pad)?;
    let (tokenizer, chat) = (settings.tokenizer_config(&model)?, settings.chat_template(&model)?);
    let reward = model.reward_template.and_then(|name| model.templates.source(name)).map(str::to_string);
    save(model, form, &settings, folder)?;
    put(folder, "tokenizer_config.json", &tokenizer)?;
    for (name, text) in [("chat_template.jinja", chat), ("reward_template.jinja", reward)] {
        if let Some(text) = text {
            put(folder, name, &text)?;
        }
    }
    card::model(ctx, &about, card, folder).await
}

fn put(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, text).map_err(|e| Error::store(path.display(), "cannot write this file").because(e))
}

/// The weights and what the folder they came from has beside them.
fn save(model: Model<'_>, form: &Form, settings: &Settings, folder: &Path) -> Result<()> {
    match form {
        Form::Adapter { .. } if model.network.lora().is_none() => Err(Error::config(
            "--adapter",
            format!("`{}` has no adapter, its weights are its own; leave --adapter out", model.name),
        )),
        Form::Adapter { base } => model.network.with_base_name(base).save(folder).map(drop),
        Form::Merged { kind, max_shard_size } => {
            for (name, bytes) in model.network.files() {
                let path = folder.join(name);
                std::fs::write(&path, bytes)
                    .map_err(|e| Error::store(path.display(), "cannot write this file").because(e))?;
            }
            model.network.save_merged(folder, *kind, *max_shard_size, settings.fields.clone())
        }
    }
}

/// What transformers has to be told beyond what the base model's folder says.
struct Settings {
    /// Set in `config.json`.
    fields: Map<String, Value>,
    /// `tokenizer_config.json` of the folder.
    tokenizer: Map<String, Value>,
    /// `special_tokens_map.json` of the folder.
    special: Map<String, Value>,
    /// The padding token.
    pad: Option<u32>,
}

impl Settings {
    fn of(model: &Model<'_>) -> Result<Self> {
        let file = |name: &str| -> Result<Map<String, Value>> {
            let Some((_, bytes)) = model.network.files().find(|(own, _)| *own == name) else {
                return Ok(Map::new());
            };
            serde_json::from_slice(bytes).map_err(|e| Error::model(name, "is not a JSON object").because(e))
        };
        let (tokenizer, special) = (file("tokenizer_config.json")?, file("special_tokens_map.json")?);
        let config = model.network.config();
        let named = tokenizer.get("pad_token").or_else(|| special.get("pad_token"));
        let named = named.and_then(token_text).and_then(|text| model.tokenizer.token(text));
        // Who pads is the tokenizer.
        let mut pad = named.or(config.pad_token_id);
        let mut fields = Map::new();
        match model.network.head() {
            Head::None => {}
            // transformers reads the score at the last token that is not padding, so it must know what padding is. No
            // reward prompt ends in the token that ends answers.
            Head::Linear => {
                pad = pad.or(config.eos_token_ids.first().copied());
                let Some(pad) = pad else {
                    let problem = "names no pad_token_id and no eos_token_id; a reward model needs one for batches";
                    return Err(Error::model("config.json", problem));
                };
                fields.insert("num_labels".into(), json!(1));
                fields.insert("pad_token_id".into(), json!(pad));
            }
            Head::YesNo { yes, no } => {
                fields.insert("yes_no_head".into(), json!({"yes_token_id": yes, "no_token_id": no}));
            }
        }
        Ok(Settings { fields, tokenizer, special, pad })
    }

    /// `tokenizer_config.json`. Without one, `AutoTokenizer` would take the model type's class, which brings tokens of
    /// its own; a token that only `config.json` names is named here.
    fn tokenizer_config(&self, model: &Model<'_>) -> Result<String> {
        let config = model.network.config();
        let mut map = self.tokenizer.clone();
        let mut fill = |name: &str, value: Value| {
            if map.get(name).is_none_or(Value::is_null) {
                map.insert(name.into(), value);
            }
        };
        fill("tokenizer_class", json!("PreTrainedTokenizerFast"));
        fill("model_max_length", json!(config.max_position_embeddings));
        fill("clean_up_tokenization_spaces", json!(false));
        fill("model_input_names", json!(["input_ids", "attention_mask"]));
        let ids = [
            ("bos_token", config.bos_token_id),
            ("eos_token", config.eos_token_ids.first().copied()),
            ("pad_token", self.pad),
        ];
        for (name, id) in ids {
            if let Some(text) = id.and_then(|id| model.tokenizer.token_text(id))
                && !self.special.contains_key(name)
            {
                fill(name, json!(text));
            }
        }
        // What training did; the class alone would leave it to the post-processor.
        fill("add_bos_token", json!(model.tokenizer.bos().is_some()));
        // One layout, and that is the file's.
        if model.chat_template.is_some() {
            map.shift_remove("chat_template");
        }
        let text = serde_json::to_string_pretty(&map)
            .map_err(|e| Error::internal("tokenizer_config.json", "cannot be written").because(e))?;
        Ok(text + "\n")
    }

    fn chat_template(&self, model: &Model<'_>) -> Result<Option<String>> {
        let Some(name) = model.chat_template else { return Ok(None) };
        chat_template(model.templates, name, model.tokenizer.bos().is_some()).map(Some)
    }
}

/// The text of a token: a string, or an object with `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}
