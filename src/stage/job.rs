//! What a stage gets to work with.
//!
//! In: the versions of its inputs and the versions it is to make. Out: files under those versions, which the runner
//! commits when the stage has returned. A stage reaches nothing that its [`Stage`](super::Stage) does not declare,
//! so its fingerprint covers everything it read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;
use futures::{Stream, StreamExt};

use super::{Known, Progress, Scratch, Stop};
use crate::store::{
    self, Artifact, Checkpoints, Earlier, FileEntry, Info, Kind, Limits, Lineage, Manifest, Shards, Store, TableSink,
    Version,
};
use crate::table;
use crate::{Error, Result};

/// One execution of a stage.
#[derive(Debug)]
pub struct Job {
    pub(super) store: Store,
    pub(super) lineage: Lineage,
    pub(super) inputs: BTreeMap<Artifact, Vec<Manifest>>,
    pub(super) outputs: BTreeMap<Artifact, Version>,
    /// What the stage has written, by output.
    pub(super) written: Mutex<BTreeMap<Artifact, Vec<FileEntry>>>,
    pub(super) stop: Stop,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) cache: PathBuf,
    /// Other runs whose versions and rows may be taken.
    pub(super) others: Vec<Store>,
    /// Whether the stage is to work as if there were no earlier versions.
    pub(super) forced: bool,
}

impl Job {
    /// The run's store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The stage's name.
    pub fn stage(&self) -> &str {
        &self.lineage.stage
    }

    /// Everything that decides this job's bytes.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Whether the run is to stop; look at it between commits.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Says how far the stage is, what earlier attempts finished included.
    pub fn advance(&self, done: u64, total: Option<u64>, unit: &str) {
        tracing::debug!(stage = self.stage(), done, total, unit, "advanced");
        self.progress.advanced(self.stage(), done, total, unit);
    }

    /// Says how many of a stage's rows are known from earlier versions.
    pub fn known(&self, known: Known) {
        self.progress.known(self.stage(), known);
    }

    /// Versions of output table `name` that are committed already, in this run and in those it may take from, and
    /// whose lineage `fits`; none for a stage that is forced. The rows of a stage must not depend on them: they are a way
    /// to them that is shorter.
    ///
    /// # Errors
    /// As [`store::earlier`].
    pub async fn earlier(&self, name: &str, fits: impl Fn(&Lineage) -> bool) -> Result<Vec<Earlier>> {
        let artifact = Artifact::table(name);
        let own = self.output(&artifact)?;
        if self.forced {
            return Ok(vec![]);
        }
        let stores: Vec<Store> = std::iter::once(&self.store).chain(&self.others).cloned().collect();
        let found = store::earlier(&stores, &artifact, fits).await?;
        Ok(found.into_iter().filter(|other| other.manifest.fingerprint != own.fingerprint()).collect())
    }

    /// The versions of an input; more than one for a table that several stages make.
    ///
    /// # Errors
    /// An internal error when the stage does not declare it.
    pub fn input(&self, artifact: &Artifact) -> Result<&[Manifest]> {
        let found = self.inputs.get(artifact).map(Vec::as_slice);
        found.ok_or_else(|| self.undeclared(artifact, "input"))
    }

    /// Rows of an input table.
    ///
    /// # Errors
    /// As [`Job::input`].
    pub fn rows(&self, table: &str) -> Result<u64> {
        Ok(self.input(&Artifact::table(table))?.iter().map(Manifest::rows).sum())
    }

    /// Registers every input table in the session under its name.
    ///
    /// # Errors
    /// As [`store::bind`].
    pub fn bind(&self, ctx: &SessionContext) -> Result<()> {
        for (artifact, manifests) in self.inputs.iter().filter(|(artifact, _)| artifact.kind == Kind::Table) {
            store::bind(ctx, &self.store, &table::declared(&artifact.name)?, manifests)?;
        }
        Ok(())
    }

    /// The parts of an input table in groups of neighbours, each of at least `rows` rows but for the last.
    ///
    /// # Errors
    /// As [`Job::input`].
    pub fn parts(&self, table: &str, rows: u64) -> Result<Vec<Vec<Manifest>>> {
        let mut groups: Vec<(u64, Vec<Manifest>)> = Vec::new();
        for manifest in self.input(&Artifact::table(table))? {
            for file in &manifest.files {
                let part = Manifest { files: vec![file.clone()], ..manifest.clone() };
                match groups.last_mut() {
                    Some((held, group)) if *held < rows => {
                        *held += file.rows;
                        group.push(part);
                    }
                    _ => groups.push((file.rows, vec![part])),
                }
            }
        }
        Ok(groups.into_iter().map(|(_, group)| group).collect())
    }

    /// Registers some parts of an input table, as [`Job::parts`] gives them, under its name, in place of all of it.
    ///
    /// # Errors
    /// As [`store::bind`].
    pub fn bind_parts(&self, ctx: &SessionContext, table: &str, parts: &[Manifest]) -> Result<()> {
        store::bind(ctx, &self.store, &table::declared(table)?, parts)
    }

