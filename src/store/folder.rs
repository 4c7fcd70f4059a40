//! Local folders and the store: a model is a folder, a store holds objects.
//!
//! In: a folder that a trainer or another tool wrote. Out: its files as objects with checksums, and back again:
//! a folder on this machine that holds exactly what a manifest names. A run on local disk is read in place;
//! anything else is downloaded once into a cache and verified on the way.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::cache::{Slot, Wanted};
use super::{Digest, FileEntry, Manifest, Store, Version, fault};
use crate::{Error, Result};

/// How much of a file is read at once.
const CHUNK: usize = 1 << 20;

/// Uploads every file below `folder` to `<version>/<below>/...`, in the order of their names; `below` may be
/// empty. The entries' paths start with `below`.
///
/// # Errors
/// A store error that names the file.
pub async fn upload_folder(store: &Store, version: &Version, below: &str, folder: &Path) -> Result<Vec<FileEntry>> {
    let mut files = Vec::new();
    for relative in files_of(folder)? {
        let path = if below.is_empty() { relative.clone() } else { format!("{below}/{relative}") };
        let digest = upload_file(store, &version.key(&path), &folder.join(&relative)).await?;
        files.push(FileEntry::new(path, digest, 0));
    }
    Ok(files)
}

/// Uploads one file to `key`; nothing is visible there before all of it is.
///
/// # Errors
/// A store error that names the file or the object.
pub async fn upload_file(store: &Store, key: &str, file: &Path) -> Result<Digest> {
    let shown = file.display().to_string();
    let failed = |e: std::io::Error| fault::io(&shown, "reading failed", &e);
    let mut source = tokio::fs::File::open(file).await.map_err(failed)?;
    let mut upload = store.upload(key)?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        if (&mut source).take(CHUNK as u64).read_to_end(&mut chunk).await.map_err(failed)? == 0 {
            return upload.finish().await;
        }
        upload.write(Bytes::from(chunk)).await?;
    }
}

/// The files below `folder`, relative and with `/`, sorted.
///
/// # Errors
/// A store error for a folder that cannot be listed.
pub fn files_of(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let here = folder.join(&below);
        let failed = |e: std::io::Error| fault::io(&here.display().to_string(), "reading the folder failed", &e);
        for entry in std::fs::read_dir(&here).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = below.join(entry.file_name());
            if std::fs::metadata(entry.path()).map_err(failed)?.is_dir() {
                open.push(path);
            } else {
                let text = path
                    .to_str()
                    .ok_or_else(|| Error::store(entry.path().display(), "the file's name is not UTF-8; rename it"))?;
                found.push(text.to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A folder on this machine with the files of `manifest`: the run's own one when it is on local disk, otherwise
/// one below `cache`, downloaded the first time and verified once per process.
///
/// # Errors
/// A store error when a file is missing, cut short or changed.
pub async fn fetch(store: &Store, manifest: &Manifest, cache: &Path) -> Result<PathBuf> {
    let version = manifest.version()?;
    if let Some(folder) = store.file(&version.prefix()) {
        for file in &manifest.files {
            file.present(store, &version).await?;
        }
        return Ok(folder);
    }
    let wanted: Vec<Wanted> = manifest
        .files
        .iter()
        .map(|file| Wanted { path: file.path.clone(), size: file.size, blake3: Some(file.blake3.clone()) })
        .collect();
    // Two runs may have come to other bytes under one fingerprint, on other processors.
    let mut key = blake3::Hasher::new();
    key.update(version.fingerprint().as_bytes());
    for file in &manifest.files {
        key.update(file.path.as_bytes()).update(file.blake3.as_bytes());
    }
    let slot = Slot::new(cache, key.finalize().to_hex().as_str());
    let (version, source) = (&version, store.name_of(&version.prefix()));
    let get = |folder: PathBuf| async move {
        fetch_into(store, version, "", &manifest.files, &folder).await?;
        Ok(manifest.files.clone())
    };
    slot.fill(&source, &wanted, get).await
}

/// Downloads `files` of `version` into `folder`, without the prefix `below` of their paths, and verifies them.
///
/// # Errors
/// A store error when a file is missing, cut short or changed, or the folder cannot be written.
pub async fn fetch_into(
    store: &Store,
    version: &Version,
    below: &str,
    files: &[FileEntry],
    folder: &Path,
) -> Result<()> {
    for file in files {
        let key = version.key(&file.path);
        let relative = file.path.strip_prefix(below).unwrap_or(&file.path).trim_start_matches('/');
        let target = folder.join(relative);
        let Some(chunks) = store.expected(|| store.read(&key)).await? else {
            file.present(store, version).await?;
            return Err(Error::store(store.name_of(&key), "vanished while it was read; run again"));
        };
        file.compare(store, &key, &save(chunks, &target).await?)?;
    }
    Ok(())
}

/// Writes a stream into the file `target`, with the folders above it, and says what it held.
pub(super) async fn save(mut chunks: BoxStream<'static, Result<Bytes>>, target: &Path) -> Result<Digest> {
    let shown = target.display().to_string();
    let failed = |e: std::io::Error| fault::io(&shown, "writing failed", &e);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut out = tokio::fs::File::create(target).await.map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    while let Some(chunk) = chunks.try_next().await? {
        hasher.update(&chunk);
        out.write_all(&chunk).await.map_err(failed)?;
    }
    out.flush().await.map_err(failed)?;
    Ok(Digest::of(&hasher))
}
