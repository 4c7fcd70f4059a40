//! Tensors in safetensors files: read through memory maps, written in a fixed order.
//!
//! In: a folder with `model.safetensors`, or with `model.safetensors.index.json` and its shards; or one file.
//! Out: one tensor at a time, checked (shape, type, finite values). Loading holds the weights once ([`Shard`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, View};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::config::read_object;
use super::shard::Shard;
use crate::{Error, Result};

/// The tensors of one file or of all shards of a folder.
pub(crate) struct Checkpoint {
    shards: Vec<Shard>,
    /// Tensor name -> shard.
    index: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Opens the weights of a model folder.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let single = folder.join("model.safetensors");
        if single.exists() {
            return Checkpoint::file(&single);
        }
        let index = folder.join("model.safetensors.index.json");
        if index.exists() {
            return Checkpoint::sharded(folder, &index);
        }
        for pickle in ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"] {
            if folder.join(pickle).exists() {
                return Err(Error::model(
                    folder.join(pickle).display(),
                    "pickle weights can run code when they are read, so they are refused; convert the folder once with \
                     transformers: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OUT, \
                     safe_serialization=True)",
                ));
            }
        }
        Err(Error::model(
            folder.display(),
            "has no model.safetensors and no model.safetensors.index.json; is this a Hugging Face model folder?",
        ))
    }

    /// Opens the weights of a PEFT folder.
    pub(crate) fn adapter(folder: &Path) -> Result<Self> {
        let path = folder.join("adapter_model.safetensors");
        let pickle = folder.join("adapter_model.bin");
        if !path.exists() && pickle.exists() {
            return Err(Error::model(
                pickle.display(),
                "pickle weights can run code when they are read, so they are refused; save the adapter again with a \
                 current peft, which writes adapter_model.safetensors",
            ));
        }
        Checkpoint::file(&path)
    }

    /// Opens one safetensors file.
    pub(crate) fn file(path: &Path) -> Result<Self> {
        let shard = Shard::open(path)?;
        let index = shard.names().map(|name| (name, 0)).collect();
        Ok(Checkpoint { shards: vec![shard], index })
    }

    fn sharded(folder: &Path, path: &Path) -> Result<Self> {
        let map = read_object(path)?;
        let Some(Value::Object(weights)) = map.get("weight_map") else {
            return Err(Error::model(path.display(), "weight_map is missing or not an object"));
        };
        let mut shards: Vec<Shard> = Vec::new();
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut index = BTreeMap::new();
        for (name, file) in weights {
            let file = file.as_str().unwrap_or_default();
            // The index names files; it must not reach outside of the folder.
            if file.is_empty() || Path::new(file).file_name().is_none_or(|last| last != file) {
                return Err(Error::model(
                    path.display(),
                    format!("weight_map.{name} is not a file name in this folder"),
                ));
            }
            let number = match numbers.get(file) {
                Some(number) => *number,
                None => {
                    let shard = folder.join(file);
                    if !shard.exists() {
                        let problem = format!("is missing, and {} needs it; was all downloaded?", path.display());
                        return Err(Error::model(shard.display(), problem));
                    }
                    shards.push(Shard::open(&shard)?);
                    numbers.insert(file, shards.len() - 1);
                    shards.len() - 1
                }
            };
            if shards.get(number).is_none_or(|shard| shard.info(name).is_none()) {
                let problem = format!("tensor {name} is not in this file, where {} says it is", path.display());
                return Err(Error::model(folder.join(file).display(), problem));
            }
            index.insert(name.clone(), number);
        }
        for shard in &shards {
            if let Some(name) = shard.names().filter(|name| !index.contains_key(name)).min() {
                let problem = format!("weight_map does not name tensor {name}, which is in {}", shard.path.display());
                return Err(Error::model(path.display(), problem));
            }
        }
        Ok(Checkpoint { shards, index })
    }

    /// Whether there is a tensor of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The file of a tensor, or the first one for a name that is not there.
    pub(crate) fn path_of(&self, name: &str) -> &Path {
        let number = self.index.get(name).copied().unwrap_or(0);
        self.shards.get(number).map_or(Path::new(""), |shard| &shard.path)
    }

    /// The file of a tensor, or why there is none.
    fn shard(&self, name: &str, shape: &[i64]) -> Result<&Shard> {
        self.index.get(name).and_then(|number| self.shards.get(*number)).ok_or_else(|| {
            let place = if self.shards.len() == 1 {
                self.path_of(name).display().to_string()
            } else {
                let folder = self.path_of(name).parent().unwrap_or(Path::new(""));
                folder.join("model.safetensors.index.json").display().to_string()
            };
            Error::model(place, format!("tensor {name} is missing; the configuration needs it with shape {shape:?}"))
        })
    }

    /// An error unless the headers hold a tensor of this name and shape.
    pub(crate) fn check(&self, name: &str, shape: &[i64]) -> Result<()> {
        self.shard(name, shape)?.check(name, shape)
    }

    /// The tensor `name`, which must have this shape and finite values, as `kind` on `device`.
    pub(crate) fn tensor(&self, name: &str, shape: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.shard(name, shape)?.tensor(name, shape, kind, device)
    }

    /// An error unless `copy` holds the bytes of the embedding, which it may repeat in a tied model.
    pub(crate) fn check_copy(&self, copy: &str, embedding: &str) -> Result<()> {
        let (ours, theirs) = (self.shard(copy, &[])?, self.shard(embedding, &[])?);
        if ours.same_bytes(copy, theirs, embedding) {
            return Ok(());
        }
        let problem = format!("tensor {copy} differs from the embedding although config.json says tie_word_embeddings");
        Err(Error::model(ours.path.display(), problem))
    }

    /// Shape, type and bytes of a tensor, from the header alone.
    pub(crate) fn header(&self, name: &str) -> Option<(Vec<i64>, Dtype, usize)> {
        let shard = self.shards.get(*self.index.get(name)?)?;
        let info = shard.info(name)?;
        let shape = info.shape.iter().map(|n| *n as i64).collect();
        Some((shape, info.dtype, info.data_offsets.1 - info.data_offsets.0))
    }

    /// An error unless every value of this tensor is finite.
    pub(crate) fn check_values(&self, name: &str) -> Result<()> {
        let shard = self.index.get(name).and_then(|number| self.shards.get(*number));
        shard.map_or(Ok(()), |shard| shard.check_values(name))
    }

    /// The names of all tensors, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// An error for the first tensor that nobody asked for. Buffers of old checkpoints are no weights.
    pub(crate) fn no_others(&self, known: &BTreeSet<String>) -> Result<()> {
        match self.index.keys().find(|name| !known.contains(*name) && !name.ends_with("rotary_emb.inv_freq")) {
            None => Ok(()),
            Some(name) => Err(Error::model(
                self.path_of(name).display(),
                format!("tensor {name} has no place in this model; does the configuration belong to these weights?"),
            )),
        }
    }
}

/// A tensor as the safetensors writer wants it: its bytes are made when they are written, one tensor at a time.
struct Bytes {
    tensor: Tensor,
    shape: Vec<usize>,
    dtype: Dtype,
}

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        let tensor = self.tensor.to_device(Device::Cpu).contiguous();
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        Cow::Owned(bytes)
    }
    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes tensors to one safetensors file. The same tensors give the same bytes: the crate orders them by type
/// and name. Call within a guard.
pub(crate) fn write(path: &Path, tensors: Vec<(String, Tensor)>) -> Result<()> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Half => Dtype::F16,
            kind => return Err(Error::internal(path.display(), format!("cannot save {name} of type {kind:?}"))),
        };
        let shape = tensor.size().iter().map(|n| *n as usize).collect();
        views.push((name, Bytes { tensor: tensor.detach(), shape, dtype }));
    }
    // transformers refuses files without it.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|e| Error::store(path.display(), "cannot write this weight file").because(e))
}
