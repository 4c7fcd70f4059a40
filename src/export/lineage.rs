//! Where a version comes from, for its card.
//!
//! In: a manifest. Out: it and every version it was made from, each once, inputs first; and what came from outside
//! of the run by its hash.

use std::collections::BTreeSet;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;

use crate::Result;
use crate::store::{Artifact, Kind, Manifest, Store, Version, short};

/// One table or model.
#[derive(Debug, Clone, Serialize)]
pub struct Ancestor {
    /// `table` or `model`.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The version's fingerprint; for what is from outside, the hash of its files.
    pub fingerprint: String,
    /// The stage that made it; `None` for what is from outside of the run.
    pub stage: Option<String>,
    /// Rows of a table.
    pub rows: Option<u64>,
    /// When its stage began, UTC.
    pub started: Option<String>,
    /// What it was made from, by name.
    pub inputs: Vec<String>,
    /// The files of the user's that the stage read, by the first characters of their blake3.
    pub files: Vec<String>,
}

/// All of them, inputs before what was made from them.
#[derive(Debug, Default, Serialize)]
pub struct Ancestry {
    /// The versions.
    pub versions: Vec<Ancestor>,
    #[serde(skip)]
    seen: BTreeSet<String>,
}

impl Ancestry {
    /// The ancestry of these versions, which come last.
    ///
    /// # Errors
    /// A store error for a manifest that cannot be read.
    pub async fn of(store: &Store, manifests: &[Manifest]) -> Result<Self> {
        let mut ancestry = Ancestry::default();
        for manifest in manifests {
            ancestry.add(store, manifest.clone()).await?;
        }
        Ok(ancestry)
    }

    fn add<'a>(&'a mut self, store: &'a Store, manifest: Manifest) -> BoxFuture<'a, Result<()>> {
        async move {
            if !self.seen.insert(manifest.version()?.prefix()) {
                return Ok(());
            }
            let lineage = &manifest.lineage;
            let tables = lineage.inputs.iter().map(|(name, print)| (Kind::Table, name, print));
            let models = lineage.models.iter().map(|(name, print)| (Kind::Model, name, print));
            let mut inputs = Vec::new();
            for (kind, name, print) in tables.chain(models) {
                inputs.push(name.clone());
                // `metrics/sft` is what stage sft made of a table that several stages make.
                let bare = name.split('/').next().unwrap_or(name);
                let version = Version::new(Artifact { kind, name: bare.into() }, print.as_str())?;
                match Manifest::read(store, &version).await? {
                    Some(input) => self.add(store, input).await?,
                    None if self.seen.insert(version.prefix()) => self.versions.push(Ancestor {
                        kind,
                        name: name.clone(),
                        fingerprint: print.clone(),
                        stage: None,
                        rows: None,
                        started: None,
                        inputs: vec![],
                        files: vec![],
                    }),
                    None => {}
                }
            }
            let files = lineage.parameters.get("files").and_then(serde_json::Value::as_array);
            let files = files
                .into_iter()
                .flatten()
                .filter_map(|hash| Some(format!("file {}", short(hash.as_str()?))))
                .collect();
            self.versions.push(Ancestor {
                kind: manifest.kind,
                name: manifest.name.clone(),
                fingerprint: manifest.fingerprint.clone(),
                stage: Some(lineage.stage.clone()),
                rows: (manifest.kind == Kind::Table).then(|| manifest.rows()),
                started: Some(manifest.info.started.clone()),
                inputs,
                files,
            });
            Ok(())
        }
        .boxed()
    }
}