    /// Registers rows `range` (from 0) of an input table under its name, in place of the whole table: the driver
    /// rows of one shard.
    ///
    /// # Errors
    /// As [`Job::input`], or a store error when the rows cannot be read.
    pub async fn bind_slice(&self, ctx: &SessionContext, table: &str, range: Range<u64>) -> Result<()> {
        let mut batches = Vec::new();
        let mut first = 0;
        for manifest in self.input(&Artifact::table(table))? {
            let end = first + manifest.rows();
            if range.start < end && first < range.end {
                let within = range.start.saturating_sub(first)..range.end - first;
                batches.extend(store::read_rows(&self.store, manifest, within).await?);
            }
            first = end;
        }
        store::bind_batches(ctx, table, table::declared(table)?.schema(), batches)
    }

    /// A local folder with the files of an input model.
    ///
    /// # Errors
    /// As [`Job::input`], or a store error when the model cannot be fetched.
    pub async fn model_folder(&self, name: &str) -> Result<PathBuf> {
        let artifact = Artifact::model(name);
        match self.input(&artifact)? {
            [manifest] => store::fetch(&self.store, manifest, &self.cache).await,
            _ => Err(Error::internal(artifact, "has not exactly one version")),
        }
    }

    /// Writes an output table; the rows come in the stream's order. Gives the number of rows.
    ///
    /// # Errors
    /// The stream's own error, a data error as of [`TableSink::write`], a store error, or an interruption when the
    /// run is asked to stop; nothing of the table is visible then.
    pub async fn write_table<E: Into<Error>>(
        &self,
        name: &str,
        mut rows: impl Stream<Item = Result<RecordBatch, E>> + Unpin,
    ) -> Result<u64> {
        let artifact = Artifact::table(name);
        let mut sink = TableSink::new(&self.store, self.output(&artifact)?, &table::declared(name)?, Limits::default());
        let mut count = 0;
        loop {
            let next = tokio::select! {
                next = rows.next() => next,
                () = self.stop.wait() => None,
            };
            self.stop.check(format!("stage {}", self.stage()))?;
            let Some(batch) = next else { break };
            let batch = batch.map_err(Into::into)?;
            sink.write(&batch).await?;
            count += batch.num_rows() as u64;
        }
        self.wrote(artifact, sink.finish().await?);
        Ok(count)
    }

    /// The shards of an output table, with those that earlier attempts committed. End with [`Job::write_shards`].
    ///
    /// # Errors
    /// As [`Shards::open`].
    pub async fn shards(&self, name: &str, count: usize) -> Result<Shards> {
        Shards::open(&self.store, self.output(&Artifact::table(name))?, &table::declared(name)?, count).await
    }

    /// Makes the committed shards the output table `name`.
    ///
    /// # Errors
    /// As [`Shards::finish`].
    pub async fn write_shards(&self, name: &str, shards: Shards) -> Result<()> {
        let files = shards.finish().await?;
        self.wrote(Artifact::table(name), files);
        Ok(())
    }

    /// Registers an output table, which the job has written, under its name.
    ///
    /// # Errors
    /// An internal error when it has not; otherwise as [`store::bind`].
    pub fn bind_written(&self, ctx: &SessionContext, name: &str) -> Result<()> {
        let artifact = Artifact::table(name);
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).get(&artifact).cloned();
        let files = written.ok_or_else(|| self.undeclared(&artifact, "output that is written"))?;
        let table = table::declared(name)?;
        let manifest =
            Manifest::new(self.output(&artifact)?, files, Some(&table.schema()), self.lineage.clone(), Info::default());
        store::bind(ctx, &self.store, &table, &[manifest])
    }

    /// Where the trainer of output model `name` keeps its checkpoints until the model is committed.
    ///
    /// # Errors
    /// An internal error when the stage does not declare the model.
    pub fn checkpoints(&self, name: &str) -> Result<Checkpoints> {
        Ok(Checkpoints::new(&self.store, self.output(&Artifact::model(name))?))
    }

    /// An empty folder on this machine that goes away with its handle, for checkpoints and models on their way.
    ///
    /// # Errors
    /// A store error when none can be made.
    pub fn scratch(&self) -> Result<Scratch> {
        Scratch::new()
    }

    /// Uploads the files of `folder` as output model `name`.
    ///
    /// # Errors
    /// A store error that names the file.
    pub async fn write_model(&self, name: &str, folder: &Path) -> Result<()> {
        let artifact = Artifact::model(name);
        let files = store::upload_folder(&self.store, self.output(&artifact)?, "", folder).await?;
        self.wrote(artifact, files);
        Ok(())
    }

    fn output(&self, artifact: &Artifact) -> Result<&Version> {
        self.outputs.get(artifact).ok_or_else(|| self.undeclared(artifact, "output"))
    }

    fn wrote(&self, artifact: Artifact, files: Vec<FileEntry>) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(artifact, files);
    }

    fn undeclared(&self, artifact: &Artifact, what: &str) -> Error {
        Error::internal(format!("stage {}", self.stage()), format!("{artifact} is not a declared {what} of it"))
    }
}
