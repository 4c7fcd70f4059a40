//! Folders from object stores on this machine's disk: fetched once, verified, bounded in size.
//!
//! In: the files of a folder with their sizes, and a way to fetch them. Out: a folder with exactly these files.
//!
//! ```text
//! <cache>/<key>/...     the files
//! <cache>/<key>.json    their checksums, written when all are there; stays when the files go
//! <cache>/<key>.lock    held, shared, by every process that uses the folder; its time is that of the last use
//! <cache>/<key>.fetch   held by the process that fetches
//! ```
//! A folder is verified by its checksums once per process, and fetched again when it is damaged. Before a folder comes
//! in, those that nobody uses go, least recently used first, until all fit into `SALMON_CACHE_BYTES`.

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::manifest::FORMAT;
use super::{Digest, FileEntry, fault, files_of};
use crate::{Error, Result};

/// Most bytes of all folders together, unless `SALMON_CACHE_BYTES` says otherwise.
const LIMIT: u64 = 50_000_000_000;

/// The lock files of the folders that this process uses, held until it ends.
static HELD: Mutex<Option<HashMap<PathBuf, File>>> = Mutex::new(None);
/// The folders that this process has verified.
static VERIFIED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// A file that a folder must have.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Its path in the folder.
    pub(super) path: String,
    pub(super) size: u64,
    /// Its checksum in hex, where it is known before it is fetched.
    pub(super) blake3: Option<String>,
}

/// What is known of a folder that was fetched.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u64,
    /// Where it came from, for people.
    source: String,
    files: Vec<FileEntry>,
}

/// One folder of the cache.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    cache: PathBuf,
    key: String,
}

impl Slot {
    /// The folder of `key` below `cache`; the same key always stands for the same bytes.
    pub(super) fn new(cache: &Path, key: &str) -> Self {
        Slot { cache: cache.to_path_buf(), key: key.to_string() }
    }

    fn folder(&self) -> PathBuf {
        self.cache.join(&self.key)
    }

    fn beside(&self, extension: &str) -> PathBuf {
        self.cache.join(format!("{}.{extension}", self.key))
    }

    /// The checksums of the files as they were fetched, whether or not they are still here.
    pub(super) fn recorded(&self) -> Option<Vec<FileEntry>> {
        let bytes = std::fs::read(self.beside("json")).ok()?;
        // A damaged record is none: the folder is fetched again.
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        (record.format == FORMAT).then_some(record.files)
    }

    /// The folder with the `wanted` files of `source`; `fetch` puts them into the empty folder that it is given and
    /// says what they are.
    ///
    /// # Errors
    /// What `fetch` fails with; a store error when the cache cannot be written.
    pub(super) async fn fill<F>(
        &self,
        source: &str,
        wanted: &[Wanted],
        fetch: impl FnOnce(PathBuf) -> F,
    ) -> Result<PathBuf>
    where
        F: Future<Output = Result<Vec<FileEntry>>>,
    {
        std::fs::create_dir_all(&self.cache).map_err(|e| self.bad("the cache folder cannot be created", &e))?;
        self.hold()?;
        if self.ready(wanted).await? {
            return Ok(self.folder());
        }
        let _fetching = self.turn().await?;
        // Another process may have fetched it while this one waited.
        if self.ready(wanted).await? {
            return Ok(self.folder());
        }
        make_room(&self.cache, wanted.iter().map(|file| file.size).sum(), limit()?, &self.key)?;
        let partial = self.cache.join(format!(".partial-{}", self.key));
        remove(&partial)?;
        std::fs::create_dir_all(&partial).map_err(|e| self.bad("the cache folder cannot be written", &e))?;
        let files = match fetch(partial.clone()).await {
            Ok(files) => files,
            Err(error) => {
                // What came so far is of no use; the first failure is the one to report.
                let _ = std::fs::remove_dir_all(&partial);
                return Err(error);
            }
        };
        let record = Record { format: FORMAT, source: source.to_string(), files };
        let text =
            serde_json::to_string_pretty(&record).map_err(|e| Error::internal("cache", "a record").because(e))?;
        let failed = |e: std::io::Error| self.bad("the cache cannot be written", &e);
        // The folder of the record before, if there is one, would be taken for damaged.
        remove(&self.folder())?;
        let beside = self.cache.join(format!(".record-{}", self.key));
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, self.beside("json"))).map_err(failed)?;
        std::fs::rename(&partial, self.folder()).map_err(failed)?;
        self.mark_verified();
        Ok(self.folder())
    }

    /// Whether all files are here as they were fetched.
    async fn ready(&self, wanted: &[Wanted]) -> Result<bool> {
        let folder = self.folder();
        let has = |file: &Wanted| std::fs::metadata(folder.join(&file.path)).is_ok_and(|m| m.len() == file.size);
        if !wanted.iter().all(has) {
            return Ok(false);
        }
        if VERIFIED.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|all| all.contains(&folder)) {
            return Ok(true);
        }
        let recorded: HashMap<String, String> =
            self.recorded().unwrap_or_default().into_iter().map(|file| (file.path, file.blake3)).collect();
        let (wanted, within) = (wanted.to_vec(), folder.clone());
        let verified = tokio::task::spawn_blocking(move || {
            wanted.iter().all(|file| {
                let sum = file.blake3.as_ref().or_else(|| recorded.get(&file.path));
                sum.is_some_and(|sum| digest(&within.join(&file.path)).is_ok_and(|found| found.blake3 == *sum))
            })
        });
        let verified = verified.await.map_err(|e| Error::internal("cache", "the check of a folder died").because(e))?;
        if verified {
            self.mark_verified();
        } else {
            tracing::warn!("{}: is damaged; fetched again", folder.display());
        }
        Ok(verified)
    }

    fn mark_verified(&self) {
        let mut all = VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_or_insert_default().insert(self.folder());
    }

    /// Marks the folder as used by this process, for as long as it lives.
    fn hold(&self) -> Result<()> {
        let path = self.beside("lock");
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |e: std::io::Error| self.bad("the cache folder cannot be locked", &e);
        let file = match held.get_or_insert_default().entry(path.clone()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let file = open_lock(&path).map_err(failed)?;
                // Whoever has it alone is removing the folder, which takes a moment.
                file.lock_shared().map_err(failed)?;
                entry.insert(file)
            }
        };
        file.set_modified(SystemTime::now()).map_err(failed)
    }

    /// Waits until no other process fetches this folder.
    async fn turn(&self) -> Result<File> {
        let path = self.beside("fetch");
        let locked = tokio::task::spawn_blocking(move || {
            let file = open_lock(&path)?;
            file.lock().map(|()| file)
        });
        let locked = locked.await.map_err(|e| Error::internal("cache", "waiting for its lock died").because(e))?;
        locked.map_err(|e| self.bad("the cache folder cannot be locked", &e))
    }

    fn bad(&self, problem: &str, error: &std::io::Error) -> Error {
        fault::io(&self.cache.display().to_string(), problem, error)
    }
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    File::options().create(true).truncate(false).read(true).write(true).open(path)
}

