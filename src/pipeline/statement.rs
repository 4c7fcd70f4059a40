//! A stage that is one statement of `sql/`.
//!
//! In: the statement, its parameters, the models it asks, what cuts it into shards, where known rows are found. Out: a
//! stage whose table is the statement's rows, committed shard by shard where a model is asked or the inputs are large.
//!
//! ```text
//! shards of a table's rows    from $first_shard and before $end_shard in one run, committed one by one as their rows pass
//! shards of a table's parts   one run each, over those parts alone
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;

use super::known::Known;
use super::settings::Settings;
use super::setup::Setup;
use crate::stage::{self, Job, Stage};
use crate::store::{Artifact, Lineage, Shards};
use crate::{Result, query};

/// Driver rows per shard: what a kill can cost.
const SHARD_ROWS: u64 = 256;
/// Shards at most, so that their number does not grow with the table as it is ...
const SHARDS: u64 = 200;
/// ... until a shard has so many rows, for what comes of a shard is in memory at once when it is aggregated.
const LARGE_SHARD_ROWS: u64 = 25_000;
/// Driver rows of the shards that one run of the statement makes, unless one shard has more: each run reads the whole
/// driver table, and sorts what it asks a model.
const RUN_ROWS: u64 = 8_192;

/// Registers what a statement reads besides the job's inputs.
pub(super) type Extra = Arc<dyn Fn(&SessionContext) -> Result<()> + Send + Sync>;

/// Rows of a table that is aggregated in parts, per shard: planning must not outweigh them, and memory holds them.
const PART_ROWS: u64 = 50_000;

