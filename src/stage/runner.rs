//! Runs what is missing, in order, and nothing else.
//!
//! In: a graph, a store, which stages are wanted. Out: for every wanted stage either the versions that exist
//! already or new ones, committed. A fingerprint follows from a stage's recipe and the fingerprints of its inputs,
//! so the state of the whole graph is known before anything runs ([`plan`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::turns::Turns;
use super::{Graph, Job, Known, Progress, Silent, Stage, Stop, difference, fingerprint};
use crate::store::cache_folder;
use crate::store::{Artifact, Current, Earlier, Info, Kind, Lineage, Made, Manifest, Record, Store, Version};
use crate::table;
use crate::{Error, Result};

/// What to run and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Stages to bring up to date, with everything they need; all when empty.
    pub select: Vec<String>,
    /// Stages to run even when they are cached. What depends on them stays cached: the same recipe makes the same
    /// version.
    pub force: Vec<String>,
    /// Where models of runs that are not on local disk are kept; the user's cache folder when `None`.
    pub cache: Option<PathBuf>,
    /// Other runs whose versions and rows are taken where they are what a stage would make.
    pub reuse: Vec<Store>,
}

/// Whether a stage has to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its versions exist.
    Cached,
    /// The run of this URL has its versions; they are copied from there.
    Copy(String),
    /// It runs, and why.
    Run(String),
}

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The stage.
    pub stage: String,
    /// The fingerprint of what it makes.
    pub fingerprint: String,
    /// Whether it runs.
    pub state: State,
    /// How many of its rows are known, where that can be said before it runs.
    pub known: Option<Known>,
}

/// A stage with its place in the store worked out.
pub(super) struct Resolved<'a> {
    pub(super) stage: &'a Stage,
    pub(super) lineage: Lineage,
    pub(super) fingerprint: String,
    pub(super) inputs: BTreeMap<Artifact, Vec<Version>>,
    pub(super) outputs: BTreeMap<Artifact, Version>,
    pub(super) state: State,
}

impl From<Resolved<'_>> for Planned {
    fn from(r: Resolved<'_>) -> Self {
        Planned { stage: r.stage.name.clone(), fingerprint: r.fingerprint, state: r.state, known: None }
    }
}

/// What [`run`] would do, without doing it.
///
/// # Errors
/// A configuration error for an unknown stage or an input that nothing makes; a store error when the store
/// cannot be read or a manifest is damaged.
pub async fn plan(graph: &Graph, store: &Store, options: &Options) -> Result<Vec<Planned>> {
    let current = Current::load(store).await?;
    let mut planned = Vec::new();
    for resolved in resolve(graph, store, &current, options).await? {
        let known = preview(&resolved, store, options).await?;
        planned.push(Planned { known, ..Planned::from(resolved) });
    }
    Ok(planned)
}

/// How many rows of a stage that would run are known; `None` before its inputs are there.
async fn preview(resolved: &Resolved<'_>, store: &Store, options: &Options) -> Result<Option<Known>> {
    let (State::Run(_), Some(preview)) = (&resolved.state, &resolved.stage.preview) else { return Ok(None) };
    for version in resolved.inputs.values().flatten() {
        if Manifest::read(store, version).await?.is_none() {
            return Ok(None);
        }
    }
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    preview(Arc::new(job(resolved, store, options, &progress, &Stop::new()).await?)).await
}

/// Brings the wanted stages up to date. Gives what was planned, all of it done, by this runner or by another one that
/// worked on the same run meanwhile ([`turns`](super::turns)).
///
/// # Errors
/// As [`plan`]; the first error of a stage; an interruption when `stop` was asked. Stages that were committed
/// before stay, and the next run goes on behind them.
pub async fn run(
    graph: &Graph,
    store: &Store,
    options: &Options,
    progress: Arc<dyn Progress>,
    stop: &Stop,
) -> Result<Vec<Planned>> {
    let current = Current::load(store).await?;
    let resolved = resolve(graph, store, &current, options).await?;
    if resolved.iter().all(|r| r.state == State::Cached) && changes(graph, options, &current, &resolved).is_empty() {
        resolved.iter().for_each(|r| progress.cached(&r.stage.name));
        return Ok(resolved.into_iter().map(Planned::from).collect());
    }
    let turns = Turns { graph, store, options, progress: &progress, stop };
    let lease = turns.begin(&resolved).await?;
    // Again, for what was there may have been removed before the lease said that it is needed.
    let done = async {
        let current = Current::load(store).await?;
        turns.all(resolve(graph, store, &current, options).await?, current).await
    };
    let done = done.await;
    lease.release().await;
    done
}

