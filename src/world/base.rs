//! The shipped base model of the pocket world, unpacked into the user's cache folder.

use std::fs;
use std::path::PathBuf;

use crate::{Error, Result};

/// The Hugging Face folder, by file; `salmon demo --from-scratch` makes one like it.
const FILES: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../../datasets/pocket/config.json")),
    ("model.safetensors", include_bytes!("../../datasets/pocket/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../datasets/pocket/tokenizer.json")),
];

/// The folder with the shipped base model; written on first use.
///
/// # Errors
/// A store error when the cache folder cannot be written.
pub fn folder() -> Result<PathBuf> {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in FILES {
        hasher.update(name.as_bytes());
        hasher.update(bytes);
    }
    let hash = hasher.finalize().to_hex();
    let folder = crate::store::cache_folder().join(format!("pocket-{}", &hash[..16]));
    if folder.is_dir() {
        return Ok(folder);
    }
    let bad = |e: std::io::Error| Error::store(folder.display(), "cannot be written; set XDG_CACHE_HOME").because(e);
    let parent = folder.parent().map(PathBuf::from).unwrap_or_default();
    fs::create_dir_all(&parent).map_err(bad)?;
    // Complete or not there at all, also when two processes start at once.
    let scratch = tempfile::tempdir_in(&parent).map_err(bad)?;
    for (name, bytes) in FILES {
        fs::write(scratch.path().join(name), bytes).map_err(bad)?;
    }
    match fs::rename(scratch.path(), &folder) {
        Ok(()) => drop(scratch.keep()),
        Err(_) if folder.is_dir() => {}
        Err(e) => return Err(bad(e)),
    }
    Ok(folder)
}
