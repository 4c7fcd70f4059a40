//! Files at a URL that a command reads: a model folder, prompts, files to import.
//!
//! In: a URL of any store. Out: what is there, known by size and tag without reading it, and a local copy in the cache,
//! fetched once for as long as the objects do not change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::cache::{Slot, Wanted};
use super::folder::save;
use super::place::{self, Place};
use super::{FileEntry, cache_folder, fault, object};
use crate::{Error, Result};

/// Names of model files that only a loaded model needs.
const WEIGHTS: [&str; 9] = ["safetensors", "bin", "pt", "pth", "ckpt", "gguf", "onnx", "h5", "msgpack"];

/// Where the fetched folders of this process came from, so that messages name what the user named.
static FETCHED: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());

/// How a file is named in messages: the URL that it was fetched from, else its path.
pub fn shown(path: &Path) -> String {
    let fetched = FETCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let url = path.ancestors().find_map(|above| Some((fetched.get(above)?, path.strip_prefix(above).ok()?)));
    match url {
        Some((url, below)) if below.as_os_str().is_empty() => url.clone(),
        Some((url, below)) => format!("{url}/{}", below.display()),
        None => path.display().to_string(),
    }
}

/// Whether a text that names a file or a folder is a URL.
pub fn is_url(text: &str) -> bool {
    text.contains("://")
}

/// The file that `text` names, on this machine: a path below `folder`, or that of the fetched copy of a URL.
///
/// # Errors
/// A store error for a URL where there is no such object, or that cannot be read.
pub async fn local(text: &str, folder: &Path) -> Result<PathBuf> {
    if !is_url(text) {
        return Ok(folder.join(text));
    }
    if let Some(path) = on_disk(text) {
        return Ok(path);
    }
    Remote::file(text).await?.fetch_file().await
}

/// The path of a `file://` URL.
fn on_disk(text: &str) -> Option<PathBuf> {
    url::Url::parse(text).ok().filter(|url| url.scheme() == "file")?.to_file_path().ok()
}

/// Objects at a URL as they are now.
#[derive(Debug, Clone)]
pub struct Remote {
    objects: Arc<dyn ObjectStore>,
    url: String,
    files: Vec<Listed>,
    /// Whether the URL is that of one object.
    single: bool,
}

#[derive(Debug, Clone)]
struct Listed {
    /// Relative to the URL's folder.
    path: String,
    location: Key,
    size: u64,
    etag: Option<String>,
    /// What stands for the object's contents: its tag, or when it was written.
    state: String,
}

impl Remote {
    /// The files right below a URL, as a model folder has them.
    ///
    /// # Errors
    /// A store error when there are none, or when the store cannot be read.
    pub async fn folder(url: &str) -> Result<Self> {
        let place = place::find(url, false)?;
        let listed = place.objects.list_with_delimiter(Some(&place.base)).await;
        let listed = listed.map_err(|e| fault::object(&place.shown, "listing", &e))?;
        Remote::of(place, listed.objects).await
    }

    /// The object at a URL.
    ///
    /// # Errors
    /// A store error when there is none, or when the store cannot be read.
    pub async fn file(url: &str) -> Result<Self> {
        let place = place::find(url, false)?;
        let about = place.objects.head(&place.base).await;
        let about = about.map_err(|e| fault::object(&place.shown, "reading", &e))?;
        Remote::single(place, about)
    }

