//! How two runs differ.
//!
//! In: the current versions of two runs. Out: stages with other fingerprints and why, principles, rows by their keys,
//! models, figures. What has equal fingerprints or equal files is equal and is not read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::prelude::SessionContext;
use serde::Serialize;

use super::hash::row_hash;
use super::sample::{Row, sample};
use crate::principle::{Library, Templates};
use crate::query::{self, Models, Params, SessionOptions};
use crate::stage::difference;
use crate::store::{self, Artifact, Current, Kind, Manifest, Store};
use crate::table::{self, Table};
use crate::{Error, Result};

const PRINCIPLES: &str = include_str!("../../sql/audit/diff_principles.sql");
const ROWS: &str = include_str!("../../sql/audit/diff_rows.sql");
const METRICS: &str = include_str!("../../sql/audit/diff_metrics.sql");
const EVALUATIONS: &str = include_str!("../../sql/audit/diff_evaluations.sql");

/// Everything that differs; all empty when nothing does.
#[derive(Debug, Default, Serialize)]
pub struct Difference {
    /// Stages whose versions have other fingerprints.
    pub stages: Vec<StageChange>,
    /// Principles.
    pub principles: Vec<PrincipleChange>,
    /// Tables with other rows.
    pub tables: Vec<TableChange>,
    /// Models with other files.
    pub models: Vec<String>,
    /// The last value of every metric of training.
    pub metrics: Vec<Figure>,
    /// Evaluations.
    pub evaluations: Vec<Figure>,
    /// Versions that cannot be read, in either run.
    pub unreadable: Vec<String>,
}

impl Difference {
    /// Whether both runs are the same.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty() && self.tables.is_empty() && self.models.is_empty() && self.unreadable.is_empty()
    }
}

/// A stage that makes something else.
#[derive(Debug, Serialize)]
pub struct StageChange {
    /// The stage.
    pub stage: String,
    /// What differs in what it is made from.
    pub why: String,
}

/// A principle that is another one.
#[derive(Debug, Serialize)]
pub struct PrincipleChange {
    /// Its name.
    pub name: String,
    /// added, removed, reworded, or changed in weight, sets or tags.
    pub change: String,
    /// Its definition before.
    pub before: String,
    /// Its definition after.
    pub after: String,
    /// Its opposite before.
    pub negative_before: String,
    /// Its opposite after.
    pub negative_after: String,
}

/// A table with other rows.
#[derive(Debug, Serialize)]
pub struct TableChange {
    /// The table.
    pub table: String,
    /// Rows before.
    pub before: i64,
    /// Rows after.
    pub after: i64,
    /// Rows whose key is only there before.
    pub removed: i64,
    /// Rows whose key is only there after.
    pub added: i64,
    /// Rows with the same key and other values.
    pub changed: i64,
    /// Some of the changed ones.
    pub sample: Vec<Row>,
}

/// A number side by side.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// The stage, or what was measured.
    pub what: String,
    /// Its name, with subset and principle.
    pub name: String,
    /// Before; `None` where it was not measured.
    pub before: Option<f64>,
    /// After.
    pub after: Option<f64>,
}

/// What one run has.
struct Side {
    store: Store,
    manifests: BTreeMap<Artifact, BTreeMap<String, Manifest>>,
    /// What cannot be read, and the stages that made it: nothing is said about them.
    broken: Vec<(Artifact, String)>,
}

impl Side {
    async fn open(store: &Store, unreadable: &mut Vec<String>) -> Result<Self> {
        let current = Current::load(store).await?;
        let (mut manifests, mut broken) = (BTreeMap::<Artifact, BTreeMap<String, Manifest>>::new(), Vec::new());
        for (artifact, stage, print) in current.all() {
            match Manifest::read(store, &store::Version::new(artifact.clone(), print)?).await {
                Ok(Some(manifest)) => {
                    manifests.entry(artifact.clone()).or_default().insert(stage.to_string(), manifest);
                }
                // Discarded: its stage did not end.
                Ok(None) => {}
                Err(e) => {
                    unreadable.push(e.to_string());
                    broken.push((artifact.clone(), stage.to_string()));
                }
            }
        }
        Ok(Side { store: store.clone(), manifests, broken })
    }

