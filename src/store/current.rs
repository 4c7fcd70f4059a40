//! Which version of each table and model is current.
//!
//! In: the versions a run's last configuration made or found. Out: one small pointer object per output of a
//! stage, `current/tables/<name>/<stage>.json`. A table that several stages add to (`metrics`, `rollouts`) has
//! one pointer for each of them and is their union. Pointers are separate objects so that two runners never
//! overwrite each other's, and going back to an older configuration only moves pointers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::manifest::FORMAT;
use super::{Artifact, Kind, Manifest, Store, Version, check_name};
use crate::{Error, Result};

#[derive(Serialize, Deserialize)]
struct Pointer {
    format: u64,
    fingerprint: String,
}

/// The current versions of a run.
#[derive(Debug, Clone, Default)]
pub struct Current {
    /// Per table or model: the stages that make it and the fingerprint of each one's current version.
    pointers: BTreeMap<Artifact, BTreeMap<String, String>>,
}

impl Current {
    /// Reads all pointers of the run.
    ///
    /// # Errors
    /// A store error when a pointer cannot be read.
    pub async fn load(store: &Store) -> Result<Self> {
        let (current, damaged) = Current::load_each(store).await?;
        damaged.into_iter().next().map_or(Ok(current), Err)
    }

    /// Reads the pointers to one table or model only.
    ///
    /// # Errors
    /// As [`Current::load`].
    pub async fn of(store: &Store, artifact: &Artifact) -> Result<Self> {
        let below = format!("current/{}/{}", artifact.kind.folder(), artifact.name);
        let (current, damaged) = Current::load_below(store, &below).await?;
        damaged.into_iter().next().map_or(Ok(current), Err)
    }

    /// Reads all pointers; a damaged one is left out and told.
    ///
    /// # Errors
    /// A store error when the store cannot be read.
    pub async fn load_each(store: &Store) -> Result<(Self, Vec<Error>)> {
        Current::load_below(store, "current").await
    }

    async fn load_below(store: &Store, prefix: &str) -> Result<(Self, Vec<Error>)> {
        let keys: Vec<String> = store.list(prefix).await?.into_iter().map(|entry| entry.key).collect();
        let read = |key: String| async move {
            let Some(bytes) = store.get(&key).await? else { return Ok(None) };
            let damaged = |e| Error::store(store.name_of(&key), "is damaged; delete it and run again").because(e);
            let pointer = serde_json::from_slice::<Pointer>(&bytes).map_err(damaged).and_then(|pointer| {
                if pointer.format > FORMAT {
                    return Err(Error::store(store.name_of(&key), "was written by a newer salmon; update salmon"));
                }
                Ok(pointer)
            });
            Ok(Some((key, pointer)))
        };
        let (mut current, mut damaged) = (Current::default(), Vec::new());
        for (key, pointer) in Store::each(keys, read).await?.into_iter().flatten() {
            match (parse(&key), pointer) {
                (Some((artifact, stage)), Ok(pointer)) => {
                    current.pointers.entry(artifact).or_default().insert(stage, pointer.fingerprint);
                }
                (Some(_), Err(e)) => damaged.push(e),
                (None, _) => {}
            }
        }
        Ok((current, damaged))
    }

    /// The current version that `stage` made of `artifact`.
    pub fn fingerprint(&self, artifact: &Artifact, stage: &str) -> Option<&str> {
        self.pointers.get(artifact)?.get(stage).map(String::as_str)
    }

    /// All current versions of `artifact`: (stage, fingerprint) in the stages' alphabetical order.
    pub fn versions(&self, artifact: &Artifact) -> impl Iterator<Item = (&str, &str)> {
        self.pointers.get(artifact).into_iter().flatten().map(|(stage, print)| (stage.as_str(), print.as_str()))
    }

    /// Every pointer: (artifact, stage, fingerprint).
    pub fn all(&self) -> impl Iterator<Item = (&Artifact, &str, &str)> {
        self.pointers.iter().flat_map(|(artifact, by_stage)| {
            by_stage.iter().map(move |(stage, print)| (artifact, stage.as_str(), print.as_str()))
        })
    }

    /// The manifests of all current versions of `artifact`. A pointer whose version was discarded is skipped.
    ///
    /// # Errors
    /// A store error when a manifest is damaged.
    pub async fn manifests(&self, store: &Store, artifact: &Artifact) -> Result<Vec<Manifest>> {
        let prints: Vec<String> = self.versions(artifact).map(|(_, print)| print.to_string()).collect();
        let read = |print| async move { Manifest::read(store, &Version::new(artifact.clone(), print)?).await };
        Ok(Store::each(prints, read).await?.into_iter().flatten().collect())
    }

    /// Makes `fingerprint` the current version that `stage` made of `artifact`; writes only what changes.
    pub async fn set(&mut self, store: &Store, artifact: &Artifact, stage: &str, fingerprint: &str) -> Result<()> {
        if self.fingerprint(artifact, stage) == Some(fingerprint) {
            return Ok(());
        }
        let pointer = Pointer { format: FORMAT, fingerprint: fingerprint.to_string() };
        let text = serde_json::to_string(&pointer).map_err(|e| Error::internal("store", "a pointer").because(e))?;
        store.put(&key(artifact, stage)?, text).await?;
        self.pointers.entry(artifact.clone()).or_default().insert(stage.to_string(), pointer.fingerprint);
        Ok(())
    }

    /// Forgets the pointer of `stage` to `artifact`; the versions stay.
    pub async fn remove(&mut self, store: &Store, artifact: &Artifact, stage: &str) -> Result<()> {
        store.delete(&key(artifact, stage)?).await?;
        if let Some(by_stage) = self.pointers.get_mut(artifact) {
            by_stage.remove(stage);
        }
        Ok(())
    }
}

fn key(artifact: &Artifact, stage: &str) -> Result<String> {
    check_name("name", &artifact.name)?;
    check_name("stage", stage)?;
    Ok(format!("current/{}/{}/{stage}.json", artifact.kind.folder(), artifact.name))
}

/// `current/tables/metrics/sft.json` -> (table metrics, sft).
fn parse(key: &str) -> Option<(Artifact, String)> {
    let mut parts = key.strip_prefix("current/")?.split('/');
    let (folder, name, file) = (parts.next()?, parts.next()?, parts.next()?);
    let kind = [Kind::Table, Kind::Model].into_iter().find(|kind| kind.folder() == folder)?;
    Some((Artifact { kind, name: name.to_string() }, file.strip_suffix(".json")?.to_string()))
}
