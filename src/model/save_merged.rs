//! Weights as transformers saves them: the adapter merged, one number format, in shards with an index above a size.
//!
//! In: a network. Out: `model.safetensors`, or `model-00001-of-0000N.safetensors` .. and
//! `model.safetensors.index.json`; and `config.json`. A shard's tensors are cast when it is written, so that what is
//! held is the network, its merged projections and one shard. The same network gives the same bytes.

use std::path::Path;

use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use super::checkpoint;
use super::head::SCORE;
use super::network::Network;
use super::weights::LM_HEAD;
use crate::torch::guard;
use crate::{Error, Result};

impl Network {
    /// Writes weights and `config.json` to `folder`: a sequence classifier with a linear head, a causal language
    /// model otherwise. `fields` are set in `config.json`, over what it holds. No file exceeds `max_shard_size`
    /// bytes by more than its header, except one that holds a single larger tensor.
    ///
    /// # Errors
    /// A model error for a weight that `kind` cannot hold, a store error that names the file.
    pub fn save_merged(
        &self,
        folder: &Path,
        kind: Kind,
        max_shard_size: u64,
        fields: Map<String, Value>,
    ) -> Result<()> {
        guard(&folder.display().to_string(), || {
            let _frozen = tch::no_grad_guard();
            let weights = self.merged_weights(kind);
            let classifier = self.score.is_some();
            let mut tensors = weights.named();
            // A classifier has no use for the unembedding, and transformers would warn about it.
            tensors.retain(|(name, _)| !(classifier && name == LM_HEAD));
            tensors.extend(self.score.as_ref().map(|score| (SCORE.to_string(), score.shallow_clone())));

            let shards = split(&tensors, kind, max_shard_size);
            let name = |shard: usize| match shards.len() {
                1 => "model.safetensors".to_string(),
                count => format!("model-{:05}-of-{count:05}.safetensors", shard + 1),
            };
            let (mut map, mut total) = (Map::new(), 0);
            for (number, shard) in shards.iter().enumerate() {
                let file = name(number);
                let mut cast = Vec::with_capacity(shard.len());
                for (tensor_name, tensor) in shard {
                    let tensor = tensor.detach().f_to_kind(kind)?;
                    check_range(tensor_name, &tensor, kind)?;
                    total += bytes(&tensor, kind);
                    map.insert(tensor_name.to_string(), json!(file));
                    cast.push((tensor_name.to_string(), tensor));
                }
                checkpoint::write(&folder.join(file), cast)?;
            }
            if shards.len() > 1 {
                let index = json!({"metadata": {"total_size": total}, "weight_map": map});
                write_json(&folder.join("model.safetensors.index.json"), &index)?;
            }
            let mut config = self.config.to_json(kind, classifier);
            config.extend(fields);
            write_json(&folder.join("config.json"), &Value::Object(config))
        })
    }

    /// The files that travel with the weights (tokenizer and the like), by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }
}

type Named<'a> = (&'a str, &'a Tensor);

/// Cuts the list where the next tensor would exceed the size, as transformers does.
fn split(tensors: &[(String, Tensor)], kind: Kind, most: u64) -> Vec<Vec<Named<'_>>> {
    let (mut shards, mut size) = (vec![Vec::new()], 0);
    for (name, tensor) in tensors {
        let more = bytes(tensor, kind);
        if size > 0 && size + more > most {
            shards.push(Vec::new());
            size = 0;
        }
        size += more;
        if let Some(shard) = shards.last_mut() {
            shard.push((name.as_str(), tensor));
        }
    }
    shards
}

fn bytes(tensor: &Tensor, kind: Kind) -> u64 {
    (tensor.numel() * kind.elt_size_in_bytes()) as u64
}

/// float16 ends at 65,504; what is above would come out as infinity.
fn check_range(name: &str, tensor: &Tensor, kind: Kind) -> Result<()> {
    if kind == Kind::Half && !bool::try_from(tensor.f_isfinite()?.f_all()?)? {
        return Err(Error::model(name, "has values that float16 cannot hold; choose --dtype bfloat16 or float32"));
    }
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::internal(path.display(), "cannot be written as JSON").because(e))?;
    text.push('\n');
    std::fs::write(path, text).map_err(|e| Error::store(path.display(), "cannot write this file").because(e))
}
