//! A run as its readers see it.
//!
//! In: a run's store. Out: what of it is only half there, what it holds, and rows that are there twice. It goes through
//! salmon's own reader: manifests and pointers, and the files that they name.

use std::collections::BTreeMap;

use salmon::catalog::Catalog;
use salmon::store::{Artifact, Current, Manifest, Store, Version, records};
use serde_json::Value;

use crate::Failure;

/// What a run has committed: manifests without what differs between attempts, pointers as they are.
pub type Committed = BTreeMap<String, String>;

/// Versions that have a manifest.
async fn versions(store: &Store) -> Result<Vec<Version>, Failure> {
    let mut found = Vec::new();
    for entry in store.list("").await? {
        let parts: Vec<&str> = entry.key.split('/').collect();
        let artifact = match parts.as_slice() {
            ["tables", name, _, "manifest.json"] => Artifact::table(*name),
            ["models", name, _, "manifest.json"] => Artifact::model(*name),
            _ => continue,
        };
        found.push(Version::new(artifact, parts[2])?);
    }
    Ok(found)
}

/// Everything visible that is not whole, one line each.
///
/// # Errors
/// When the store itself cannot be listed.
pub async fn half_visible(store: &Store) -> Result<Vec<String>, Failure> {
    let mut bad = Vec::new();
    for version in versions(store).await? {
        match Manifest::read(store, &version).await {
            Ok(Some(manifest)) => bad.extend(manifest.verify(store).await.err().map(|e| e.to_string())),
            Ok(None) => bad.push(format!("{version}: its manifest vanished")),
            Err(e) => bad.push(e.to_string()),
        }
    }
    match Current::load(store).await {
        Ok(current) => {
            for (artifact, stage, print) in current.all() {
                let version = Version::new(artifact.clone(), print)?;
                if !matches!(Manifest::read(store, &version).await, Ok(Some(_))) {
                    bad.push(format!("the pointer of {stage} to {version}: there is no such version"));
                }
            }
        }
        Err(e) => bad.push(e.to_string()),
    }
    bad.extend(records(store).await.err().map(|e| e.to_string()));
    Ok(bad)
}

/// What is committed. The bytes of parts and models are in it as the checksums of their manifests, which
/// [`half_visible`] holds against the files.
pub async fn committed(store: &Store) -> Result<Committed, Failure> {
    let mut found = Committed::new();
    for version in versions(store).await? {
        let key = version.key("manifest.json");
        let bytes = store.get(&key).await?.unwrap_or_default();
        let mut value: Value = serde_json::from_slice(&bytes)?;
        if let Some(map) = value.as_object_mut() {
            map.remove("info");
            map.remove("checksum");
        }
        found.insert(key, value.to_string());
    }
    for entry in store.list("current").await? {
        let bytes = store.get(&entry.key).await?.unwrap_or_default();
        found.insert(entry.key, String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(found)
}

/// Objects that are missing, differ, or should not be there.
pub fn losses(found: &Committed, wanted: &Committed) -> Vec<String> {
    let missing = wanted.keys().filter(|key| !found.contains_key(*key)).map(|key| format!("{key} is missing"));
    let other = found.iter().filter_map(|(key, text)| match wanted.get(key) {
        None => Some(format!("{key} is not in the uninterrupted run")),
        Some(wanted) if wanted != text => Some(format!("{key} differs")),
        Some(_) => None,
    });
    missing.chain(other).collect()
}

/// Rows of every table beyond its distinct ones.
pub async fn repeated(store: &Store) -> Result<BTreeMap<String, i64>, Failure> {
    let context = Catalog::of(vec![(None, store.clone())], &Default::default())?.session()?;
    let mut found = BTreeMap::new();
    for table in salmon::table::all().iter().filter(|table| table.name != "runs") {
        let rows = context.table(table.name).await?;
        let (all, distinct) = (rows.clone().count().await?, rows.distinct()?.count().await?);
        found.insert(table.name.to_string(), all as i64 - distinct as i64);
    }
    Ok(found)
}
