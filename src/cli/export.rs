//! `salmon export`: what a run made, for other tools.
//!
//! In: a run's URL, and which of its models, or its preferences, or its metrics. Out: a folder or URL that is there
//! whole or not at all; its place on stdout.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use tch::Kind;

use super::sql;
use crate::catalog::opened::{Found, OpenRun, reward_template, stored_config, text};
use crate::config::Config;
use crate::export::{self, Ancestry, FileFormat, Form, Layout, Run, Target};
use crate::model::Tokenizer;
use crate::query::SessionOptions;
use crate::store::{Artifact, Current, Manifest, Store};
use crate::{Result, catalog};

/// Write models, preferences or training curves of a run for other tools.
#[derive(Debug, Subcommand)]
pub enum ExportCommand {
    /// A model as a Hugging Face folder, or its adapter as a PEFT folder
    Model(ModelArgs),
    /// The kept preferences as a data set of TRL, OpenRLHF or verl
    Preferences(PreferencesArgs),
    /// The training curves as trainer_state.json and TensorBoard event files
    Metrics(MetricsArgs),
}

/// Where from and where to.
#[derive(Debug, Args)]
pub struct Places {
    /// The run: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(long, default_value = "runs/main", value_name = "URL")]
    pub run: String,
    /// The export: a folder that is not there yet, or a URL
    #[arg(long, value_name = "URL")]
    pub out: String,
    /// Replace an older export
    #[arg(long)]
    pub force: bool,
}

/// A model as a Hugging Face folder, or its adapter as a PEFT folder.
#[derive(Debug, Args)]
pub struct ModelArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would become help")]
    pub places: Places,
    /// The model: sft, reward, policy:NAME, base, ...
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// The number format of the weights, an adapter merged into them
    #[arg(long, value_enum, default_value_t = Dtype::Bfloat16)]
    pub dtype: Dtype,
    /// Write the adapter alone, in float32 as it was trained; BASE is what it names as its base model: a folder
    /// such as the exported `base`, or an id on the Hugging Face Hub
    #[arg(long, value_name = "BASE", conflicts_with_all = ["dtype", "max_shard_size"])]
    pub adapter: Option<String>,
    /// The largest weight file, e.g. 500MB or 5GB; above it there are several with an index
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = size)]
    pub max_shard_size: u64,
}

/// The kept preferences as a data set of TRL, OpenRLHF or verl.
#[derive(Debug, Args)]
pub struct PreferencesArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would become help")]
    pub places: Places,
    /// Whose layout the rows have
    #[arg(long, value_enum, default_value_t = Layout::Trl)]
    pub layout: Layout,
    /// How rows are stored
    #[arg(long, value_enum, default_value_t = FileFormat::Parquet)]
    pub format: FileFormat,
}

/// The training curves as trainer_state.json and TensorBoard event files.
#[derive(Debug, Args)]
pub struct MetricsArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would become help")]
    pub places: Places,
}

/// A number format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 16 bits with the range of float32.
    Bfloat16,
    /// 16 bits, finer, up to 65,504.
    Float16,
    /// 32 bits.
    Float32,
}

/// A size as transformers writes it: `5GB` is 5 * 10^9 bytes, `5GiB` 5 * 2^30.
fn size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KIB" => 1 << 10,
        "MIB" => 1 << 20,
        "GIB" => 1 << 30,
        _ => 0,
    };
    let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    size.filter(|size| *size > 0).ok_or_else(|| "expected a size such as 500MB, 5GB or 5GiB".into())
}

/// Runs the command.
///
/// # Errors
/// A configuration error for a model that the run does not have and for a place that is taken; a data error for a run
/// without rows to export; a store error for a place that holds no run or cannot be written.
pub async fn run(command: ExportCommand) -> Result<()> {
    match command {
        ExportCommand::Model(args) => model(args).await,
        ExportCommand::Preferences(args) => preferences(args).await,
        ExportCommand::Metrics(args) => metrics(args).await,
    }
}

async fn model(args: ModelArgs) -> Result<()> {
    let run = OpenRun::open(&args.places.run).await?;
    // A base from outside is no version of the run.
    let manifest = run.made(&args.model).await?;
    let target = Target::open(&args.places.out, args.places.force).await?;
    let Found { setup, base, folder } = run.find(manifest.as_ref()).await?;
    let parameter = |name: &str| manifest.as_ref().and_then(|manifest| text(manifest, name));
    let reward_template = manifest.as_ref().and_then(reward_template);
    let tokenizer = Tokenizer::open(&base)?;
    let model = export::Model {
        name: &args.model,
        network: setup.network(&base, &folder, reward_template.is_some())?,
        tokenizer: &tokenizer,
        templates: &setup.templates,
        chat_template: parameter("chat_template"),
        reward_template,
    };
    let form = match args.adapter {
        Some(base) => Form::Adapter { base: absolute(&base) },
        None => Form::Merged { kind: args.dtype.kind(), max_shard_size: args.max_shard_size },
    };
    let ancestry = Ancestry::of(&run.store, manifest.as_slice()).await?;
    let about = Run { url: args.places.run.clone(), config: run.config.clone(), ancestry, manifest: manifest.clone() };
    let ctx = catalog::session(&args.places.run).await?;
    export::write_model(&ctx, model, &form, about, target.folder()).await?;
    done(target, &args.places.out).await
}

impl Dtype {
    fn kind(self) -> Kind {
        match self {
            Dtype::Bfloat16 => Kind::BFloat16,
            Dtype::Float16 => Kind::Half,
            Dtype::Float32 => Kind::Float,
        }
    }
}

/// A folder by its absolute path, because peft looks a relative one up from wherever it runs.
fn absolute(base: &str) -> String {
    match Path::new(base).canonicalize() {
        Ok(path) if path.is_dir() => path.display().to_string(),
        _ => base.to_string(),
    }
}

async fn preferences(args: PreferencesArgs) -> Result<()> {
    let store = Store::open_existing(&args.places.run).await?;
    let target = Target::open(&args.places.out, args.places.force).await?;
    let config: Config = stored_config(&store).await?.unwrap_or_default();
    let manifests = manifests(&store, "preferences").await?;
    let ancestry = Ancestry::of(&store, &manifests).await?;
    let about = Run { url: args.places.run.clone(), config, ancestry, manifest: None };
    // With one partition, rows keep the order of the table.
    let options = SessionOptions { target_partitions: 1, ..SessionOptions::default() };
    let ctx = catalog::session_with(&args.places.run, &options).await?;
    export::write_preferences(&ctx, args.layout, args.format, about, target.folder()).await?;
    done(target, &args.places.out).await
}

async fn manifests(store: &Store, table: &str) -> Result<Vec<Manifest>> {
    Current::load(store).await?.manifests(store, &Artifact::table(table)).await
}

async fn metrics(args: MetricsArgs) -> Result<()> {
    let store = Store::open_existing(&args.places.run).await?;
    let target = Target::open(&args.places.out, args.places.force).await?;
    let ctx = catalog::session(&args.places.run).await?;
    export::write_metrics(&ctx, &store, target.folder()).await?;
    done(target, &args.places.out).await
}

async fn done(target: Target, out: &str) -> Result<()> {
    target.commit().await?;
    sql::say(&format!("{out}\n"))
}
