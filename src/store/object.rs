//! Objects by key, relative to the run's URL.
//!
//! In: keys such as `tables/prompts/3f2a/part-00000.parquet`. Out: bytes, streams and listings. Every method
//! fails with one line that names the object's URL; none ever shows a credential.

use std::fmt;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, PutMode};

use super::again::{self, again};
use super::named::Named;
use super::place::{self, Place};
use super::upload::Upload;
use super::{Digest, fault};
use crate::{Error, Result};

/// How many small requests run at once.
const CONCURRENT: usize = 8;
/// A larger object is read in ranges of this size, several at once: as one request it could not end before its timeout.
const RANGE: u64 = 16 << 20;
/// Ranges that are on their way.
const RANGES: usize = 4;

/// One run, on whatever store its URL names. Cloning is cheap.
#[derive(Clone)]
pub struct Store {
    place: Arc<Place>,
}

/// One listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key, relative to the run.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written, by the store's clock.
    pub modified: SystemTime,
}

impl fmt::Debug for Store {
    /// The URL only: the stores below print what they were built from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.place.shown).finish()
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place.shown)
    }
}

impl Store {
    /// Opens the run at `url`: a path, `file://`, `s3://`, `gs://`, `az://` or `memory://`. A local folder is
    /// created when it is missing. Credentials, region and endpoint come from the environment (`AWS_*`,
    /// `GOOGLE_*`, `AZURE_*`) and from AWS profiles; `AWS_ENDPOINT_URL` chooses another S3 server (addressed
    /// path-style). `docs/storage.md` lists them.
    ///
    /// # Errors
    /// A configuration error for a URL that is not understood or that holds credentials; a store error when the
    /// path is a file or may not be made.
    pub fn open(url: &str) -> Result<Self> {
        Ok(Store { place: Arc::new(place::find(url, true)?) })
    }

    /// Opens a run for reading: nothing is created.
    ///
    /// # Errors
    /// As [`Store::open`], and a store error when there is no run at `url`.
    pub async fn open_existing(url: &str) -> Result<Self> {
        let store = Store { place: Arc::new(place::find(url, false)?) };
        let (base, objects) = (&store.place.base, &store.place.objects);
        if let Some(folder) = store.folder() {
            // One look, where a listing would walk through what is in it.
            let mut entries = std::fs::read_dir(folder)
                .map_err(|e| fault::io(&store.place.shown, "the run's folder cannot be opened", &e))?;
            if entries.next().is_some() {
                return Ok(store);
            }
        }
        match objects.list(Some(base)).next().await {
            Some(Ok(_)) => Ok(store),
            Some(Err(e)) => Err(fault::object(&store.place.shown, "listing", &e)),
            None => Err(Error::store(&store, "holds no run; check the URL, or make one with `salmon run`")),
        }
    }

    /// The run's URL, without credentials.
    pub fn url(&self) -> &str {
        &self.place.shown
    }

    /// The run's folder when it is on this machine's disk.
    pub fn folder(&self) -> Option<&FsPath> {
        self.place.folder.as_deref()
    }

    /// The file of `key` when the run is on this machine's disk.
    pub(super) fn file(&self, key: &str) -> Option<PathBuf> {
        self.place.folder.as_ref().map(|folder| folder.join(key))
    }

    /// The store below, for those who read what a manifest names.
    pub(super) fn named(&self) -> Arc<dyn ObjectStore> {
        let objects = Arc::clone(&self.place.objects);
        if self.at_once() { objects } else { Arc::new(Named(objects)) }
    }

    /// Whether the store shows at once what was written: a disk or memory.
    fn at_once(&self) -> bool {
        self.place.folder.is_some() || self.place.root.scheme() == "memory"
    }

    pub(super) fn root(&self) -> &url::Url {
        &self.place.root
    }

    /// The URL of an object, for errors.
    pub(crate) fn name_of(&self, key: &str) -> String {
        format!("{}/{key}", self.place.shown)
    }

    /// The full path of a key in the store below.
    pub(super) fn path(&self, key: &str) -> Result<Path> {
        let base = self.place.base.as_ref();
        let full = if base.is_empty() { key.to_string() } else { format!("{base}/{key}") };
        Path::parse(full).map_err(|e| Error::store(self.name_of(key), "is not a key inside the run").because(e))
    }

