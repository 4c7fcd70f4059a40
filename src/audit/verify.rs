//! Whether a run is what its manifests say.
//!
//! In: the store of a run. Out: every file read and compared, every table's columns and rows counted, every model's
//! headers read; a [`Problem`] for whatever is wrong. A problem never stops the rest.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use serde::Serialize;

use super::{accounts, model};
use crate::stage::fingerprint;
use crate::store::{self, Current, FileEntry, Kind, Manifest, Store, Version};
use crate::{Error, Result, table};

/// Files that are read at once.
const AT_ONCE: usize = 4;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The object's or version's URL.
    pub place: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let place = error.place().to_string();
        let problem = text.strip_prefix(&format!("{place}: ")).unwrap_or(&text).to_string();
        Problem { place, problem }
    }
}

/// What was looked at, and what is wrong with it.
#[derive(Debug, Default, Serialize)]
pub struct Verified {
    /// Versions.
    pub versions: usize,
    /// Their files.
    pub files: usize,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// A version to look at, and the stages whose pointers name it.
type Wanted = BTreeMap<Version, Vec<String>>;

/// Looks at every current version, or with `all` at every version; `read` is told the bytes read and those to read.
///
/// # Errors
/// A store error when the run cannot be listed, or its pointers cannot be read.
pub async fn verify(store: &Store, all: bool, read: &dyn Fn(u64, u64)) -> Result<Verified> {
    let mut verified = Verified::default();
    let (current, damaged) = Current::load_each(store).await?;
    verified.problems.extend(damaged.into_iter().map(Problem::from));
    let mut wanted = Wanted::new();
    for (artifact, stage, print) in current.all() {
        match Version::new(artifact.clone(), print) {
            Ok(version) => wanted.entry(version).or_default().push(stage.to_string()),
            Err(e) => verified.problems.push(e.into()),
        }
    }
    if all {
        for version in store::versions(store).await? {
            wanted.entry(version).or_default();
        }
    }
    let mut manifests = Vec::new();
    for (version, stages) in &wanted {
        match Manifest::read(store, version).await {
            Ok(Some(manifest)) => manifests.push((version.clone(), manifest)),
            Ok(None) => verified.problems.push(Problem {
                place: store.name_of(&version.key("manifest.json")),
                problem: format!("is missing although it is current; `salmon run {}` makes it again", stages.join(" ")),
            }),
            Err(e) => verified.problems.push(e.into()),
        }
    }
    let total: u64 = manifests.iter().flat_map(|(_, manifest)| &manifest.files).map(|file| file.size).sum();
    // Those with a problem: what was made from them cannot be accounted for.
    let mut broken = BTreeSet::new();
    for (version, manifest) in &manifests {
        verified.versions += 1;
        verified.files += manifest.files.len();
        let found = contents(store, version, manifest, &mut verified.bytes, total, read).await?;
        if !found.is_empty() {
            broken.insert(version.clone());
        }
        verified.problems.extend(found);
    }
    let known: BTreeSet<&Version> = manifests.iter().map(|(version, _)| version).collect();
    for (version, manifest) in manifests.iter().filter(|(version, _)| !broken.contains(version)) {
        if version.artifact().kind == Kind::Table {
            let whole = |input: &Version| known.contains(input) && !broken.contains(input);
            let place = store.name_of(&version.prefix());
            match accounts::check(store, manifest, whole).await {
                Ok(lines) => verified.problems.extend(lines.into_iter().map(|line| Problem {
                    place: place.clone(),
                    problem: format!("{line}; run stage {} again with --force", manifest.lineage.stage),
                })),
                Err(e) => {
                    verified.problems.push(Problem { place, problem: format!("its rows cannot be counted: {e}") })
                }
            }
        }
    }
    Ok(verified)
}

/// Everything about one version that needs no other one.
async fn contents(
    store: &Store,
    version: &Version,
    manifest: &Manifest,
    done: &mut u64,
    total: u64,
    read: &dyn Fn(u64, u64),
) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let place = store.name_of(&version.key("manifest.json"));
    let mut wrong = |place: String, problem: String| problems.push(Problem { place, problem });
    let stage = &manifest.lineage.stage;
    if fingerprint(&manifest.lineage)? != manifest.fingerprint {
        wrong(place.clone(), format!("its lineage has another fingerprint; run stage {stage} again with --force"));
    }
    if manifest.info.rows != manifest.rows() {
        wrong(place.clone(), format!("says {} rows, but its files have {}", manifest.info.rows, manifest.rows()));
    }
    let mut intact = Vec::new();
    let read_one = |file| async move { (file, FileEntry::verify(file, store, version).await) };
    let mut files = futures::stream::iter(manifest.files.iter().map(read_one)).buffered(AT_ONCE);
    while let Some((file, found)) = files.next().await {
        match found {
            Ok(()) => intact.push(file),
            Err(e) => {
                let Problem { place, problem } = e.into();
                wrong(place, problem);
            }
        }
        *done += file.size;
        read(*done, total);
    }
    drop(files);
    match version.artifact().kind {
        Kind::Table => match table::by_name(&version.artifact().name) {
            None => wrong(place, "is of a table that this salmon does not have".into()),
            Some(table) => {
                if !manifest.has_columns(&table.schema()) {
                    let problem = format!(
                        "has other columns than table {} has in this salmon; run stage {stage} again with --force",
                        table.name
                    );
                    wrong(place, problem);
                }
                for file in intact {
                    if let Some(problem) = part(store, version, manifest, file).await {
                        wrong(store.name_of(&version.key(&file.path)), problem);
                    }
                }
            }
        },
        Kind::Model if intact.len() == manifest.files.len() => {
            for (file, problem) in model::check(store, version, manifest).await? {
                wrong(store.name_of(&version.key(&file)), format!("{problem}; run stage {stage} again with --force"));
            }
        }
        Kind::Model => {}
    }
    Ok(problems)
}

/// What is wrong with a part of a table.
async fn part(store: &Store, version: &Version, manifest: &Manifest, file: &FileEntry) -> Option<String> {
    let (schema, rows) = match store::part_facts(store, version, file).await {
        Ok(facts) => facts,
        Err(e) => return Some(Problem::from(e).problem),
    };
    if rows != file.rows {
        return Some(format!("has {rows} rows, but its manifest says {}", file.rows));
    }
    match manifest.has_columns(&schema) {
        true => None,
        false => Some("has other columns than its manifest says".into()),
    }
}
