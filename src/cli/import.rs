//! `salmon import`: any of the known formats -> a clean Parquet file of prompts or preference pairs.
//!
//! In: files or folders, here or at a URL. Out: the Parquet file, the dropped rows beside it, and a summary on stdout.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::import::{self, Options, PromptKind};
use crate::store::{self, Remote};
use crate::{Error, Result};

/// Import prompts or preferences from OASST, ShareGPT, Dolly, Alpaca, OpenOrca, MATH, HH, SHP, TRL, ... files.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Files or folders, here or at a URL such as s3://bucket/hh.jsonl.gz: JSON lines, a JSON array, CSV or Parquet,
    /// also gzipped
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The Parquet file to write; rows that are not kept go to <OUT>.dropped.parquet with the reason
    #[arg(long, value_name = "OUT")]
    pub out: PathBuf,
    /// The format of every file instead of finding it from the first rows
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(import::formats()))]
    pub format: Option<String>,
    /// Write preference pairs (prompt, chosen, rejected) instead of prompts
    #[arg(long)]
    pub preferences: bool,
    /// The kind of every prompt, whatever the source says
    #[arg(long, value_parser = PossibleValuesParser::new(PromptKind::ALL.map(PromptKind::name)))]
    pub kind: Option<String>,
    /// The name in the column `source` instead of the format's or the file's
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Which field of plain rows holds what, e.g. instruction=question; for several, repeat it
    #[arg(long, value_name = "TARGET=FIELD", value_parser = parse_column)]
    pub column: Vec<(String, String)>,
    /// The share of prompts that go to the test split, by a hash of the prompt
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub test_fraction: f64,
    /// Keep the first N rows
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Drop prompts with fewer characters
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub min_chars: usize,
    /// Drop prompts with more characters
    #[arg(long, value_name = "N")]
    pub max_chars: Option<usize>,
    /// SHP: drop pairs whose score ratio is not above this
    #[arg(long, value_name = "RATIO", default_value_t = 2.0)]
    pub min_score_ratio: f64,
    /// OASST: keep trees in this state, or in any with `all`; for several, repeat it
    #[arg(long, value_name = "STATE", default_value = "ready_for_export")]
    pub tree_state: Vec<String>,
}

fn parse_column(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((target, field)) if !target.is_empty() && !field.is_empty() => Ok((target.into(), field.into())),
        _ => Err("expected TARGET=FIELD, e.g. instruction=question".into()),
    }
}

/// A bar over the bytes of all files; it shows only where stderr is a terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Runs the command.
///
/// # Errors
/// As [`import::import`], and a store error for a URL that cannot be read.
pub async fn run(args: ImportArgs) -> Result<()> {
    let mut files = Vec::with_capacity(args.files.len());
    for file in args.files {
        match file.to_str().filter(|text| store::is_url(text)) {
            Some(url) if url.starts_with("file://") => files.push(store::local(url, Path::new("")).await?),
            Some(url) => files.push(Remote::find(url).await?.fetch_file().await?),
            None => files.push(file),
        }
    }
    let options = Options {
        format: args.format,
        preferences: args.preferences,
        kind: args.kind.as_deref().and_then(PromptKind::from_name),
        source: args.source,
        columns: args.column,
        min_chars: args.min_chars,
        max_chars: args.max_chars,
        limit: args.limit,
        test_fraction: args.test_fraction,
        min_score_ratio: args.min_score_ratio,
        tree_states: args.tree_state,
    };
    let progress = progress_bar();
    let summary = import::import(&files, &args.out, &options, &progress);
    progress.finish_and_clear();
    match write!(std::io::stdout().lock(), "{}", summary?) {
        // A reader that stopped early (`| head`) has what it wanted.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::store("stdout", "cannot be written").because(error))
        }
        _ => Ok(()),
    }
}