    /// The object at a URL, or all objects below it.
    ///
    /// # Errors
    /// A store error when there are none, or when the store cannot be read.
    pub async fn find(url: &str) -> Result<Self> {
        let place = place::find(url, false)?;
        let failed = |e: object_store::Error| fault::object(&place.shown, "reading", &e);
        if !place.base.is_root() {
            match place.objects.head(&place.base).await {
                Ok(about) => return Remote::single(place, about),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        let listed = place.objects.list(Some(&place.base)).try_collect().await.map_err(failed)?;
        Remote::of(place, listed).await
    }

    fn single(place: Place, about: ObjectMeta) -> Result<Self> {
        let name = about.location.filename().unwrap_or_default().to_string();
        let files = vec![Listed::new(name, about)];
        Ok(Remote { objects: place.objects, url: place.shown, files, single: true })
    }

    async fn of(place: Place, listed: Vec<ObjectMeta>) -> Result<Self> {
        let mut files = Vec::with_capacity(listed.len());
        for mut about in listed {
            let below = about.location.prefix_match(&place.base);
            let path = below.map(|parts| parts.map(|part| part.as_ref().to_string()).collect::<Vec<_>>().join("/"));
            // The object that stands for a folder in some tools.
            let Some(path) = path.filter(|path| !path.is_empty()) else { continue };
            if about.e_tag.is_none() {
                // Not every server lists tags.
                let asked = place.objects.head(&about.location).await;
                about = asked.map_err(|e| fault::object(&format!("{}/{path}", place.shown), "reading", &e))?;
            }
            files.push(Listed::new(path, about));
        }
        if files.is_empty() {
            return Err(Error::store(place.shown, "there are no files at this URL; check it"));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Remote { objects: place.objects, url: place.shown, files, single: false })
    }

    /// The URL, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The names of the files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.path.as_str())
    }

    /// The same without the weights of a model: its configuration, its tokenizer, ...
    pub fn without_weights(&self) -> Remote {
        let light = |file: &&Listed| !is_weights(&file.path);
        Remote { files: self.files.iter().filter(light).cloned().collect(), ..self.clone() }
    }

    /// The checksums of the files, if they were fetched once as they are now.
    pub fn recorded(&self) -> Option<Vec<FileEntry>> {
        self.slot().recorded()
    }

    /// A folder on this machine with these files.
    ///
    /// # Errors
    /// A store error when a file cannot be read or changes meanwhile, or when the cache cannot be written.
    pub async fn fetch(&self) -> Result<PathBuf> {
        let wanted: Vec<Wanted> =
            self.files.iter().map(|file| Wanted { path: file.path.clone(), size: file.size, blake3: None }).collect();
        let folder = self.slot().fill(&self.url, &wanted, |folder| async move { self.download(&folder).await }).await?;
        let path = self.named(&folder);
        FETCHED.lock().unwrap_or_else(PoisonError::into_inner).insert(path, self.url.clone());
        Ok(folder)
    }

    /// The one file of [`Remote::file`], or the folder of the others, on this machine.
    ///
    /// # Errors
    /// As [`Remote::fetch`].
    pub async fn fetch_file(&self) -> Result<PathBuf> {
        Ok(self.named(&self.fetch().await?))
    }

    /// What stands for the URL in the fetched folder: its one file, or the folder.
    fn named(&self, folder: &Path) -> PathBuf {
        match self.files.as_slice() {
            [file] if self.single => folder.join(&file.path),
            _ => folder.to_path_buf(),
        }
    }

    async fn download(&self, folder: &Path) -> Result<Vec<FileEntry>> {
        tracing::info!("{}: fetching {} bytes", self.url, self.size());
        let mut entries = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let name = if self.single { self.url.clone() } else { format!("{}/{}", self.url, file.path) };
            let vanished = || Error::store(&name, "vanished while it was read; run the same command again");
            let chunks = object::read(&self.objects, &file.location, &name, file.etag.as_deref()).await?;
            let digest = save(chunks.ok_or_else(vanished)?, &folder.join(&file.path)).await?;
            if digest.size != file.size {
                let problem =
                    format!("has {} bytes, but its store lists {}; run the same command again", digest.size, file.size);
                return Err(Error::store(&name, problem));
            }
            entries.push(FileEntry::new(file.path.clone(), digest, 0));
        }
        Ok(entries)
    }

    /// Its place in the cache: another one as soon as any object changes.
    fn slot(&self) -> Slot {
        let mut key = blake3::Hasher::new();
        for text in std::iter::once(&self.url).chain(self.files.iter().flat_map(|file| [&file.path, &file.state])) {
            key.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        Slot::new(&cache_folder().join("models"), key.finalize().to_hex().as_str())
    }
}

/// Whether a model file of this name holds weights.
fn is_weights(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| WEIGHTS.contains(&extension))
}

impl Listed {
    fn new(path: String, about: ObjectMeta) -> Self {
        let state = about.e_tag.clone().unwrap_or_else(|| about.last_modified.to_rfc3339());
        let state = format!("{} {state}", about.size);
        Listed { path, location: about.location, size: about.size, etag: about.e_tag, state }
    }
}
