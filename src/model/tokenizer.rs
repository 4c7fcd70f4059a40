//! Text to token ids and back, as the folder's `tokenizer.json` says.
//!
//! In: text, or ids. Out: ids, or text; and for sampling a [`TextStream`], which gives the text so far after each
//! id, so that stop strings are found while the model speaks.
//!
//! Special tokens are added by the caller's choice only (`add_bos`), never by the file's post-processor; its
//! truncation and padding are switched off, because they would drop text silently.

use std::path::Path;

use serde_json::Value;

use super::config::{ModelConfig, read_object};
use crate::error::Kind;
use crate::torch::guard;
use crate::{Error, Result};

/// A tokenizer of a model folder. Shared by threads.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Where it came from, for errors.
    place: String,
    bos: Option<u32>,
    /// One above the largest id.
    vocab_size: usize,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("place", &self.place).field("vocab_size", &self.vocab_size).finish()
    }
}

/// The tokenizer classes of transformers that put `bos_token` first unless `add_bos_token` is false.
const ADDS_BOS: [&str; 3] = ["Llama", "CodeLlama", "Gemma"];

impl Tokenizer {
    /// Opens `tokenizer.json` of a folder. Where the folder also holds a `config.json`, every token id must be
    /// below the model's `vocab_size`.
    ///
    /// # Errors
    /// A model error that names the file: missing, malformed, a vocabulary larger than the model's.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let place = path.display().to_string();
        let bytes = std::fs::read(&path)
            .map_err(|e| Error::model(&place, "cannot read the tokenizer of this model folder").because(e))?;
        let mut tokenizer = Tokenizer::from_bytes(&bytes, &place)?;
        let config = if folder.join("config.json").exists() { Some(ModelConfig::open(folder)?) } else { None };
        if let Some(config) = &config
            && tokenizer.vocab_size > config.vocab_size
        {
            let problem = format!(
                "has token ids up to {}, but the model's vocab_size is {}; the tokenizer belongs to another model",
                tokenizer.vocab_size - 1,
                config.vocab_size
            );
            return Err(Error::model(&place, problem));
        }
        tokenizer.bos = tokenizer.find_bos(folder, config.as_ref())?;
        Ok(tokenizer)
    }

    /// A tokenizer from the bytes of a `tokenizer.json`; `place` names it in errors. It has no bos token.
    pub fn from_bytes(bytes: &[u8], place: &str) -> Result<Self> {
        let wrong = |problem: &str, e: tokenizers::Error| Error::model(place, problem).because(e);
        let mut inner = caught(place, || {
            tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| wrong("is not a valid tokenizer", e))
        })?;
        inner.with_truncation(None).map_err(|e| wrong("cannot switch truncation off", e))?;
        inner.with_padding(None);
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        if vocab_size == 0 {
            return Err(Error::model(place, "has an empty vocabulary"));
        }
        Ok(Tokenizer { inner, place: place.to_string(), bos: None, vocab_size })
    }

    /// The token before every document: `bos_token` of `tokenizer_config.json`, else `bos_token_id` of
    /// `config.json`. None if `add_bos_token` is false or `bos_token` is null, and, as in transformers, for a
    /// `tokenizer_class` that leaves it to the post-processor of `tokenizer.json` where that adds none.
    fn find_bos(&self, folder: &Path, config: Option<&ModelConfig>) -> Result<Option<u32>> {
        let path = folder.join("tokenizer_config.json");
        let from_config = config.and_then(|config| config.bos_token_id);
        if !path.exists() {
            return Ok(from_config);
        }
        let map = read_object(&path)?;
        if map.get("add_bos_token") == Some(&Value::Bool(false)) {
            return Ok(None);
        }
        let class = map.get("tokenizer_class").and_then(Value::as_str);
        let adds = map.get("add_bos_token") == Some(&Value::Bool(true))
            || class.is_none_or(|class| ADDS_BOS.iter().any(|family| class.starts_with(family)));
        if map.get("bos_token") == Some(&Value::Null) || !(adds || self.processor_adds_bos()?) {
            return Ok(None);
        }
        match map.get("bos_token").and_then(token_text) {
            None => Ok(from_config),
            Some(text) => match self.inner.token_to_id(text) {
                Some(id) => Ok(Some(id)),
                None => Err(Error::model(path.display(), format!("bos_token: {text:?} is not in the vocabulary"))),
            },
        }
    }

    /// Whether the post-processor puts a token before every text.
    fn processor_adds_bos(&self) -> Result<bool> {
        let encoding = self.inner.encode_fast("", true);
        let encoding = encoding.map_err(|e| Error::model(&self.place, "cannot encode a text").because(e))?;
        Ok(!encoding.get_ids().is_empty())
    }

    /// The ids of `text`. With `add_bos`, the model's bos token stands first (once), if the model has one.
    ///
    /// Text that spells a special token (`</s>`) becomes that token, as in transformers.
    pub fn encode(&self, text: &str, add_bos: bool) -> Result<Vec<u32>> {
        let encoding = caught(&self.place, || {
            let bad = |e| Error::model(&self.place, "cannot encode this text").because(e);
            self.inner.encode_fast(text, false).map_err(bad)
        })?;
        let ids = encoding.get_ids();
        let mut out = Vec::with_capacity(ids.len() + 1);
        if let Some(bos) = self.bos.filter(|bos| add_bos && ids.first() != Some(bos)) {
            out.push(bos);
        }
        out.extend_from_slice(ids);
        Ok(out)
    }

    /// The text of `ids`, without special tokens. Without a decoder in the file, tokens are joined by spaces.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        caught(&self.place, || {
            self.inner.decode(ids, true).map_err(|e| Error::model(&self.place, "cannot decode these ids").because(e))
        })
    }

    /// The id of the token with exactly this text.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// The text of one token as the vocabulary has it, special or not.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token that [`Tokenizer::encode`] puts first when asked to.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// One above the largest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

