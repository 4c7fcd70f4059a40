//! `salmon run`: brings the stages of a configuration up to date.
//!
//! In: `salmon.toml` and the run's URL. Out: tables and models in the run; a line per stage on stderr.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::progress;
use crate::Result;
use crate::catalog::opened::CONFIG;
use crate::config::{self, Config};
use crate::pipeline::{self, Setup};
use crate::stage::{self, Options, State, Stop};
use crate::store::Store;

/// Run what is missing or changed; without STAGE all stages, else these and what they need.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Stages to bring up to date
    #[arg(value_name = "STAGE")]
    pub stages: Vec<String>,
    /// The configuration
    #[arg(long, short, default_value = "salmon.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Where the run lives: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(long, default_value = "runs/main", value_name = "URL")]
    pub run: String,
    /// Change a value of the configuration for this run, e.g. --set ppo.trainer.kl_coef=0.05
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Run this stage again although nothing changed
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Take versions and rows that this other run has already, where they are what a stage would make
    #[arg(long, value_name = "URL")]
    pub reuse: Vec<String>,
    /// Only say which stages would run, and why
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs the command.
///
/// # Errors
/// The first thing that is wrong with the configuration, the data, a model or the store.
pub async fn run(args: RunArgs) -> Result<()> {
    let config = config::read(&args.config, &args.set)?;
    let folder = args.config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut reuse = Vec::with_capacity(args.reuse.len());
    for url in &args.reuse {
        reuse.push(Store::open_existing(url).await?);
    }
    let options = Options { select: args.stages, force: args.force, cache: None, reuse };
    if args.dry_run {
        let (store, graph) = open(config, folder, &args.run).await?;
        for planned in stage::plan(&graph, &store, &options).await? {
            let known = planned.known.map(|known| format!("; {known}")).unwrap_or_default();
            match planned.state {
                State::Cached => println!("{:<28} cached", planned.stage),
                State::Copy(from) => println!("{:<28} would be copied from {from}", planned.stage),
                State::Run(why) => println!("{:<28} would run: {why}{known}", planned.stage),
            }
        }
        return Ok(());
    }
    bring_up_to_date(config, folder, &args.run, &options).await.map(drop)
}

async fn open(config: Config, folder: &Path, run: &str) -> Result<(Store, stage::Graph)> {
    let store = Store::open(run)?;
    let setup = Arc::new(Setup::load(config, folder).await?);
    Ok((store, pipeline::graph(&setup)?))
}

/// Runs the stages, watching for signals; says so when there was nothing to do. Gives whether there was.
///
/// # Errors
/// As [`run`].
pub async fn bring_up_to_date(config: Config, folder: &Path, run: &str, options: &Options) -> Result<bool> {
    // First of all: what is fetched before the first stage may take long, and a signal must find its handler.
    let stop = Stop::new();
    stop.on_signals()?;
    let text = config.clone().anchored(folder)?.to_toml()?;
    let (store, graph) = open(config, folder, run).await?;
    keep(&store, &text).await?;
    let done = stage::run(&graph, &store, options, progress::watcher(), &stop).await?;
    // The pointers are this configuration's now, whichever other one began meanwhile.
    keep(&store, &text).await?;
    let worked = done.iter().any(|planned| planned.state != State::Cached);
    if !worked {
        eprintln!("nothing to do: all {} stages are up to date", done.len());
    }
    Ok(worked)
}

/// Keeps the configuration in the run, for the commands that ask its models and for people.
async fn keep(store: &Store, text: &str) -> Result<()> {
    let text = format!("# The configuration of the last `salmon run` here, defaults included.\n{text}");
    match store.get(CONFIG).await? {
        Some(before) if before == text.as_bytes() => Ok(()),
        _ => store.put(CONFIG, text).await,
    }
}
