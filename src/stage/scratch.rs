//! Folders for what is on its way: checkpoints and models before they are in the store.
//!
//! In: the system's folder for temporary files. Out: a folder that goes away with its handle. A process that is killed
//! cannot take its folder away, and a trainer's checkpoints are large: the next process that needs a folder removes those
//! of dead ones. Whoever lives holds a lock on a file beside the folder's contents, which ends with the process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const PREFIX: &str = "salmon-scratch-";
const LOCK: &str = "held";

/// An empty folder on this machine.
#[derive(Debug)]
pub struct Scratch {
    files: PathBuf,
    /// Removed first, the lock last.
    _folder: tempfile::TempDir,
    _held: File,
}

impl Scratch {
    /// Makes one, and removes those that dead processes left.
    ///
    /// # Errors
    /// A store error when none can be made.
    pub fn new() -> Result<Self> {
        let base = std::env::temp_dir();
        sweep(&base);
        let failed = |e: std::io::Error| Error::store(base.display(), "no scratch folder can be made").because(e);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&base).map_err(failed)?;
        // The lock has its name only once it is held: nobody may take a folder that is being made for a dead one.
        let unnamed = folder.path().join("lock");
        let held = File::create(&unnamed).map_err(failed)?;
        if held.try_lock().is_ok() {
            fs::rename(&unnamed, folder.path().join(LOCK)).map_err(failed)?;
        }
        let files = folder.path().join("files");
        fs::create_dir(&files).map_err(failed)?;
        Ok(Scratch { files, _folder: folder, _held: held })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.files
    }
}

/// Removes the folders of dead processes. They are only in the way, so what cannot be removed stays.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            tracing::debug!("removed what a dead process left: {}", entry.path().display());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
