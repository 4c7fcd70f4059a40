//! Where a trainer stopped: tensors and counters in a folder that appears in one rename.
//!
//! ```text
//! FOLDER/step-00000042/   *.safetensors, state.json
//! ```
//!
//! In: named tensors and a small state. Out: the same, bit for bit. The same state gives the same bytes. Only
//! the newest step is kept; a step that was not written in full leaves nothing that is read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

const STEP: &str = "step-";
const STATE: &str = "state.json";

/// The types that trained tensors and optimizer states have.
const KINDS: [(Kind, Dtype); 3] = [(Kind::Float, Dtype::F32), (Kind::BFloat16, Dtype::BF16), (Kind::Half, Dtype::F16)];

/// Saves a step: `files` are the safetensors files by name. Older steps in `folder` are removed afterwards.
pub(super) fn save(
    folder: &Path,
    step: usize,
    files: &[(&str, Vec<(String, Tensor)>)],
    state: &impl Serialize,
) -> Result<()> {
    let failed = |path: &Path, error: std::io::Error| {
        Error::store(path.display(), "cannot write the checkpoint; is the disk full?").because(error)
    };
    fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
    let temporary = || tempfile::Builder::new().prefix(".partial-").tempdir_in(folder).map_err(|e| failed(folder, e));
    let partial = temporary()?;
    for (name, tensors) in files {
        write_tensors(&partial.path().join(name), tensors)?;
    }
    let path = partial.path().join(STATE);
    let text = serde_json::to_vec_pretty(state).map_err(|e| Error::internal(path.display(), e))?;
    fs::write(&path, text).and_then(|()| File::open(&path)?.sync_all()).map_err(|e| failed(&path, e))?;

    let target = folder.join(format!("{STEP}{step:08}"));
    let stale = temporary()?;
    if target.exists() {
        fs::rename(&target, stale.path().join("replaced")).map_err(|e| failed(&target, e))?;
    }
    fs::rename(partial.path(), &target).map_err(|e| failed(&target, e))?;
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed(folder, e))?;
    for (other, path) in saved_steps(folder)? {
        if other != step {
            fs::remove_dir_all(&path).map_err(|e| failed(&path, e))?;
        }
    }
    Ok(())
}

fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = KINDS.iter().find(|(kind, _)| *kind == tensor.kind()).map(|(_, dtype)| *dtype);
        let dtype = dtype.ok_or_else(|| {
            Error::internal(path.display(), format!("cannot save {name} of type {:?}", tensor.kind()))
        })?;
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
        parts.push((name, dtype, shape, bytes));
    }
    let mut views = Vec::with_capacity(parts.len());
    for (name, dtype, shape, bytes) in &parts {
        let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| Error::internal(path.display(), e))?;
        views.push((name.as_str(), view));
    }
    let failed = || Error::store(path.display(), "cannot write the checkpoint; is the disk full?");
    safetensors::serialize_to_file(views, None, path).map_err(|e| failed().because(e))?;
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| failed().because(e))
}

/// The complete steps in a folder.
fn saved_steps(folder: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::store(folder.display(), "cannot list the checkpoints").because(error)),
    };
    let mut steps = Vec::new();
    for entry in entries {
        let entry =
            entry.map_err(|error| Error::store(folder.display(), "cannot list the checkpoints").because(error))?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix(STEP)).and_then(|digits| digits.parse().ok());
        steps.extend(step.map(|step| (step, entry.path())));
    }
    Ok(steps)
}

/// A saved step.
pub(super) struct Saved {
    path: PathBuf,
}

impl Saved {
    /// The newest step in `folder`; `None` where there is none.
    pub(super) fn newest(folder: &Path) -> Result<Option<Self>> {
        Ok(saved_steps(folder)?.into_iter().max().map(|(_, path)| Saved { path }))
    }

    /// Where `file` lies.
    pub(super) fn place(&self, file: &str) -> String {
        self.path.join(file).display().to_string()
    }

    /// The counters.
    pub(super) fn state<S: DeserializeOwned>(&self) -> Result<S> {
        let place = self.place(STATE);
        let bytes = fs::read(self.path.join(STATE))
            .map_err(|error| Error::store(&place, "cannot read the checkpoint").because(error))?;
        serde_json::from_slice(&bytes).map_err(|error| Error::store(&place, "is not a trainer's state").because(error))
    }

    /// The tensors of one file.
    pub(super) fn tensors(&self, file: &str) -> Result<BTreeMap<String, Tensor>> {
        let place = self.place(file);
        let bytes = fs::read(self.path.join(file))
            .map_err(|error| Error::store(&place, "cannot read the checkpoint").because(error))?;
        let invalid = || Error::store(&place, "is not a valid safetensors file; remove this checkpoint to start over");
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| invalid().because(error))?;
        let mut out = BTreeMap::new();
        for (name, view) in tensors.tensors() {
            let (kind, _) = KINDS.iter().find(|(_, dtype)| *dtype == view.dtype()).ok_or_else(invalid)?;
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            out.insert(name, Tensor::f_from_data_size(view.data(), &shape, *kind)?);
        }
        Ok(out)
    }
}
