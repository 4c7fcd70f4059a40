//! `salmon demo`: the whole pipeline on the embedded toy world.
//!
//! In: nothing but a seed. Out: a run with every table and model in it, and its figures on stdout.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{run, sql};
use crate::stage::Options;
use crate::{Error, Result, catalog, config, world};

/// Run the whole pipeline on the embedded toy world, then show what came of it.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the run lives: a local folder
    #[arg(long, default_value = "runs/demo", value_name = "FOLDER")]
    pub run: PathBuf,
    /// Seed of every random draw
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Make the base model as well, instead of taking the one that salmon ships
    #[arg(long)]
    pub from_scratch: bool,
    /// Change a value of the demo's configuration, e.g. --set ppo.steps=20
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// As `salmon run`.
pub async fn run(args: DemoArgs) -> Result<()> {
    let folder = args.run.join("input");
    let bad = |e: std::io::Error| Error::store(folder.display(), "cannot be written").because(e);
    std::fs::create_dir_all(&folder).map_err(bad)?;
    let mut text = world::RECIPE.replace("seed = 1\n", &format!("seed = {}\n", args.seed));
    if args.from_scratch {
        text = text.replace("base = \"pocket\"", "base = \"pretrain\"");
    }
    std::fs::write(folder.join("salmon.toml"), &text).map_err(bad)?;
    world::write_prompts(&folder.join("prompts.parquet"))?;
    let config = config::parse("the demo's configuration", &text, &args.set)?;
    let url = args.run.display().to_string();
    let worked = run::bring_up_to_date(config, &folder, &url, &Options::default()).await?;
    figures(&url).await?;
    let page = args.run.join("report.html");
    if worked || !page.exists() {
        super::report::write(&url, &page).await?;
    }
    eprintln!("report: {}", page.display());
    Ok(())
}

/// The figures of a run, as a table.
async fn figures(run: &str) -> Result<()> {
    let ctx = Arc::new(catalog::session(run).await?);
    sql::print(&ctx, include_str!("../../sql/pocket/figures.sql")).await?;
    sql::print(&ctx, include_str!("../../sql/pocket/policies.sql")).await
}
