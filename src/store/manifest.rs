//! The manifest of one version: its only commit point.
//!
//! In: the files an attempt wrote, and what they were made from. Out: `manifest.json`, published with a
//! conditional put after every file. A version exists when its manifest does; readers take the list of files
//! from it and never from a listing, so what a dead attempt left behind is invisible.

use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Artifact, Kind, Lineage, Store, Version};
use crate::{Error, Result};

/// The format this code writes and reads.
pub(super) const FORMAT: u64 = 1;
/// Stands in for the checksum while it is computed.
const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Size and blake3 of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Bytes.
    pub size: u64,
    /// blake3 in hex.
    pub blake3: String,
}

impl Digest {
    pub(super) fn of(hasher: &blake3::Hasher) -> Self {
        Digest { size: hasher.count(), blake3: hasher.finalize().to_hex().to_string() }
    }
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path below the version's folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// blake3 in hex.
    pub blake3: String,
    /// Rows, for a part of a table.
    #[serde(default)]
    pub rows: u64,
}

impl FileEntry {
    /// The entry of a file just written.
    pub fn new(path: impl Into<String>, digest: Digest, rows: u64) -> Self {
        FileEntry { path: path.into(), size: digest.size, blake3: digest.blake3, rows }
    }

    /// Reads the file and compares it with this entry.
    ///
    /// # Errors
    /// A store error that says whether the file is missing, cut short or changed.
    pub async fn verify(&self, store: &Store, version: &Version) -> Result<()> {
        let key = version.key(&self.path);
        let found = store.expected(|| store.digest(&key)).await?.ok_or_else(|| missing(store, &key))?;
        self.compare(store, &key, &found)
    }

    pub(super) fn compare(&self, store: &Store, key: &str, found: &Digest) -> Result<()> {
        if found.size != self.size {
            return Err(wrong_size(store, key, self.size, found.size));
        }
        if found.blake3 != self.blake3 {
            return Err(Error::store(
                store.name_of(key),
                format!(
                    "checksum mismatch: the manifest says {}, the file has {}; run its stage again with --force",
                    super::short(&self.blake3),
                    super::short(&found.blake3)
                ),
            ));
        }
        Ok(())
    }

    /// Checks that the file is there with its size, without reading it.
    pub(super) async fn present(&self, store: &Store, version: &Version) -> Result<()> {
        let key = version.key(&self.path);
        match store.expected(|| store.size(&key)).await? {
            None => Err(missing(store, &key)),
            Some(size) if size != self.size => Err(wrong_size(store, &key, self.size, size)),
            Some(_) => Ok(()),
        }
    }
}

fn missing(store: &Store, key: &str) -> Error {
    Error::store(store.name_of(key), "is missing although a manifest names it; run its stage again with --force")
}

fn wrong_size(store: &Store, key: &str, expected: u64, found: u64) -> Error {
    Error::store(
        store.name_of(key),
        format!("has {found} bytes, but its manifest says {expected}; run its stage again with --force"),
    )
}

/// One column of a table, as it was when the version was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnEntry {
    /// Its name.
    pub name: String,
    /// Its Arrow type, as Arrow prints it.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether values may be missing.
    pub nullable: bool,
}

/// The columns of `schema` as a manifest holds them.
pub(super) fn columns_of(schema: &Schema) -> Vec<ColumnEntry> {
    let entry = |field: &arrow::datatypes::FieldRef| ColumnEntry {
        name: field.name().clone(),
        data_type: field.data_type().to_string(),
        nullable: field.is_nullable(),
    };
    schema.fields().iter().map(entry).collect()
}

/// How the version came about; for information, in no fingerprint and in no comparison.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Rows of a table, 0 for a model.
    pub rows: u64,
    /// Wall-clock seconds of the stage, in the process that committed it.
    pub seconds: f64,
    /// When that process began it: UTC, RFC 3339.
    pub started: String,
    /// That machine's name.
    pub host: String,
    /// salmon's version.
    pub version: String,
}

/// Everything known about one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of this file.
    pub format: u64,
    /// Table or model.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The version's fingerprint, the hash of `lineage`.
    pub fingerprint: String,
    /// Its files, in the order in which a table's rows are read.
    pub files: Vec<FileEntry>,
    /// A table's columns.
    #[serde(default)]
    pub schema: Option<Vec<ColumnEntry>>,
    /// What it was made from.
    pub lineage: Lineage,
    /// How it came about.
    pub info: Info,
    /// blake3 of this file with this field as zeros.
    pub checksum: String,
}

impl Manifest {
    /// The manifest of `version`; `schema` for a table.
    pub fn new(
        version: &Version,
        files: Vec<FileEntry>,
        schema: Option<&Schema>,
        lineage: Lineage,
        info: Info,
    ) -> Self {
        Manifest {
            format: FORMAT,
            kind: version.artifact().kind,
            name: version.artifact().name.clone(),
            fingerprint: version.fingerprint().to_string(),
            files,
            schema: schema.map(columns_of),
            lineage,
            info,
            checksum: NO_CHECKSUM.to_string(),
        }
    }

    /// The version it describes.
    ///
    /// # Errors
    /// A configuration error when its name is not one.
    pub fn version(&self) -> Result<Version> {
        Version::new(Artifact { kind: self.kind, name: self.name.clone() }, &self.fingerprint)
    }