    fn of(&self, artifact: &Artifact) -> Vec<Manifest> {
        self.manifests.get(artifact).map(|by_stage| by_stage.values().cloned().collect()).unwrap_or_default()
    }

    /// One lineage per stage: all of a stage's outputs have the same.
    fn stages(&self) -> BTreeMap<&str, &Manifest> {
        self.manifests.values().flatten().map(|(stage, manifest)| (stage.as_str(), manifest)).collect()
    }
}

/// Names and checksums of all files.
fn bytes_of(manifests: &[Manifest]) -> Vec<(&str, &str)> {
    let files = manifests.iter().flat_map(|manifest| &manifest.files);
    files.map(|file| (file.path.as_str(), file.blake3.as_str())).collect()
}

/// How `after` differs from `before`, with at most `rows` changed rows of each table.
///
/// # Errors
/// A store error when a run cannot be read; a query error when rows cannot be compared.
pub async fn diff(before: &Store, after: &Store, rows: usize) -> Result<Difference> {
    let mut found = Difference::default();
    let a = Side::open(before, &mut found.unreadable).await?;
    let b = Side::open(after, &mut found.unreadable).await?;
    found.stages = stages(&a, &b);
    let artifacts: BTreeSet<&Artifact> = a.manifests.keys().chain(b.manifests.keys()).collect();
    let broken = |artifact: &Artifact| a.broken.iter().chain(&b.broken).any(|(one, _)| one == artifact);
    let differ = |artifact: &Artifact| !broken(artifact) && bytes_of(&a.of(artifact)) != bytes_of(&b.of(artifact));
    found.models = artifacts.iter().filter(|x| x.kind == Kind::Model && differ(x)).map(|x| x.name.clone()).collect();
    for table in table::all() {
        let artifact = Artifact::table(table.name);
        if !artifacts.contains(&artifact) || !differ(&artifact) {
            continue;
        }
        let ctx = session(&a, &b, &table)?;
        let change = counts(&ctx, &table, rows).await?;
        if change.removed + change.added + change.changed > 0 {
            found.tables.push(change);
        }
        match table.name {
            "principles" => found.principles = principles(&ctx).await?,
            "metrics" => found.metrics = figures(&ctx, METRICS).await?,
            "evaluations" => found.evaluations = figures(&ctx, EVALUATIONS).await?,
            _ => {}
        }
    }
    Ok(found)
}

fn stages(a: &Side, b: &Side) -> Vec<StageChange> {
    let (before, after) = (a.stages(), b.stages());
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let broken = |name: &str| a.broken.iter().chain(&b.broken).any(|(_, stage)| stage == name);
    let change = |name: &str| {
        let why = match (before.get(name), after.get(name)) {
            (Some(x), Some(y)) if x.fingerprint == y.fingerprint => return None,
            (Some(x), Some(y)) => difference(&y.lineage, &x.lineage),
            _ if broken(name) => return None,
            (Some(_), None) => "is only in the first run".into(),
            _ => "is only in the second run".into(),
        };
        Some(StageChange { stage: name.to_string(), why })
    };
    let mut changes: Vec<StageChange> = names.into_iter().filter_map(change).collect();
    // In the order in which they were made, as far as it is known.
    let made = |change: &StageChange| {
        let manifest = before.get(change.stage.as_str()).or_else(|| after.get(change.stage.as_str()));
        manifest.map(|manifest| manifest.info.started.clone())
    };
    changes.sort_by_key(made);
    changes
}

/// A session with both versions of a table as `<name>_before` and `<name>_after`.
fn session(a: &Side, b: &Side, table: &Table) -> Result<SessionContext> {
    let templates = Arc::new(Templates::load(None, &Library::default())?);
    let ctx = query::session(Arc::new(Models::new()), templates, &SessionOptions::default())?;
    ctx.register_udf(row_hash());
    for (side, end) in [(a, "before"), (b, "after")] {
        store::bind_as(
            &ctx,
            &side.store,
            table,
            &side.of(&Artifact::table(table.name)),
            &format!("{}_{end}", table.name),
        )?;
    }
    Ok(ctx)
}