/// What cuts a statement's work into shards.
#[derive(Clone, Copy)]
pub(super) enum Driver {
    /// By a hash of the row: one run makes those from `$first_shard` and before `$end_shard`, of `$shards`. The rows of
    /// this table say how many there are.
    Rows(&'static str),
    /// One for each part of this table, or for some small ones, bound in place of the table.
    Parts(&'static str),
}

/// A stage that is one statement.
pub(super) struct Statement {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
    pub(super) inputs: Vec<&'static str>,
    pub(super) settings: Settings,
    pub(super) templates: Vec<String>,
    pub(super) models: Vec<&'static str>,
    /// What cuts it into shards, where something does.
    pub(super) driver: Option<Driver>,
    /// A small table, by name and statement, that is made of the whole inputs before.
    pub(super) before: Option<(&'static str, &'static str)>,
    pub(super) extra: Option<Extra>,
    /// Where rows that earlier versions hold are found.
    pub(super) known: Option<Known>,
    /// What the extra tables hold, for the lineage.
    pub(super) parameters: Vec<(&'static str, Value)>,
}

impl Statement {
    pub(super) fn new(name: &'static str, sql: &'static str, inputs: &[&'static str], settings: Settings) -> Self {
        Statement {
            name,
            sql,
            inputs: inputs.to_vec(),
            settings,
            templates: vec![],
            models: vec![],
            driver: None,
            before: None,
            extra: None,
            known: None,
            parameters: vec![],
        }
    }

    /// The stage.
    pub(super) fn stage(self, setup: &Arc<Setup>) -> Result<Stage> {
        let mut lineage = setup.lineage(self.sql, &self.settings, &self.templates)?;
        lineage.parameters.extend(self.parameters.iter().map(|(name, value)| (name.to_string(), value.clone())));
        if let Some((name, sql)) = self.before {
            lineage.parameters.insert(format!("{name}_sql"), sql.into());
        }
        let mut inputs: Vec<Artifact> = self.inputs.iter().map(|name| Artifact::table(*name)).collect();
        for model in &self.models {
            setup.uses(if *model == "judge" { &setup.config.judge.model } else { model }, &mut inputs, &mut lineage);
        }
        let (setup, statement) = (Arc::clone(setup), Arc::new(self));
        let output = Artifact::table(statement.name);
        let (name, previewed) = (statement.name, (Arc::clone(&setup), Arc::clone(&statement)));
        let stage = Stage::new(name, inputs, vec![output], lineage, move |job| {
            let (setup, statement) = (Arc::clone(&setup), Arc::clone(&statement));
            async move { statement.run(&setup, &job).await }
        });
        if previewed.1.known.is_none() {
            return Ok(stage);
        }
        Ok(stage.with_preview(move |job| {
            let (setup, statement) = previewed.clone();
            async move {
                let (ctx, _models) = setup.session(&job, &[]).await?;
                statement.bind(&ctx, &job).await
            }
        }))
    }

    /// Registers what the statement reads besides the job's inputs; gives what of its rows is known.
    async fn bind(&self, ctx: &SessionContext, job: &Job) -> Result<Option<stage::Known>> {
        if let Some(extra) = &self.extra {
            extra(ctx)?;
        }
        match &self.known {
            Some(known) => known.register(ctx, job, self.name, &self.settings).await,
            None => Ok(None),
        }
    }

    async fn run(&self, setup: &Arc<Setup>, job: &Job) -> Result<()> {
        let (ctx, _models) = setup.session(job, &self.models).await?;
        if let Some(known) = self.bind(&ctx, job).await? {
            job.known(known);
        }
        if let Some((name, sql)) = self.before {
            let rows = query::sql(&ctx, sql, &Settings::default().params()).await?.cache().await?;
            ctx.register_table(name, rows.into_view())?;
        }
        match self.driver {
            None => {
                let rows = query::sql(&ctx, self.sql, &self.settings.params()).await?.execute_stream().await?;
                job.write_table(self.name, rows).await.map(drop)
            }
            Some(Driver::Rows(table)) => {
                in_shards(&ctx, job, self.name, self.sql, &self.settings, job.rows(table)?).await
            }
            Some(Driver::Parts(table)) => self.run_by_parts(&ctx, job, table).await,
        }
    }

    async fn run_by_parts(&self, ctx: &SessionContext, job: &Job, table: &str) -> Result<()> {
        let parts = job.parts(table, PART_ROWS)?;
        let shards = job.shards(self.name, parts.len()).await?;
        advance(job, &shards);
        for (shard, parts) in parts.iter().enumerate().filter(|(shard, _)| !shards.is_done(*shard)) {
            job.bind_parts(ctx, table, parts)?;
            shards.write(shard, stream(ctx, job, self.sql, &self.settings).await?).await?;
            advance(job, &shards);
        }
        job.write_shards(self.name, shards).await
    }
}

/// Makes output table `name` of a statement that is cut by a hash of its rows, of which there are about `rows`.
pub(super) async fn in_shards(
    ctx: &SessionContext,
    job: &Job,
    name: &str,
    sql: &str,
    settings: &Settings,
    rows: u64,
) -> Result<()> {
    let count = rows.div_ceil(SHARD_ROWS).clamp(1, SHARDS.max(rows / LARGE_SHARD_ROWS));
    let together = (RUN_ROWS * count / rows.max(1)).max(1) as usize;
    let shards = job.shards(name, count as usize).await?;
    advance(job, &shards);
    let missing = shards.missing();
    for group in missing.chunk_by(|a, b| a + 1 == *b).flat_map(|neighbours| neighbours.chunks(together)) {
        let ([first, ..], [.., last]) = (group, group) else { continue };
        let settings = settings.clone().with("shards", count as i64);
        let settings = settings.with("first_shard", *first as i64).with("end_shard", *last as i64 + 1);
        let rows = stream(ctx, job, sql, &settings).await?;
        shards.write_all(*first..=*last, rows, || advance(job, &shards)).await?;
    }
    job.write_shards(name, shards).await
}

/// Runs a statement, until the run is to stop.
async fn stream(
    ctx: &SessionContext,
    job: &Job,
    sql: &str,
    settings: &Settings,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let (stop, place) = (job.stop().clone(), format!("stage {}", job.stage()));
    stop.check(&place)?;
    let rows = query::sql(ctx, sql, &settings.params()).await?.execute_stream().await?;
    Ok(rows.map(move |batch| stop.check(&place).and_then(|()| Ok(batch?))).boxed())
}

fn advance(job: &Job, shards: &Shards) {
    job.advance(shards.done() as u64, Some(shards.count() as u64), "shards");
}

impl Setup {
    /// The lineage of a statement.
    pub(super) fn lineage(&self, sql: &str, settings: &Settings, templates: &[String]) -> Result<Lineage> {
        Ok(Lineage {
            sql: Some(sql.to_string()),
            parameters: settings.json(),
            seed: Some(self.config.seed),
            templates: templates.iter().map(|name| self.template(name)).collect::<Result<BTreeMap<_, _>>>()?,
            ..Lineage::default()
        })
    }

    /// Declares that a stage asks a model.
    pub(super) fn uses(&self, model: &str, inputs: &mut Vec<Artifact>, lineage: &mut Lineage) {
        // An adapter needs the base below it.
        for artifact in self.base_inputs() {
            if !inputs.contains(&artifact) {
                inputs.push(artifact);
            }
        }
        lineage.models.extend(self.base_models());
        // The same weights answer otherwise in another number format or on another device.
        let mut how = self.model_json();
        if let Some(how) = how.as_object_mut() {
            how.retain(|key, _| ["dtype", "device", "quantization_config"].contains(&key.as_str()));
        }
        // A trainer has put all of `[model]` there.
        lineage.parameters.entry("model").or_insert(how);
        if model != "base" && !inputs.contains(&Artifact::model(model)) {
            inputs.push(Artifact::model(model));
        }
    }
}