    /// The object's bytes, or `None` when there is no such object.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let path = self.path(key)?;
        let read = || async { self.place.objects.get(&path).await?.bytes().await };
        match again(read).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(fault::object(&self.name_of(key), "reading", &e)),
        }
    }

    /// Some bytes of an object that is there.
    pub async fn range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let found = self.place.objects.get_range(&self.path(key)?, range).await;
        found.map_err(|e| fault::object(&self.name_of(key), "reading", &e))
    }

    /// The object's size in bytes, or `None` when there is no such object.
    pub async fn size(&self, key: &str) -> Result<Option<u64>> {
        let path = self.path(key)?;
        match again(|| self.place.objects.head(&path)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(fault::object(&self.name_of(key), "reading", &e)),
        }
    }

    /// Reads, with some patience, what must be there.
    pub(super) async fn expected<T, F>(&self, read: impl Fn() -> F) -> Result<Option<T>>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        again::expected(self.at_once(), read).await
    }

    /// The object as a stream of chunks, or `None` when there is no such object.
    pub async fn read(&self, key: &str) -> Result<Option<BoxStream<'static, Result<Bytes>>>> {
        read(&self.place.objects, &self.path(key)?, &self.name_of(key), None).await
    }

    /// Size and blake3 of the object, read as a stream, or `None` when there is no such object.
    pub async fn digest(&self, key: &str) -> Result<Option<Digest>> {
        let Some(mut chunks) = self.read(key).await? else { return Ok(None) };
        let mut hasher = blake3::Hasher::new();
        while let Some(chunk) = chunks.try_next().await? {
            hasher.update(&chunk);
        }
        Ok(Some(Digest::of(&hasher)))
    }

    /// Writes the object in one go; whoever reads it sees the old bytes or the new ones.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Result<()> {
        let put = self.place.objects.put(&self.path(key)?, bytes.into().into()).await;
        put.map(drop).map_err(|e| fault::object(&self.name_of(key), "writing", &e))
    }

    /// Writes the object unless it exists; false when another one did.
    ///
    /// When the answer to a put that was carried out is lost, the next one finds the object there: then its bytes say
    /// whose it is.
    pub async fn put_if_absent(&self, key: &str, bytes: impl Into<Bytes>) -> Result<bool> {
        let (path, bytes) = (self.path(key)?, bytes.into());
        let put = || self.place.objects.put_opts(&path, bytes.clone().into(), PutMode::Create.into());
        match again(put).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => {
                Ok(self.expected(|| self.get(key)).await?.is_some_and(|found| found == bytes))
            }
            Err(e) => Err(fault::object(&self.name_of(key), "writing", &e)),
        }
    }

    /// Starts a streaming write. Nothing is visible under `key` before [`Upload::finish`].
    pub fn upload(&self, key: &str) -> Result<Upload> {
        Ok(Upload::new(Arc::clone(&self.place.objects), self.path(key)?, self.name_of(key)))
    }

    /// All objects below `prefix`, by key. A prefix that does not exist is empty.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let path = self.path(prefix)?;
        let listed: Vec<_> = again(|| self.place.objects.list(Some(&path)).try_collect())
            .await
            .map_err(|e| fault::object(&self.name_of(prefix), "listing", &e))?;
        let skip = if self.place.base.is_root() { 0 } else { self.place.base.as_ref().len() + 1 };
        let mut entries: Vec<Entry> = listed
            .into_iter()
            .filter_map(|meta| {
                let key = meta.location.as_ref().get(skip..)?.to_string();
                Some(Entry { key, size: meta.size, modified: meta.last_modified.into() })
            })
            .collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    /// Deletes the object; one that is gone already is fine.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let path = self.path(key)?;
        match again(|| self.place.objects.delete(&path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(fault::object(&self.name_of(key), "deleting", &e)),
        }
    }

    /// Deletes everything below `prefix`.
    pub async fn delete_below(&self, prefix: &str) -> Result<()> {
        let keys: Vec<String> = self.list(prefix).await?.into_iter().map(|entry| entry.key).collect();
        Store::each(keys, |key: String| async move { self.delete(&key).await }).await.map(drop)
    }

    /// Runs `work` on every item, a few at a time, and gives the results in order.
    pub(super) async fn each<I, T, F>(items: Vec<I>, work: impl Fn(I) -> F) -> Result<Vec<T>>
    where
        F: Future<Output = Result<T>>,
    {
        futures::stream::iter(items.into_iter().map(work)).buffered(CONCURRENT).try_collect().await
    }
}

/// The object at `path`, shown as `name`, as a stream of chunks; `None` when there is none. With `tag`, a store that has
/// tags gives the object only while it is the tagged one.
pub(super) async fn read(
    objects: &Arc<dyn ObjectStore>,
    path: &Path,
    name: &str,
    tag: Option<&str>,
) -> Result<Option<BoxStream<'static, Result<Bytes>>>> {
    let wanted = GetOptions { if_match: tag.map(str::to_string), ..GetOptions::default() };
    let found = match again(|| objects.get_opts(path, wanted.clone())).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(object_store::Error::Precondition { .. }) => return Err(changed(name)),
        Err(e) => return Err(fault::object(name, "reading", &e)),
    };
    let failed = {
        let name = name.to_string();
        move |e: object_store::Error| match e {
            object_store::Error::Precondition { .. } => changed(&name),
            e => fault::object(&name, "reading", &e),
        }
    };
    let (size, etag) = (found.meta.size, found.meta.e_tag.clone());
    if size <= RANGE || matches!(found.payload, GetResultPayload::File(..)) {
        return Ok(Some(found.into_stream().map_err(failed).boxed()));
    }
    // The request is given up before its body comes.
    drop(found);
    let (objects, path) = (Arc::clone(objects), path.clone());
    let ranges = futures::stream::iter((0..size).step_by(RANGE as usize)).map(move |start| {
        let range = Some(GetRange::Bounded(start..size.min(start + RANGE)));
        // All ranges must be of one object.
        let options = GetOptions { range, if_match: etag.clone(), ..GetOptions::default() };
        let (objects, path) = (Arc::clone(&objects), path.clone());
        async move { objects.get_opts(&path, options).await?.bytes().await }
    });
    Ok(Some(ranges.buffered(RANGES).map_err(failed).boxed()))
}

fn changed(name: &str) -> Error {
    Error::store(name, "changed while it was read; run the same command again")
}
