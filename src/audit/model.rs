//! The files of a model version, without loading it.
//!
//! In: a manifest whose files have the right bytes. Out: what no reader of model folders would accept: a header that
//! is none, an index that names a file which is not there, JSON that is not JSON.

use std::collections::BTreeSet;

use safetensors::tensor::Metadata;
use serde_json::Value;

use crate::Result;
use crate::store::{FileEntry, Manifest, Store, Version};

/// The longest header, as the format's own library has it.
const LONGEST_HEADER: u64 = 100_000_000;

/// What is wrong: a file's path and the problem.
///
/// # Errors
/// A store error when a file cannot be read.
pub(super) async fn check(store: &Store, version: &Version, manifest: &Manifest) -> Result<Vec<(String, String)>> {
    let names: BTreeSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    let mut problems = Vec::new();
    if !names.contains("config.json") && !names.contains("adapter_config.json") {
        problems.push(("manifest.json".to_string(), "names neither config.json nor adapter_config.json".to_string()));
    }
    if !names.iter().any(|name| name.ends_with(".safetensors")) {
        problems.push(("manifest.json".to_string(), "names no file of weights".to_string()));
    }
    for file in &manifest.files {
        let problem = if file.path.ends_with(".safetensors") {
            header(store, version, file).await?
        } else if file.path.ends_with(".json") {
            json(store, version, file, &names).await?
        } else {
            None
        };
        problems.extend(problem.map(|problem| (file.path.clone(), problem)));
    }
    Ok(problems)
}

/// Reads the header of a safetensors file only.
async fn header(store: &Store, version: &Version, file: &FileEntry) -> Result<Option<String>> {
    const WORD: u64 = size_of::<u64>() as u64;
    let key = version.key(&file.path);
    let wrong = |why: &str| Ok(Some(format!("is not a safetensors file: {why}")));
    if file.size < WORD {
        return wrong("it is shorter than a header");
    }
    let bytes = store.range(&key, 0..WORD).await?;
    let Some(length) = bytes.first_chunk().map(|word| u64::from_le_bytes(*word)) else {
        return wrong("it is shorter than a header");
    };
    if length > LONGEST_HEADER || WORD + length > file.size {
        return wrong("its header is longer than the file");
    }
    let text = store.range(&key, WORD..WORD + length).await?;
    let metadata: Metadata = match serde_json::from_slice(&text) {
        Ok(metadata) => metadata,
        Err(e) => return wrong(&format!("its header: {e}")),
    };
    let end = metadata.tensors().values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
    match end.checked_add(WORD + length) == Some(file.size) {
        true => Ok(None),
        false => wrong("its header does not describe its length"),
    }
}

async fn json(store: &Store, version: &Version, file: &FileEntry, names: &BTreeSet<&str>) -> Result<Option<String>> {
    let bytes = store.get(&version.key(&file.path)).await?.unwrap_or_default();
    let value: Value = match serde_json::from_slice(&bytes) {
        Ok(value) => value,
        Err(e) => return Ok(Some(format!("is not JSON: {e}"))),
    };
    if !file.path.ends_with(".index.json") {
        return Ok(None);
    }
    let shards = value.get("weight_map").and_then(Value::as_object).into_iter().flat_map(|map| map.values());
    let lost = shards.filter_map(Value::as_str).find(|shard| !names.contains(shard)).map(str::to_string);
    Ok(lost.map(|shard| format!("names {shard}, which the manifest does not")))
}
