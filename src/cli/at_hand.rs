//! A model folder that the command line names, and the tokens to ask it with.
//!
//! In: a Hugging Face folder or the URL of one, and a text or token ids. Out: its network, its tokenizer where it has one, and ids that
//! the model knows.

use std::path::Path;

use tch::{Device, Kind};

use crate::model::{Network, Tokenizer};
use crate::store::{self, Remote};
use crate::{Error, Result};

/// A model folder, opened. Its weights are computed with in f32.
pub(super) struct AtHand {
    pub(super) network: Network,
    /// Token ids need none.
    pub(super) tokenizer: Option<Tokenizer>,
}

impl AtHand {
    pub(super) async fn open(model: &Path) -> Result<Self> {
        let fetched = match model.to_str().filter(|text| store::is_url(text)) {
            Some(url) => Some(Remote::folder(url).await?.fetch().await?),
            None => None,
        };
        let folder = fetched.as_deref().unwrap_or(model);
        if !folder.is_dir() {
            return Err(Error::model(folder.display(), "there is no model folder here; give the one with config.json"));
        }
        let network = Network::open(folder, Kind::Float, Device::Cpu)?;
        let found = folder.join("tokenizer.json").exists();
        Ok(AtHand { network, tokenizer: if found { Some(Tokenizer::open(folder)?) } else { None } })
    }

    /// The ids of `text`, the model's bos token first; or `ids` as they are. `flag` is that of the text.
    pub(super) fn ids(&self, flag: &str, text: Option<&str>, ids: Vec<u32>) -> Result<Vec<u32>> {
        let (flag, ids) = match (text, &self.tokenizer) {
            (None, _) => ("--ids", ids),
            (Some(text), Some(tokenizer)) => (flag, tokenizer.encode(text, true)?),
            (Some(_), None) => {
                let problem = "the model folder has no tokenizer.json to read a text with; give --ids";
                return Err(Error::config(flag, problem));
            }
        };
        let (vocab, context) = (self.network.config().vocab_size, self.network.config().max_position_embeddings);
        if ids.is_empty() {
            return Err(Error::data(flag, "holds no tokens; the model needs at least one"));
        }
        if let Some(at) = ids.iter().position(|&id| id as usize >= vocab) {
            let problem = format!("token id {} at position {at} is outside the model's vocabulary of {vocab}", ids[at]);
            return Err(Error::data(flag, problem));
        }
        if ids.len() > context {
            let problem = format!("{} tokens do not fit into the model's context of {context}; shorten it", ids.len());
            return Err(Error::data(flag, problem));
        }
        Ok(ids)
    }

    /// The text of a token as the vocabulary has it.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.as_ref()?.token_text(id)
    }
}
