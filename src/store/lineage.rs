//! What a version was made from.
//!
//! In: the parts that decide a stage's result. Out: a [`Lineage`], whose hash is the version's fingerprint and
//! whose comparison with an older one says why a stage runs again (both in [`crate::stage`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Artifact, Kind, Version};

/// Everything that decides the rows or weights a stage makes. Two equal lineages make equal bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The stage.
    pub stage: String,
    /// The version of the stage's code; raised when the same parameters begin to make other bytes.
    pub version: u32,
    /// The SQL text, when there is one.
    #[serde(default)]
    pub sql: Option<String>,
    /// The parameters it reads, as nested objects: `{"judge": {"temperature": 0.7}}`.
    #[serde(default)]
    pub parameters: serde_json::Map<String, Value>,
    /// The seed, for a stage that draws.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Tables and files read, with their fingerprints.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// Models used, with their fingerprints.
    #[serde(default)]
    pub models: BTreeMap<String, String>,
    /// Template texts by name.
    #[serde(default)]
    pub templates: BTreeMap<String, String>,
}

impl Lineage {
    /// The versions it names, tables first; what came from outside of the run is among them and has no manifest.
    pub fn versions(&self) -> Vec<Version> {
        self.named().into_iter().map(|(_, version)| version).collect()
    }

    /// The same with the names that the lineage has for them: `metrics/sft` is what stage sft made of a table that
    /// several stages make.
    pub fn named(&self) -> Vec<(&str, Version)> {
        let tables = self.inputs.iter().map(|(name, print)| (Kind::Table, name, print));
        let models = self.models.iter().map(|(name, print)| (Kind::Model, name, print));
        let version = |(kind, name, print): (Kind, &'_ String, &String)| {
            let bare = name.split('/').next().unwrap_or(name);
            Version::new(Artifact { kind, name: bare.into() }, print.as_str()).ok()
        };
        tables.chain(models).filter_map(|one| Some((one.1.as_str(), version(one)?))).collect()
    }
}

/// `value` as JSON text that does not depend on the order in which keys were inserted.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let inner: Vec<String> = entries
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        leaf => leaf.to_string(),
    }
}
