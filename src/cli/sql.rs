//! `salmon sql`: asks a run's tables.
//!
//! In: SQL from `-c`, a file or the keyboard. Out: rows on stdout as a table, JSON or CSV.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use clap::{Args, ValueEnum};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use rustyline::error::ReadlineError;

use crate::catalog::text::statements;
use crate::query::{self, Params};
use crate::{Error, Result, catalog};

/// Ask a run's tables, with SQL.
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// The run: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(long, default_value = "runs/main", value_name = "URL")]
    pub run: String,
    /// The statement
    #[arg(long, short, value_name = "SQL", conflicts_with = "file")]
    pub command: Option<String>,
    /// A file with the statement; - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// A JSON array of objects.
    Json,
    /// Comma-separated, with a header.
    Csv,
}

/// Runs the command.
///
/// # Errors
/// A store error for a place that holds no run; a query error for a statement that cannot run.
pub async fn run(args: SqlArgs) -> Result<()> {
    let ctx = catalog::session(&args.run).await?;
    let text = match (&args.command, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read(path)?,
        (None, None) if std::io::stdin().is_terminal() => return shell(&ctx, args.format).await,
        (None, None) => read(Path::new("-"))?,
    };
    for statement in statements(&text)? {
        answer(&ctx, statement, args.format).await?;
    }
    Ok(())
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
pub async fn print(ctx: &SessionContext, text: &str) -> Result<()> {
    for statement in statements(text)? {
        answer(ctx, statement, Format::Table).await?;
    }
    Ok(())
}

/// Writes the rows of one statement to standard output.
///
/// # Errors
/// A query error.
pub(super) async fn answer(ctx: &SessionContext, statement: &str, format: Format) -> Result<()> {
    let frame = query::sql(ctx, statement, &Params::new()).await?;
    let mut out = std::io::stdout().lock();
    match format {
        Format::Table => {
            let schema = Arc::new(frame.schema().as_arrow().clone());
            let batches = frame.collect().await?;
            let rows = if batches.is_empty() { vec![RecordBatch::new_empty(schema)] } else { batches };
            write(&mut out, format!("{}\n", pretty_format_batches(&rows)?).as_bytes())
        }
        Format::Json => {
            let mut rows = frame.execute_stream().await?;
            let options = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = options.build::<_, arrow::json::writer::JsonArray>(&mut out);
            while let Some(batch) = rows.next().await {
                writer.write(&batch?)?;
            }
            writer.finish()?;
            write(&mut out, b"\n")
        }
        Format::Csv => {
            let mut rows = frame.execute_stream().await?;
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut out);
            while let Some(batch) = rows.next().await {
                writer.write(&batch?)?;
            }
            Ok(())
        }
    }
}

/// Writes to standard output.
pub(super) fn say(text: &str) -> Result<()> {
    write(&mut std::io::stdout().lock(), text.as_bytes())
}

fn write(out: &mut impl Write, bytes: &[u8]) -> Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // A reader such as `head` that has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|e| Error::store("standard output", "cannot be written").because(e)),
    }
}

/// The interactive shell: a statement ends with a semicolon.
async fn shell(ctx: &SessionContext, format: Format) -> Result<()> {
    let bad = |e: ReadlineError| Error::internal("shell", "the terminal cannot be read").because(e);
    let mut editor = rustyline::DefaultEditor::new().map_err(bad)?;
    eprintln!(
        "tables: {}; end a statement with ; and the shell with ctrl-d",
        crate::table::all().iter().map(|t| t.name).collect::<Vec<_>>().join(", ")
    );
    let mut text = String::new();
    loop {
        match editor.readline(if text.is_empty() { "salmon> " } else { "   ...> " }) {
            Ok(line) => {
                text += &line;
                text.push('\n');
                if !line.trim_end().ends_with(';') {
                    continue;
                }
                let _ = editor.add_history_entry(text.trim());
                for statement in statements(&text)? {
                    if let Err(error) = answer(ctx, statement, format).await {
                        eprintln!("salmon: {error}");
                    }
                }
                text.clear();
            }
            Err(ReadlineError::Interrupted) => text.clear(),
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(bad(e)),
        }
    }
}
