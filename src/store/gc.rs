//! What of a run nothing needs any more, and its removal.
//!
//! In: pointers, manifests, leases, a listing, and how old things must be. Out: [`Litter`] with the reason for each
//! piece; removed in an order in which every moment leaves a run that reads as before.
//!
//! A version stays while a pointer or a live run names it, while such a version was made from it, and while it is
//! young. A run says in its lease which versions it needs before it looks for them, and then waits for a removal
//! that is under way; a removal takes its own lease before it looks for those of runs. Whatever the order, one of
//! them sees the other, so nothing that a run counts on is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::lease::{self, remove};
use super::multipart::{self, Pending};
use super::{Artifact, Claim, Current, Entry, GC, Kind, Lease, Manifest, Store, Version};
use crate::{Error, Result};

/// However young the user lets things be removed, a lease that was renewed this recently holds: clocks of machines and
/// stores differ.
const LEASE_MARGIN: Duration = Duration::from_secs(600);

/// How old things must be before they are removed.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    /// Since a version was committed.
    pub versions: Duration,
    /// Since anything else was written.
    pub others: Duration,
}

/// What a piece of litter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A version that nothing needs.
    Version,
    /// What an attempt left that never committed.
    Attempt,
    /// Files in a version's folder that its manifest does not name.
    Unnamed,
    /// Half-written local files.
    Scratch,
    /// The lease of a process that is gone.
    Lease,
    /// A multipart upload that never ended.
    Upload,
}

impl What {
    /// All kinds, in the order of their removal.
    pub const ALL: [What; 6] = [What::Version, What::Attempt, What::Unnamed, What::Scratch, What::Lease, What::Upload];

    /// One of them or several, in words.
    pub fn words(self, n: usize) -> &'static str {
        match (self, n) {
            (What::Version, 1) => "version",
            (What::Version, _) => "versions",
            (What::Attempt, 1) => "abandoned attempt",
            (What::Attempt, _) => "abandoned attempts",
            (What::Unnamed, 1) => "version with files that no manifest names",
            (What::Unnamed, _) => "versions with files that no manifest names",
            (What::Scratch, 1) => "half-written file",
            (What::Scratch, _) => "half-written files",
            (What::Lease, 1) => "lease",
            (What::Lease, _) => "leases",
            (What::Upload, 1) => "multipart upload",
            (What::Upload, _) => "multipart uploads",
        }
    }
}

/// One piece of litter.
#[derive(Debug, Clone, Serialize)]
pub struct Litter {
    /// What it is.
    pub what: What,
    /// The version's folder or the object, relative to the run.
    pub key: String,
    /// How many objects.
    pub files: usize,
    /// Their bytes; unknown for an upload.
    pub bytes: u64,
    /// Why it can go.
    pub why: String,
    #[serde(skip)]
    keys: Vec<String>,
    #[serde(skip)]
    path: Option<PathBuf>,
    #[serde(skip)]
    upload: Option<Pending>,
}