    /// Rows of all files.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Publishes the manifest: from here on the version exists.
    ///
    /// Another process may have published the same version meanwhile; with the same files that is fine.
    ///
    /// # Errors
    /// A store error, also when the version exists with other files.
    pub async fn publish(&self, store: &Store) -> Result<()> {
        let version = self.version()?;
        let key = version.key("manifest.json");
        // One that was read, to be copied, is sealed already.
        let open = Manifest { checksum: NO_CHECKSUM.to_string(), ..self.clone() };
        let text = seal(store, &key, &open)?;
        if store.put_if_absent(&key, text).await? {
            return Ok(());
        }
        match Manifest::expected(store, &version).await? {
            Some(other) if other.files == self.files => Ok(()),
            _ => Err(Error::store(
                store.name_of(&key),
                "another process committed this version with other bytes; run the stage again with --force, one process at a time",
            )),
        }
    }

    /// The manifest of `version`, or `None` when there is no such version.
    ///
    /// # Errors
    /// A store error when it cannot be read, is damaged, or comes from a newer salmon.
    pub async fn read(store: &Store, version: &Version) -> Result<Option<Manifest>> {
        let key = version.key("manifest.json");
        let Some(bytes) = store.get(&key).await? else { return Ok(None) };
        let manifest: Manifest = unseal(store, &key, &bytes)?;
        if manifest.version().ok().as_ref() != Some(version) {
            return Err(damaged(store, &key, "it describes another version"));
        }
        // A path that leaves the folder would let a manifest point anywhere.
        for file in &manifest.files {
            store.path(&version.key(&file.path))?;
        }
        Ok(Some(manifest))
    }

    /// The manifest of a version that is known to exist: as [`Manifest::read`], with patience for a store that does not
    /// show at once what was written.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub async fn expected(store: &Store, version: &Version) -> Result<Option<Manifest>> {
        store.expected(|| Manifest::read(store, version)).await
    }

    /// Reads every file and compares sizes and checksums.
    ///
    /// # Errors
    /// A store error for the first file that is missing or differs.
    pub async fn verify(&self, store: &Store) -> Result<()> {
        let version = self.version()?;
        let version = &version;
        let check = |file: FileEntry| async move { file.verify(store, version).await };
        Store::each(self.files.clone(), check).await.map(drop)
    }

    /// Whether the columns are those of `schema`.
    pub fn has_columns(&self, schema: &Schema) -> bool {
        self.schema.as_deref() == Some(&columns_of(schema))
    }
}

impl Version {
    /// Un-commits the version and deletes everything below its folder; the manifest goes first.
    pub async fn discard(&self, store: &Store) -> Result<()> {
        store.delete(&self.key("manifest.json")).await?;
        store.delete_below(&self.prefix()).await
    }
}

/// `value` as JSON text with its `checksum` filled in.
fn seal(store: &Store, key: &str, value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::internal(store.name_of(key), "cannot be written as JSON").because(e))?;
    let sum = blake3::hash(text.as_bytes()).to_hex();
    // The checksum is the last field, so the last run of zeros is its place.
    match text.rfind(NO_CHECKSUM) {
        Some(at) => Ok(format!("{}{sum}{}", &text[..at], &text[at + NO_CHECKSUM.len()..])),
        None => Err(Error::internal(store.name_of(key), "has no place for a checksum")),
    }
}

/// Reads a sealed JSON object: checks its format number and its checksum.
fn unseal<T: DeserializeOwned>(store: &Store, key: &str, bytes: &[u8]) -> Result<T> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| damaged(store, key, &e.to_string()))?;
    let format = value.get("format").and_then(Value::as_u64).unwrap_or(0);
    if format > FORMAT {
        return Err(Error::store(
            store.name_of(key),
            format!("was written by a newer salmon (format {format}, this one reads up to {FORMAT}); update salmon"),
        ));
    }
    let sum = value.get("checksum").and_then(Value::as_str).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    let sealed = match text.rfind(sum) {
        Some(at) if sum.len() == NO_CHECKSUM.len() => {
            let zeroed = format!("{}{NO_CHECKSUM}{}", &text[..at], &text[at + sum.len()..]);
            blake3::hash(zeroed.as_bytes()).to_hex().as_str() == sum
        }
        _ => false,
    };
    if !sealed {
        return Err(damaged(store, key, "its checksum does not match"));
    }
    serde_json::from_value(value).map_err(|e| damaged(store, key, &e.to_string()))
}

fn damaged(store: &Store, key: &str, why: &str) -> Error {
    Error::store(store.name_of(key), format!("is damaged ({why}); delete it and run again"))
}

/// The fields a marker of a shard or checkpoint holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) format: u64,
    /// Which shard or step.
    pub(super) number: u64,
    /// Of how many shards; 0 for a checkpoint.
    pub(super) of: u64,
    pub(super) files: Vec<FileEntry>,
    pub(super) checksum: String,
}

impl Marker {
    pub(super) fn new(number: u64, of: u64, files: Vec<FileEntry>) -> Self {
        Marker { format: FORMAT, number, of, files, checksum: NO_CHECKSUM.to_string() }
    }

    /// Writes it under `key`, which commits what it names.
    pub(super) async fn write(&self, store: &Store, key: &str) -> Result<()> {
        store.put(key, seal(store, key, self)?).await
    }

    /// The marker at `key`; `None` when there is none or it is damaged. A store that cannot be read is an error.
    pub(super) async fn read(store: &Store, key: &str) -> Result<Option<Self>> {
        let Some(bytes) = store.get(key).await? else { return Ok(None) };
        Ok(unseal(store, key, &bytes).inspect_err(|e| tracing::warn!("made again: {e}")).ok())
    }

    /// Whether every file it names is there unchanged. A store that cannot be read is an error.
    pub(super) async fn intact(&self, store: &Store, version: &Version) -> Result<bool> {
        for file in &self.files {
            let key = version.key(&file.path);
            let found = store.digest(&key).await?;
            if !found.is_some_and(|found| found.size == file.size && found.blake3 == file.blake3) {
                tracing::warn!("made again: {} is damaged", store.name_of(&key));
                return Ok(false);
            }
        }
        Ok(true)
    }
}