/// Calls into the tokenizers library, which panics on some files that it should refuse.
fn caught<T>(place: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    guard(place, call).map_err(|e| match e.kind() {
        Kind::Internal => Error::model(place, "holds what the tokenizers library cannot work with").because(e),
        _ => e,
    })
}

/// The text of a token in `tokenizer_config.json`: a string, or an object with `content`.
pub(crate) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The text of a growing list of ids.
///
/// A byte-level token may end within a character: its text is held back until the character is whole, and
/// [`TextStream::finish`] gives what is left. Each step decodes only the last few ids; the pieces join to what
/// [`Tokenizer::decode`] gives for the whole list.
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    ids: Vec<u32>,
    /// `ids[before..done]` gave the last piece: decoders look at a token's left neighbour (spaces between words).
    before: usize,
    /// The text of `ids[done..]` is held back.
    done: usize,
    text: String,
}

impl TextStream {
    /// An empty stream.
    pub fn new() -> Self {
        TextStream::default()
    }

    /// Adds one id; `tokenizer` is the same on every call.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<()> {
        self.ids.push(id);
        let last = tokenizer.decode(&self.ids[self.before..self.done])?;
        let both = tokenizer.decode(&self.ids[self.before..])?;
        let piece = both.strip_prefix(last.as_str()).unwrap_or_default();
        // U+FFFD at the end is a character that lacks bytes (or one that never gets them: see `finish`).
        if !piece.is_empty() && !piece.ends_with('\u{FFFD}') {
            self.text += piece;
            (self.before, self.done) = (self.done, self.ids.len());
        }
        Ok(())
    }

    /// The text so far, up to the last whole character.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The ids so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The whole text, with U+FFFD for bytes that never became a character.
    pub fn finish(self, tokenizer: &Tokenizer) -> Result<String> {
        tokenizer.decode(&self.ids)
    }
}