/// The columns that tell a table's rows apart; rows of one key are compared in the order of their values.
pub(super) fn key(table: &str) -> &'static [&'static str] {
    match table {
        "principles" => &["name"],
        "prompts" => &["prompt_id"],
        "demonstrations" | "responses" => &["prompt_id", "sample"],
        "pairs" => &["prompt_id", "sample_1", "sample_2"],
        "judgments" => &["prompt_id", "sample_1", "sample_2", "principle"],
        "preferences" => &["prompt_id", "pass"],
        "rollouts" => &["policy", "step", "prompt_id"],
        "answers" => &["policy", "prompt_id", "sample"],
        "metrics" => &["stage", "step", "name"],
        _ => &["what", "principle", "subset", "metric"],
    }
}

/// `row_hash` over the key columns and over the others, as `row_key` and `row_value`.
pub(super) fn hashes(table: &Table) -> String {
    let quoted = |names: Vec<&str>| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let keys = key(table.name);
    let others = table.columns.iter().map(|column| column.name).filter(|name| !keys.contains(name)).collect();
    format!("row_hash({}) as row_key, row_hash({}) as row_value", quoted(keys.to_vec()), quoted(others))
}

async fn counts(ctx: &SessionContext, table: &Table, rows: usize) -> Result<TableChange> {
    for end in ["before", "after"] {
        let text = format!("select {} from {}_{end}", hashes(table), table.name);
        let view = query::sql(ctx, &text, &Params::new()).await?.into_view();
        ctx.register_table(end, view)?;
    }
    let found = query::sql(ctx, ROWS, &Params::new()).await?.collect().await?;
    let number = |at: usize| -> Result<i64> {
        let Some(batch) = found.first() else { return Ok(0) };
        let column = arrow::compute::cast(batch.column(at), &DataType::Int64)?;
        Ok(column.as_primitive::<Int64Type>().iter().flatten().next().unwrap_or(0))
    };
    let mut change = TableChange {
        table: table.name.to_string(),
        before: number(0)?,
        after: number(1)?,
        removed: number(2)?,
        added: number(3)?,
        changed: number(4)?,
        sample: Vec::new(),
    };
    if change.changed > 0 && rows > 0 {
        change.sample = sample(ctx, table, rows).await?;
    }
    Ok(change)
}

async fn principles(ctx: &SessionContext) -> Result<Vec<PrincipleChange>> {
    let mut changes = Vec::new();
    for batch in query::sql(ctx, PRINCIPLES, &Params::new()).await?.collect().await? {
        for row in 0..batch.num_rows() {
            let text = |at: usize| text(&batch, at, row);
            changes.push(PrincipleChange {
                name: text(0)?,
                change: text(1)?,
                before: text(2)?,
                after: text(3)?,
                negative_before: text(4)?,
                negative_after: text(5)?,
            });
        }
    }
    Ok(changes)
}

async fn figures(ctx: &SessionContext, statement: &str) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for batch in query::sql(ctx, statement, &Params::new()).await?.collect().await? {
        for row in 0..batch.num_rows() {
            let number = |at: usize| {
                let column = batch.column(at).as_primitive_opt::<Float64Type>()?;
                column.is_valid(row).then(|| column.value(row))
            };
            figures.push(Figure {
                what: text(&batch, 0, row)?,
                name: text(&batch, 1, row)?,
                before: number(2),
                after: number(3),
            });
        }
    }
    Ok(figures)
}

fn text(batch: &RecordBatch, at: usize, row: usize) -> Result<String> {
    let column = batch.column(at).as_string_opt::<i32>();
    column.map(|column| column.value(row).to_string()).ok_or_else(|| Error::internal("diff", "a column is not text"))
}
