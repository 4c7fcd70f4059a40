//! The cards: `README.md` of an export, as the Hugging Face Hub shows them.
//!
//! In: what is exported, its ancestry, and the run's principles and figures by SQL. Out: Markdown with YAML front
//! matter. Names in it come from the run, so whatever could end a table's cell is escaped.

use std::path::Path;

use datafusion::prelude::SessionContext;
use minijinja::{Environment, Value, context};
use serde::Serialize;
use serde_json::json;
use tch::Kind;

use super::lineage::Ancestry;
use super::model::{Form, Model};
use super::target::CARD;
use crate::config::Config;
use crate::model::Head;
use crate::query::{self, Params};
use crate::store::Manifest;
use crate::{Error, Result, table};

/// What every card says about the run.
#[derive(Debug)]
pub struct Run {
    /// The run's URL; the card shows its last part.
    pub url: String,
    /// Its configuration.
    pub config: Config,
    /// What the export was made from.
    pub ancestry: Ancestry,
    /// The manifest of an exported model; `None` for a base from outside of the run.
    pub manifest: Option<Manifest>,
}

/// What the card says about the weights.
#[derive(Debug, Serialize)]
pub(super) struct Weights {
    name: String,
    /// `causal`, `classifier` or `yes_no`.
    head: &'static str,
    dtype: &'static str,
    /// The base that an adapter names.
    adapter: Option<String>,
    /// The same where it is an id on the Hub.
    base_id: Option<String>,
    /// Whether an adapter is merged in.
    merged: bool,
    yes: Option<u32>,
    no: Option<u32>,
    pad: Option<u32>,
    has_bos: bool,
    parameters: u64,
    chat: bool,
    reward: bool,
}

impl Weights {
    pub(super) fn new(model: &Model<'_>, form: &Form, pad: Option<u32>) -> Result<Self> {
        let (head, yes, no) = match model.network.head() {
            Head::None => ("causal", None, None),
            Head::Linear => ("classifier", None, None),
            Head::YesNo { yes, no } => ("yes_no", Some(yes), Some(no)),
        };
        let dtype = match form {
            Form::Merged { kind: Kind::BFloat16, .. } => "bfloat16",
            Form::Merged { kind: Kind::Half, .. } => "float16",
            _ => "float32",
        };
        let adapter = match form {
            Form::Adapter { base } => Some(base.clone()),
            Form::Merged { .. } => None,
        };
        Ok(Weights {
            name: model.name.to_string(),
            head,
            dtype,
            base_id: adapter.clone().filter(|base| !Path::new(base).is_dir()),
            merged: adapter.is_none() && model.network.lora().is_some(),
            adapter,
            yes,
            no,
            pad,
            has_bos: model.tokenizer.bos().is_some(),
            parameters: model.network.parameters()?,
            chat: model.chat_template.is_some(),
            reward: model.reward_template.is_some(),
        })
    }
}

/// Rows of one split.
#[derive(Debug, Clone, Serialize)]
pub struct Split {
    /// `train` or `test`.
    pub name: &'static str,
    /// Its rows.
    pub rows: u64,
}

/// What the card says about a data set.
#[derive(Debug, Serialize)]
pub(super) struct Dataset {
    pub(super) layout: String,
    pub(super) splits: Vec<Split>,
}

/// Writes the card of a model.
pub(super) async fn model(ctx: &SessionContext, run: &Run, weights: Weights, folder: &Path) -> Result<()> {
    let set = match weights.name.as_str() {
        "sft" => Some(&run.config.principles.judge_set),
        _ if weights.reward => Some(&run.config.principles.aggregate_set),
        _ => None,
    };
    let shown = run.manifest.as_ref().and_then(|manifest| manifest.lineage.parameters.get("principles").cloned());
    let principles = match set {
        Some(set) => principles(ctx, set).await?,
        None => shown.unwrap_or(json!([])),
    };
    let also = if weights.name == run.config.judge.model { "judge" } else { "" };
    let what = match weights.name.as_str() {
        "sft" => "policy:sft",
        name => name,
    };
    let params = Params::new().with("what", what).with("also", also);
    let figures = rows(ctx, include_str!("../../sql/export/evaluations.sql"), params).await?;
    let card = context! { run => about(run), weights, principles => Value::from_serialize(principles),
    figures => Value::from_serialize(figures), tables => ancestors(run) };
    write("model", include_str!("model_card.jinja"), card, folder)
}