/// Size and checksum of a file.
pub(super) fn digest(path: &Path) -> std::io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::of(&hasher)),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// The bound that the environment sets.
fn limit() -> Result<u64> {
    match std::env::var("SALMON_CACHE_BYTES") {
        Ok(text) if !text.is_empty() => text.replace('_', "").parse().map_err(|_| {
            Error::config(format!("SALMON_CACHE_BYTES={text}"), "is not a number of bytes, e.g. 50_000_000_000")
        }),
        _ => Ok(LIMIT),
    }
}

/// Removes folders that nobody uses, least recently used first, until `needed` bytes more fit into `limit`.
fn make_room(cache: &Path, needed: u64, limit: u64, keep: &str) -> Result<()> {
    let failed = |e: std::io::Error| fault::io(&cache.display().to_string(), "the cache folder cannot be listed", &e);
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(cache).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_string) else { continue };
        if !path.is_dir() {
            continue;
        }
        // What a process left that died while it fetched.
        if let Some(key) = name.strip_prefix(".partial-") {
            if key != keep && alone(&cache.join(format!("{key}.fetch"))).is_some() {
                remove(&path)?;
            }
            continue;
        }
        let lock = cache.join(format!("{name}.lock"));
        // Another process may be removing it just now.
        let Ok(used) = lock.metadata().or_else(|_| path.metadata()).and_then(|about| about.modified()) else {
            continue;
        };
        let size: u64 = files_of(&path)
            .unwrap_or_default()
            .iter()
            .filter_map(|file| std::fs::metadata(path.join(file)).ok())
            .map(|about| about.len())
            .sum();
        folders.push((used, size, path, lock));
    }
    folders.sort();
    let mut total: u64 = folders.iter().map(|(_, size, _, _)| size).sum();
    for (_, size, path, lock) in folders {
        if total.saturating_add(needed) <= limit {
            return Ok(());
        }
        let Some(_alone) = alone(&lock) else { continue };
        tracing::info!("{}: removed to make room", path.display());
        remove(&path)?;
        total -= size;
    }
    if total.saturating_add(needed) > limit {
        let all = total.saturating_add(needed);
        tracing::warn!("{}: holds {all} bytes in use, more than SALMON_CACHE_BYTES={limit}", cache.display());
    }
    Ok(())
}

/// The lock at `path` for this process alone, or nothing while another one holds it.
fn alone(path: &Path) -> Option<File> {
    let file = open_lock(path).ok()?;
    match file.try_lock() {
        Ok(()) => Some(file),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
    }
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(fault::io(&folder.display().to_string(), "the cache folder cannot be emptied", &e))
        }
        _ => Ok(()),
    }
}
