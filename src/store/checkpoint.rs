//! Checkpoints of a trainer, so that a killed training goes on where it was.
//!
//! In: a folder with everything the trainer needs to go on (weights, optimizer, schedule, data position). Out:
//! `checkpoints/step-<n>/...` below the version, committed by a marker `checkpoints/step-<n>.json` that is written
//! last. The last two are kept: the newest may be damaged by whatever killed the trainer, the one before it is not.

use std::path::Path;

use super::folder::{fetch_into, upload_folder};
use super::manifest::Marker;
use super::{Store, Version, fault};
use crate::Result;

/// How many checkpoints stay.
const KEPT: usize = 2;

/// The checkpoint area of one version being trained.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    store: Store,
    version: Version,
}

impl Checkpoints {
    /// The checkpoints of `version`.
    pub fn new(store: &Store, version: &Version) -> Self {
        Checkpoints { store: store.clone(), version: version.clone() }
    }

    /// Commits the files in `folder` as the checkpoint after `step`, then removes all but the last two.
    ///
    /// # Errors
    /// A store error; the checkpoint does not exist then, and earlier ones do.
    pub async fn save(&self, step: u64, folder: &Path) -> Result<()> {
        let files = upload_folder(&self.store, &self.version, &below(step), folder).await?;
        let key = self.marker(step);
        let marker = Marker::new(step, 0, files);
        marker.write(&self.store, &key).await?;
        let steps = self.steps().await?;
        for &old in steps.iter().rev().skip(KEPT) {
            self.store.delete(&self.marker(old)).await?;
            self.store.delete_below(&self.version.key(&below(old))).await?;
        }
        Ok(())
    }

    /// Puts the newest checkpoint that is intact into the empty folder `folder` and gives its step, or `None`
    /// when there is none.
    ///
    /// # Errors
    /// A store error when the store cannot be read or `folder` cannot be written.
    pub async fn restore(&self, folder: &Path) -> Result<Option<u64>> {
        for &step in self.steps().await?.iter().rev() {
            let Some(marker) = Marker::read(&self.store, &self.marker(step)).await? else { continue };
            let fetched = fetch_into(&self.store, &self.version, &below(step), &marker.files, folder).await;
            let Err(failure) = fetched else { return Ok(Some(step)) };
            // A full disk here or a store that is down must not cost a checkpoint that is fine.
            if marker.intact(&self.store, &self.version).await? {
                return Err(failure);
            }
            let clear = || std::fs::remove_dir_all(folder).and_then(|()| std::fs::create_dir_all(folder));
            clear()
                .map_err(|e| fault::io(&folder.display().to_string(), "the scratch folder cannot be emptied", &e))?;
        }
        Ok(None)
    }

    /// The committed steps, oldest first.
    pub async fn steps(&self) -> Result<Vec<u64>> {
        let prefix = self.version.key("checkpoints");
        let listed = self.store.list(&prefix).await?;
        let step = |key: &str| key.strip_prefix(&prefix)?.strip_prefix("/step-")?.strip_suffix(".json")?.parse().ok();
        let mut steps: Vec<u64> = listed.iter().filter_map(|entry| step(&entry.key)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    fn marker(&self, step: u64) -> String {
        self.version.key(&format!("{}.json", below(step)))
    }
}

fn below(step: u64) -> String {
    format!("checkpoints/step-{step:08}")
}