/// Fingerprints and states of the wanted stages, in order.
async fn resolve<'a>(
    graph: &'a Graph,
    store: &Store,
    current: &Current,
    options: &Options,
) -> Result<Vec<Resolved<'a>>> {
    let selected = graph.select(&options.select)?;
    for name in &options.force {
        if !selected.contains(&graph.index(name)?) {
            return Err(Error::config(
                format!("stage {name}"),
                "is forced but not among the stages to run; name it too",
            ));
        }
    }
    let mut prints: BTreeMap<usize, String> = BTreeMap::new();
    let mut resolved = Vec::new();
    for index in selected {
        let stage = &graph.stages()[index];
        let mut lineage = stage.recipe.clone();
        let mut inputs = BTreeMap::new();
        for input in &stage.inputs {
            let made: Vec<(&str, &str)> = match graph.makers(input) {
                [] => current.versions(input).collect(),
                makers => makers
                    .iter()
                    .filter_map(|maker| Some((graph.stages()[*maker].name.as_str(), prints.get(maker)?.as_str())))
                    .collect(),
            };
            if made.is_empty() {
                return Err(Error::config(
                    format!("stage {}", stage.name),
                    format!("needs {input}, which no stage makes and the run does not have; import it first"),
                ));
            }
            let into = if input.kind == Kind::Table { &mut lineage.inputs } else { &mut lineage.models };
            for (maker, print) in &made {
                let key = if made.len() == 1 { input.name.clone() } else { format!("{}/{maker}", input.name) };
                into.insert(key, print.to_string());
            }
            let version = |(_, print): &(&str, &str)| Version::new(input.clone(), *print);
            inputs.insert(input.clone(), made.iter().map(version).collect::<Result<Vec<_>>>()?);
        }
        let print = fingerprint(&lineage)?;
        prints.insert(index, print.clone());
        let output = |artifact: &Artifact| Ok((artifact.clone(), Version::new(artifact.clone(), &print)?));
        let outputs = stage.outputs.iter().map(output).collect::<Result<BTreeMap<_, _>>>()?;
        let state = state(stage, store, current, &lineage, &outputs, options).await?;
        resolved.push(Resolved { stage, lineage, fingerprint: print, inputs, outputs, state });
    }
    Ok(resolved)
}

/// Cached when every output has its manifest; otherwise the reason, against the version that is current.
async fn state(
    stage: &Stage,
    store: &Store,
    current: &Current,
    lineage: &Lineage,
    outputs: &BTreeMap<Artifact, Version>,
    options: &Options,
) -> Result<State> {
    if options.force.contains(&stage.name) {
        return Ok(State::Run("forced".into()));
    }
    let missing = missing(store, outputs).await?;
    if missing == 0 {
        return Ok(State::Cached);
    }
    for other in &options.reuse {
        let mut there = true;
        for version in outputs.values() {
            there = there && Manifest::read(other, version).await?.is_some();
        }
        if there {
            return Ok(State::Copy(other.url().to_string()));
        }
    }
    for (artifact, version) in outputs {
        let Some(before) = current.fingerprint(artifact, &stage.name) else { continue };
        if before == version.fingerprint() {
            continue;
        }
        return Ok(State::Run(match Manifest::read(store, &Version::new(artifact.clone(), before)?).await {
            Ok(Some(before)) => difference(lineage, &before.lineage),
            Ok(None) => "the version before it is gone".into(),
            Err(e) => format!("the version before it cannot be read: {e}"),
        }));
    }
    let began = missing < outputs.len() || outputs.keys().any(|a| current.fingerprint(a, &stage.name).is_some());
    Ok(State::Run(if began { "its last attempt did not finish".into() } else { "no version yet".into() }))
}

/// How many of a stage's versions do not exist.
pub(super) async fn missing(store: &Store, outputs: &BTreeMap<Artifact, Version>) -> Result<usize> {
    let mut missing = 0;
    for version in outputs.values() {
        missing += usize::from(Manifest::read(store, version).await?.is_none());
    }
    Ok(missing)
}

/// Runs one stage and commits what it made: tables first, the model last.
pub(super) async fn execute(
    resolved: &Resolved<'_>,
    store: &Store,
    options: &Options,
    progress: &Arc<dyn Progress>,
    stop: &Stop,
) -> Result<()> {
    let stage = resolved.stage;
    if options.force.contains(&stage.name) {
        for version in resolved.outputs.values() {
            version.discard(store).await?;
        }
    }
    let (mut info, began) = (Info::begin(), Instant::now());
    let job = Arc::new(job(resolved, store, options, progress, stop).await?);
    if let Err(e) = (stage.run)(Arc::clone(&job)).await {
        return Err(diagnose(e, &job).await);
    }
    info.seconds = began.elapsed().as_secs_f64();
    let mut written = std::mem::take(&mut *job.written.lock().unwrap_or_else(PoisonError::into_inner));
    let mut manifests = Vec::with_capacity(resolved.outputs.len());
    // Artifacts sort tables before models.
    for (artifact, version) in &resolved.outputs {
        let files = written.remove(artifact).ok_or_else(|| {
            Error::internal(format!("stage {}", stage.name), format!("returned without writing {artifact}"))
        })?;
        let schema =
            (artifact.kind == Kind::Table).then(|| table::by_name(&artifact.name)).flatten().map(|t| t.schema());
        let rows = files.iter().map(|file| file.rows).sum();
        let info = Info { rows, ..info.clone() };
        manifests.push(Manifest::new(version, files, schema.as_deref(), resolved.lineage.clone(), info));
    }
    for manifest in &manifests {
        manifest.publish(store).await?;
    }
    for version in resolved.outputs.values() {
        sweep(store, version).await;
    }
    info.rows = manifests.iter().map(Manifest::rows).sum();
    let made =
        |m: &Manifest| Made { kind: m.kind, name: m.name.clone(), fingerprint: m.fingerprint.clone(), rows: m.rows() };
    let mut read = resolved.lineage.inputs.clone();
    read.extend(resolved.lineage.models.clone());
    progress.finished(&stage.name, info.rows, info.seconds);
    Record::new(&stage.name, manifests.iter().map(made).collect(), read, info).write(store).await
}

