//! A model folder's weights without loading them: names, shapes and types from the headers of its files, and, where
//! those are right, a pass over the values.
//!
//! In: a Hugging Face folder. Out: its size, or everything that [`Network::open`](super::Network::open) would refuse.

use std::collections::BTreeSet;
use std::path::Path;

use safetensors::tensor::Dtype;
use tch::Tensor;

use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::head::SCORE;
use super::weights::{LM_HEAD, Weights};
use crate::torch::guard;
use crate::{Error, Result};

/// What is in the files.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// `config.json`.
    pub config: ModelConfig,
    /// Tensors of the model.
    pub tensors: usize,
    /// Numbers in them.
    pub parameters: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
}

/// Looks at a folder's weights; memory stays small.
///
/// # Errors
/// A model error when `config.json` or a header cannot be read; wrong tensors are [`Inspection::problems`].
pub fn inspect(folder: &Path) -> Result<Inspection> {
    guard(&folder.display().to_string(), || {
        let config = ModelConfig::open(folder)?;
        let checkpoint = Checkpoint::open(folder)?;
        let untied = !config.tie_word_embeddings && (checkpoint.has(LM_HEAD) || !config.is_classifier());
        let mut known: BTreeSet<String> = [SCORE, LM_HEAD].map(String::from).into();
        let (mut problems, mut tensors, mut parameters, mut bytes) = (Vec::new(), 0, 0, 0);
        // The list of names and shapes is that of the loader; nothing is loaded.
        Weights::build(&config, untied, |name, shape| {
            known.insert(name.to_string());
            let place = checkpoint.path_of(name).display();
            match checkpoint.header(name) {
                None => problems.push(format!("{place}: tensor {name} is missing; it needs shape {shape:?}")),
                Some((found, _, _)) if found != shape => {
                    problems.push(format!("{place}: tensor {name} has shape {found:?}; config.json asks for {shape:?}"))
                }
                Some((_, dtype, _)) if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) => problems
                    .push(format!("{place}: tensor {name} has type {dtype:?}; only F32, F16 and BF16 are supported")),
                Some((shape, _, size)) => {
                    tensors += 1;
                    parameters += shape.iter().product::<i64>() as u64;
                    bytes += size as u64;
                }
            }
            Ok::<_, Error>(Tensor::new())
        })?;
        let others = checkpoint.names().filter(|name| !known.contains(*name) && !name.ends_with("rotary_emb.inv_freq"));
        problems.extend(others.map(|name| {
            let place = checkpoint.path_of(name).display();
            format!("{place}: tensor {name} has no place in this model; does config.json belong to these weights?")
        }));
        if problems.is_empty() {
            let found = known.iter().filter(|name| checkpoint.has(name));
            problems
                .extend(found.filter_map(|name| checkpoint.check_values(name).err()).map(|error| error.to_string()));
        }
        Ok(Inspection { config, tensors, parameters, bytes, problems })
    })
}