impl Litter {
    fn of(what: What, key: impl Into<String>, why: String, entries: &[&Entry]) -> Self {
        let mut keys: Vec<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        // The manifest first: without it the version does not exist.
        keys.sort_by_key(|key| !key.ends_with("/manifest.json"));
        let bytes = entries.iter().map(|entry| entry.size).sum();
        Litter { what, key: key.into(), files: keys.len(), bytes, why, keys, path: None, upload: None }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Plan {
    /// What can go, in the order of its removal.
    pub litter: Vec<Litter>,
    /// Versions that nothing needs but that are young, and their bytes.
    pub young: (usize, u64),
    /// Manifests that cannot be read: while there are some, no version is removed, for nobody knows what they name.
    pub unreadable: Vec<String>,
    /// Why multipart uploads were not looked for.
    pub unlisted: Option<String>,
}

/// Finds what can go. Nothing is written.
///
/// # Errors
/// A store error when pointers, leases or listings cannot be read.
pub async fn plan(store: &Store, ages: &Ages) -> Result<Plan> {
    let now = SystemTime::now();
    let age = |modified: SystemTime| now.duration_since(modified).unwrap_or_default();
    let (mut held, mut working, mut plan) = (BTreeSet::new(), BTreeSet::new(), Plan::default());
    let (mut leases, mut litter) = (Vec::new(), Vec::new());
    for found in lease::leases(store).await? {
        let dead = found.holder.as_ref().is_some_and(|holder| holder.is_dead());
        if !dead && age(found.modified) < ages.others.max(LEASE_MARGIN) {
            working.insert(found.work.rsplit('-').next().unwrap_or_default().to_string());
            held.extend(found.keeps);
        } else {
            let holder = found.holder.map_or_else(|| "an unknown process".into(), |holder| holder.to_string());
            let entry = Entry { key: found.key.clone(), size: found.size, modified: found.modified };
            leases.push(Litter::of(What::Lease, found.key, format!("{holder} is gone"), &[&entry]));
        }
    }
    let current = Current::load(store).await?;
    let mut roots = held.clone();
    for (artifact, _, print) in current.all() {
        roots.insert(Version::new(artifact.clone(), print)?.prefix());
    }

    let mut entries = store.list(Kind::Table.folder()).await?;
    entries.extend(store.list(Kind::Model.folder()).await?);
    let mut folders: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in &entries {
        if let Some(prefix) = folder_of(&entry.key) {
            folders.entry(prefix).or_default().push(entry);
        }
    }
    let manifest_of = |prefix: &str, inside: &[&Entry]| {
        inside.iter().find(|entry| entry.key.strip_prefix(prefix) == Some("/manifest.json")).copied().cloned()
    };
    let committed: Vec<(&str, Entry)> =
        folders.iter().filter_map(|(prefix, inside)| Some((*prefix, manifest_of(prefix, inside)?))).collect();
    let read = |(prefix, entry): (&str, Entry)| {
        let prefix = prefix.to_string();
        async move { Ok((Manifest::read(store, &parse(&prefix)?).await, prefix, entry)) }
    };
    let mut manifests = BTreeMap::new();
    for (manifest, prefix, entry) in Store::each(committed, read).await? {
        match manifest {
            Ok(Some(manifest)) => drop(manifests.insert(prefix, (manifest, entry))),
            // Deleted since it was listed.
            Ok(None) => {}
            Err(e) => plan.unreadable.push(e.to_string()),
        }
    }

    let needed = reach(&manifests, roots.clone());
    let young = manifests.iter().filter(|(_, (_, entry))| age(entry.modified) < ages.versions);
    let kept = reach(&manifests, roots.into_iter().chain(young.map(|(prefix, _)| prefix.clone())).collect());
    for (prefix, inside) in &folders {
        let newest = inside.iter().map(|entry| age(entry.modified)).min().unwrap_or_default();
        let print = prefix.rsplit('/').next().unwrap_or_default();
        let busy = held.contains(*prefix) || working.contains(print);
        if let Some((manifest, _)) = manifests.get(*prefix) {
            if kept.contains(*prefix) {
                if !needed.contains(*prefix) {
                    plan.young.0 += 1;
                    plan.young.1 += inside.iter().map(|entry| entry.size).sum::<u64>();
                }
                let named: BTreeSet<String> = manifest
                    .files
                    .iter()
                    .map(|f| format!("{prefix}/{}", f.path))
                    .chain([format!("{prefix}/manifest.json")])
                    .collect();
                let extra: Vec<&Entry> = inside
                    .iter()
                    .filter(|entry| !named.contains(&entry.key) && age(entry.modified) >= ages.others)
                    .copied()
                    .collect();
                if !busy && !extra.is_empty() {
                    litter.push(Litter::of(What::Unnamed, *prefix, "its manifest does not name them".into(), &extra));
                }
            } else if plan.unreadable.is_empty() {
                let why = format!(
                    "no pointer leads to it; stage {} made it, {}",
                    manifest.lineage.stage, manifest.info.started
                );
                litter.push(Litter::of(What::Version, *prefix, why, inside));
            }
        } else if manifest_of(prefix, inside).is_none() && !busy && newest >= ages.others {
            litter.push(Litter::of(
                What::Attempt,
                *prefix,
                "it has no manifest, and nobody works on it".into(),
                inside,
            ));
        }
    }
    let of_a_run = |key: &str| folder_of(key).is_some_and(|prefix| held.contains(prefix));
    litter.extend(scratch(store, ages.others, now).into_iter().filter(|one| !of_a_run(&one.key)));
    litter.extend(leases);
    match multipart::pending(store).await {
        Ok(uploads) => {
            let old = |pending: &Pending| age(pending.initiated) >= ages.others && !of_a_run(&pending.key);
            litter.extend(uploads.into_iter().filter(old).map(|pending| {
                let why = "it began and never ended".to_string();
                Litter { upload: Some(pending.clone()), ..Litter::of(What::Upload, pending.key, why, &[]) }
            }));
        }
        Err(e) => plan.unlisted = Some(e.to_string()),
    }
    litter.sort_by(|a, b| (a.what, &a.key).cmp(&(b.what, &b.key)));
    plan.litter = litter;
    Ok(plan)
}

/// Every version that has a manifest, current or not.
///
/// # Errors
/// A store error when the run cannot be listed.
pub async fn versions(store: &Store) -> Result<Vec<Version>> {
    let mut found = Vec::new();
    for kind in [Kind::Table, Kind::Model] {
        for entry in store.list(kind.folder()).await? {
            if let Some(prefix) = folder_of(&entry.key)
                && entry.key.strip_prefix(prefix) == Some("/manifest.json")
            {
                found.push(parse(prefix)?);
            }
        }
    }
    Ok(found)
}

/// Whatever the roots are or were made from.
fn reach(manifests: &BTreeMap<String, (Manifest, Entry)>, roots: BTreeSet<String>) -> BTreeSet<String> {
    let (mut open, mut seen) = (Vec::from_iter(roots), BTreeSet::new());
    while let Some(prefix) = open.pop() {
        if let Some((manifest, _)) = manifests.get(&prefix) {
            open.extend(
                manifest.lineage.versions().into_iter().map(|version| version.prefix()).filter(|p| !seen.contains(p)),
            );
        }
        seen.insert(prefix);
    }
    seen
}

/// `tables/<name>/<fingerprint>` of a key below it.
fn folder_of(key: &str) -> Option<&str> {
    let end = key.match_indices('/').nth(2)?.0;
    key.get(..end)
}

fn parse(prefix: &str) -> Result<Version> {
    let mut parts = prefix.split('/');
    let (kind, name, print) = (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let kind = if kind == Some(Kind::Table.folder()) { Kind::Table } else { Kind::Model };
    Version::new(Artifact { kind, name: name.into() }, print)
}

/// Files that a local write left half-done and that nobody may be writing any more.
fn scratch(store: &Store, older: Duration, now: SystemTime) -> Vec<Litter> {
    let Some(root) = store.folder() else { return Vec::new() };
    let folders = ["tables", "models", "current", "runs", lease::FOLDER].map(|name| root.join(name));
    let mut found = Vec::new();
    for (path, meta) in half_done(folders.to_vec()) {
        let key = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        // What is no version's is written in no time, by anybody.
        let of_version = folder_of(&key).is_some() && !key.starts_with("current/");
        let wanted = if of_version { older } else { older.max(LEASE_MARGIN) };
        if !meta.modified().is_ok_and(|at| now.duration_since(at).unwrap_or_default() >= wanted) {
            continue;
        }
        let litter = Litter::of(What::Scratch, key, "a write was interrupted".to_string(), &[]);
        found.push(Litter { files: 1, bytes: meta.len(), path: Some(path), ..litter });
    }
    found
}

/// Removes what interrupted local writes left of `versions`. The caller holds the lease of the stage that makes them, so
/// nobody else writes there. What cannot be removed stays for [`plan`].
pub fn sweep<'a>(store: &Store, versions: impl IntoIterator<Item = &'a Version>) {
    let Some(root) = store.folder() else { return };
    for (path, _) in half_done(versions.into_iter().map(|version| root.join(version.prefix())).collect()) {
        if let Err(e) = std::fs::remove_file(&path) {
            tracing::warn!("{}: cannot be removed ({e}); it was left by an interrupted write", path.display());
        }
    }
}

/// The files below `open` that a local write left half-done: `part-00000.parquet#1`. Listings leave them out.
fn half_done(mut open: Vec<PathBuf>) -> Vec<(PathBuf, std::fs::Metadata)> {
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
            if meta.is_dir() {
                open.push(path);
            } else if is_scratch(&path) {
                found.push((path, meta));
            }
        }
    }
    found
}