/// What the stage works with: the manifests of its inputs, and the versions it is to make.
async fn job(
    resolved: &Resolved<'_>,
    store: &Store,
    options: &Options,
    progress: &Arc<dyn Progress>,
    stop: &Stop,
) -> Result<Job> {
    let mut inputs = BTreeMap::new();
    for (artifact, versions) in &resolved.inputs {
        let mut manifests = Vec::with_capacity(versions.len());
        for version in versions {
            manifests.push(Manifest::expected(store, version).await?.ok_or_else(|| {
                Error::store(store.url(), format!("{version} is gone; run the stage that makes it again"))
            })?);
        }
        inputs.insert(artifact.clone(), manifests);
    }
    Ok(Job {
        store: store.clone(),
        lineage: resolved.lineage.clone(),
        inputs,
        outputs: resolved.outputs.clone(),
        written: Mutex::new(BTreeMap::new()),
        stop: stop.clone(),
        progress: Arc::clone(progress),
        cache: options.cache.clone().unwrap_or_else(default_cache),
        others: options.reuse.clone(),
        forced: options.force.contains(&resolved.stage.name),
    })
}

/// Takes a stage's versions from another run: tables first, the model last.
pub(super) async fn copy(
    resolved: &Resolved<'_>,
    from: &str,
    to: &Store,
    options: &Options,
    progress: &Arc<dyn Progress>,
) -> Result<()> {
    let (name, began) = (&resolved.stage.name, Instant::now());
    let vanished = || Error::store(from, format!("what stage {name} would make vanished from it; run again"));
    let from = options.reuse.iter().find(|other| other.url() == from).ok_or_else(vanished)?;
    progress.started(name, &format!("copied from {from}"));
    let mut rows = 0;
    for version in resolved.outputs.values() {
        let manifest = Manifest::read(from, version).await?.ok_or_else(vanished)?;
        rows += manifest.rows();
        Earlier { store: from.clone(), manifest }.copy(to).await?;
    }
    progress.finished(name, rows, began.elapsed().as_secs_f64());
    Ok(())
}

/// DataFusion does not say which file it could not decode; the manifests' checksums do.
async fn diagnose(error: Error, job: &Job) -> Error {
    if error.to_string().contains("Parquet error") {
        for manifest in job.inputs.values().flatten() {
            if let Err(damage) = manifest.verify(&job.store).await {
                return damage;
            }
        }
    }
    error
}

/// Removes the shard markers and checkpoints of a committed version. They are only in the way, so a failure is
/// noted and nothing more.
async fn sweep(store: &Store, version: &Version) {
    for below in ["shards", "checkpoints"] {
        if let Err(e) = store.delete_below(&version.key(below)).await {
            tracing::warn!("{version} is committed, but its {below} were not removed: {e}");
        }
    }
}

/// A pointer to set, or without a fingerprint, to forget.
pub(super) type Change = (Artifact, String, Option<String>);

/// What the pointers lack to be those of this configuration: every wanted stage's versions, and nothing of stages that
/// the configuration no longer has, so that `metrics` and the like hold this configuration's rows only. What a stage
/// reads from outside the graph, and imports, stay.
pub(super) fn changes(graph: &Graph, options: &Options, current: &Current, wanted: &[Resolved<'_>]) -> Vec<Change> {
    let mut changes = Vec::new();
    for resolved in wanted {
        let (name, print) = (&resolved.stage.name, &resolved.fingerprint);
        let moved = resolved.outputs.keys().filter(|a| current.fingerprint(a, name) != Some(print));
        changes.extend(moved.map(|artifact| (artifact.clone(), name.clone(), Some(print.clone()))));
    }
    if options.select.is_empty() {
        let stages: BTreeSet<&str> = graph.stages().iter().map(|stage| stage.name.as_str()).collect();
        let read: BTreeSet<&Artifact> =
            graph.stages().iter().flat_map(|s| &s.inputs).filter(|input| graph.makers(input).is_empty()).collect();
        let stale = current.all().filter(|(artifact, stage, _)| {
            !stages.contains(stage) && !read.contains(artifact) && !stage.starts_with("import")
        });
        changes.extend(stale.map(|(artifact, stage, _)| (artifact.clone(), stage.to_string(), None)));
    }
    changes
}

fn default_cache() -> PathBuf {
    cache_folder().join("models")
}
