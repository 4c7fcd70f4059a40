//! `salmon report`: a run as one page.
//!
//! In: a run's URL. Out: an HTML file that needs nothing else.

use std::path::{Path, PathBuf};

use clap::Args;

use super::sql;
use crate::store::Store;
use crate::{Error, Result, catalog, report};

/// Write everything about a run as one HTML page.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The run: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(long, default_value = "runs/main", value_name = "URL")]
    pub run: String,
    /// The page to write
    #[arg(long, default_value = "report.html", value_name = "FILE")]
    pub out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A store error for a place that holds no run, or a page that cannot be written.
pub async fn run(args: ReportArgs) -> Result<()> {
    write(&args.run, &args.out).await?;
    sql::say(&format!("{}\n", args.out.display()))
}

/// Writes the page of a run, whole or not at all.
///
/// # Errors
/// As [`run`].
pub async fn write(run: &str, out: &Path) -> Result<()> {
    let store = Store::open_existing(run).await?;
    let ctx = catalog::session(run).await?;
    let page = report::page(&ctx, store.url(), catalog::opened::stored_config(&store).await?.as_ref()).await?;
    let bad = |e: std::io::Error| Error::store(out.display(), "cannot be written").because(e);
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).map_err(bad)?;
    }
    let partial = out.with_extension("partial");
    std::fs::write(&partial, page).map_err(bad)?;
    std::fs::rename(&partial, out).map_err(bad)
}