fn is_scratch(path: &Path) -> bool {
    let suffix = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('#'));
    suffix.is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The right to remove; runs that begin wait for its end.
///
/// # Errors
/// A store error, also when another process removes from this run.
pub async fn begin(store: &Store) -> Result<Lease> {
    let taken = Claim::new(store, GC).take().await?;
    taken.map_err(|holder| Error::store(store, format!("salmon gc runs here already ({holder}); wait for its end")))
}

/// Removes one piece; `lease` is that of [`begin`].
///
/// # Errors
/// A store error; also when the lease was lost, for then a run may have begun.
pub async fn clear(store: &Store, lease: &Lease, litter: &Litter) -> Result<()> {
    if lease.is_lost() {
        return Err(Error::store(store, "the lease of salmon gc was lost; nothing more is removed, run it again"));
    }
    if let Some(path) = &litter.path {
        return match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(super::fault::io(&path.display().to_string(), "deleting failed", &e))
            }
            _ => Ok(()),
        };
    }
    if let Some(pending) = &litter.upload {
        return multipart::abort(store, pending).await;
    }
    let mut keys = litter.keys.clone();
    if let Some(first) = keys.first().filter(|key| key.ends_with("/manifest.json")).cloned() {
        remove(store, &first).await?;
        keys.remove(0);
    }
    Store::each(keys, |key: String| async move { remove(store, &key).await }).await.map(drop)
}