/// Writes the card of a data set.
pub(super) async fn dataset(ctx: &SessionContext, run: &Run, dataset: Dataset, folder: &Path) -> Result<()> {
    let principles = principles(ctx, &run.config.principles.aggregate_set).await?;
    let dominant = rows(ctx, include_str!("../../sql/views/dominant_principles.sql"), Params::new()).await?;
    let columns: Vec<_> = table::preferences().columns.iter().map(|c| json!({"name": c.name, "doc": c.doc})).collect();
    let rows: u64 = dataset.splits.iter().map(|split| split.rows).sum();
    let card = context! { run => about(run), dataset, size => size_category(rows), columns => Value::from_serialize(columns),
    principles => Value::from_serialize(principles), dominant => Value::from_serialize(dominant),
    tables => ancestors(run) };
    write("dataset", include_str!("dataset_card.jinja"), card, folder)
}

/// Writes the card of training curves.
pub(super) fn metrics(url: &str, stages: &[String], folder: &Path) -> Result<()> {
    let stages: Vec<_> = stages.iter().map(|stage| json!({"name": stage, "folder": stage.replace(':', "/")})).collect();
    let card = context! { run => last_part(url), version => env!("CARGO_PKG_VERSION"), stages => Value::from_serialize(stages) };
    write("metrics", include_str!("metrics_card.jinja"), card, folder)
}

fn about(run: &Run) -> Value {
    context! { name => last_part(&run.url), base => last_part(&run.config.model.base), seed => run.config.seed,
    version => env!("CARGO_PKG_VERSION") }
}

fn ancestors(run: &Run) -> Value {
    Value::from_serialize(&run.ancestry.versions)
}

/// A path or URL says more than a card should.
fn last_part(url: &str) -> &str {
    url.trim_end_matches('/').rsplit('/').next().unwrap_or(url)
}

/// The Hub's word for a number of rows.
fn size_category(rows: u64) -> &'static str {
    match rows {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        1_000_000..10_000_000 => "1M<n<10M",
        _ => "n>10M",
    }
}

async fn principles(ctx: &SessionContext, set: &str) -> Result<serde_json::Value> {
    rows(ctx, include_str!("../../sql/export/principles.sql"), Params::new().with("set", set)).await
}

/// Rows of a statement as JSON objects.
async fn rows(ctx: &SessionContext, sql: &str, params: Params) -> Result<serde_json::Value> {
    let batches = query::sql(ctx, sql, &params).await?.collect().await?;
    let options = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = options.build::<_, arrow::json::writer::JsonArray>(Vec::new());
    for batch in &batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    let bytes = writer.into_inner();
    if bytes.is_empty() {
        return Ok(json!([]));
    }
    serde_json::from_slice(&bytes).map_err(|e| Error::internal("card", "rows are not JSON").because(e))
}

fn write(name: &str, source: &str, card: Value, folder: &Path) -> Result<()> {
    let bad = |e: minijinja::Error| Error::internal(format!("{name} card"), "cannot be rendered").because(e);
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(true);
    // A value in a cell of a table.
    environment.add_filter("cell", |text: String| text.replace('|', "\\|").replace(['\n', '\r'], " "));
    environment.add_template("card", source).map_err(bad)?;
    let text = environment.get_template("card").and_then(|template| template.render(card)).map_err(bad)?;
    let path = folder.join(CARD);
    std::fs::write(&path, text).map_err(|e| Error::store(path.display(), "cannot be written").because(e))
}
