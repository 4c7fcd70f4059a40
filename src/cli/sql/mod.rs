//! `salmon sql`: asks the tables of runs, and their models.
//!
//! In: SQL from `-c`, a file, a pipe or the keyboard. Out: rows on stdout or in a file.
//!
//! ```text
//! args ─> Settings, Catalog ─┬─ -c, -f, a pipe: script     statement after statement, the first error ends it
//!                            └─ a terminal: shell          lines ─┬─ \d, \timing ..   commands of the shell
//!                                                                 └─ statement;       query.rs ─> output.rs ─> pager
//! ```

mod commands;
mod complete;
mod describe;
mod external;
mod output;
mod pager;
mod query;
mod settings;
mod shell;
mod target;

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use datafusion::prelude::SessionContext;

pub use output::Format;
pub(super) use output::say;

use crate::catalog::{self, Catalog};
use crate::query::Params;
use crate::{Error, Result};
use output::{Look, write_rows};
use query::Asker;
use settings::Settings;

/// Ask the tables of runs, and their models, with SQL.
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// The run: a folder, or a URL such as s3://bucket/team/run-7; for several, repeat it with a name each, a=URL
    #[arg(long, default_value = "runs/main", value_name = "[NAME=]URL")]
    pub run: Vec<String>,
    /// The statements
    #[arg(long, short, value_name = "SQL", conflicts_with = "file")]
    pub command: Option<String>,
    /// A file with the statements; - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Write the rows into this file
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// A value for $NAME in statements: a number, true, false, or else a text; for several, repeat it
    #[arg(long = "param", short, value_name = "NAME=VALUE")]
    pub params: Vec<String>,
    /// Rows of a table for people at most; 0 for all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub max_rows: usize,
    /// Rows that a model function may see before it asks whether to go on, or refuses to; 0 for any number
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub model_rows: u64,
    /// A file with commands to start with; the interactive shell reads ~/.config/salmon/sqlrc without it
    #[arg(long, value_name = "FILE")]
    pub rc: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A store error for a place that holds no run; a query error for a statement that cannot run.
pub async fn run(args: SqlArgs) -> Result<()> {
    let runs: Vec<(Option<String>, String)> = args.run.iter().map(|run| named(run)).collect();
    let catalog = Catalog::open(&runs, &catalog::Options { models: true, ..Default::default() }).await?;
    let mut settings = Settings::new(&args)?;
    let mut asker = Asker::new(catalog)?;
    if let Some(rc) = &args.rc {
        commands::script(&mut asker, &mut settings, &read(rc)?).await?;
    }
    let text = match (&args.command, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read(path)?,
        (None, None) if std::io::stdin().is_terminal() => return shell::run(asker, settings, args.rc.is_none()).await,
        (None, None) => read(Path::new("-"))?,
    };
    commands::script(&mut asker, &mut settings, &text).await
}

/// `a=URL`, or a URL alone.
fn named(run: &str) -> (Option<String>, String) {
    match run.split_once('=') {
        Some((name, url)) if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
            (Some(name.to_string()), url.to_string())
        }
        _ => (None, run.to_string()),
    }
}

/// The text of a file; - is standard input.
pub(super) fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let done = match path.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text).map(drop),
        _ => std::fs::read_to_string(path).map(|read| text = read),
    };
    done.map_err(|e| Error::query(path.display(), "cannot be read").because(e))?;
    Ok(text)
}

/// Prints the rows of each statement as a table.
///
/// # Errors
/// A query error.
pub(super) async fn print(ctx: &SessionContext, text: &str) -> Result<()> {
    for statement in catalog::text::statements(text)? {
        answer(ctx, statement, Format::Table).await?;
    }
    Ok(())
}

/// Writes the rows of one statement to standard output.
///
/// # Errors
/// A query error.
pub(super) async fn answer(ctx: &SessionContext, statement: &str, format: Format) -> Result<()> {
    let rows = crate::query::sql(ctx, statement, &Params::new()).await?.execute_stream().await?;
    let all = Look { max_rows: 0, expanded: false };
    write_rows(rows, format, all, &mut std::io::stdout()).await.map(drop)
}
