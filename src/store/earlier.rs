//! Versions that a stage may take from instead of working again.
//!
//! In: the stores to look in, a table or model, and what a version's lineage has to be. Out: the committed versions
//! that fit, each found whole; or one of them copied from another run, file by file with its checksums.

use futures::TryStreamExt;

use super::{Artifact, Digest, Lineage, Manifest, Store, Version};
use crate::{Error, Result};

/// A committed version and the run that holds it.
#[derive(Debug, Clone)]
pub struct Earlier {
    /// The run.
    pub store: Store,
    /// The version.
    pub manifest: Manifest,
}

/// The versions of `artifact` in `stores` whose lineage `fits`, in the order of the stores and of their fingerprints.
/// One that is damaged or not whole is passed over with a warning: what it holds is made again.
///
/// # Errors
/// A store error when a store cannot be listed.
pub async fn earlier(stores: &[Store], artifact: &Artifact, fits: impl Fn(&Lineage) -> bool) -> Result<Vec<Earlier>> {
    let mut found = Vec::new();
    for store in stores {
        for version in versions_of(store, artifact).await? {
            let manifest = match Manifest::read(store, &version).await {
                Ok(Some(manifest)) if fits(&manifest.lineage) => manifest,
                Ok(_) => continue,
                Err(damage) => {
                    tracing::warn!("nothing is taken from it: {damage}");
                    continue;
                }
            };
            match manifest.verify(store).await {
                Ok(()) => found.push(Earlier { store: store.clone(), manifest }),
                Err(damage) => tracing::warn!("nothing is taken from {version}: {damage}"),
            }
        }
    }
    Ok(found)
}

/// The committed versions of `artifact`, by fingerprint.
///
/// # Errors
/// A store error when the store cannot be listed.
pub async fn versions_of(store: &Store, artifact: &Artifact) -> Result<Vec<Version>> {
    let prefix = format!("{}/{}", artifact.kind.folder(), artifact.name);
    let listed = store.list(&prefix).await?;
    let print =
        |key: &str| Some(key.strip_prefix(&prefix)?.strip_prefix('/')?.strip_suffix("/manifest.json")?.to_string());
    listed.iter().filter_map(|entry| print(&entry.key)).map(|print| Version::new(artifact.clone(), print)).collect()
}

impl Earlier {
    /// Makes the version one of `to`: every file is copied and compared with its checksum, then the manifest is published.
    ///
    /// # Errors
    /// A store error when a file is missing or changed here, or cannot be written there.
    pub async fn copy(&self, to: &Store) -> Result<()> {
        let version = self.manifest.version()?;
        for file in &self.manifest.files {
            let key = version.key(&file.path);
            let gone = || Error::store(self.store.name_of(&key), "vanished while it was copied; run again");
            let mut chunks = self.store.read(&key).await?.ok_or_else(gone)?;
            let mut hasher = blake3::Hasher::new();
            let mut upload = to.upload(&key)?;
            while let Some(chunk) = chunks.try_next().await? {
                hasher.update(&chunk);
                upload.write(chunk).await?;
            }
            // An upload that is dropped leaves nothing behind.
            file.compare(&self.store, &key, &Digest::of(&hasher))?;
            upload.finish().await?;
        }
        self.manifest.publish(to).await
    }
}
