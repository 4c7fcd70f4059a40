//! Import: any of the known prompt and preference formats -> one clean Parquet file.
//!
//! ```text
//! files ─> read (gzip, JSON lines / array, CSV, Parquet) ─> rows ─> format ─> prompt | pair ─> target ─> OUT.parquet
//!             └─ torn, malformed, too long ───────────────────────────┴─ deleted, tie ─┴─ duplicate ─> OUT.dropped.parquet
//! ```
//!
//! In: files nobody checked. Out: the `prompts` or the `human_preferences` table, and every row that is not in it with
//! the reason why: `read = kept + dropped` for every file. Rows stream; what is held is one row, one batch and 32 bytes
//! per kept row. The same files give the same bytes, and nothing is written when reading fails.

mod clean;
mod detect;
mod dialogue;
mod format;
mod language;
mod read;
mod reason;
mod row;
mod sink;
mod summary;
mod tables;
mod target;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

pub(crate) use read::guarded;
pub use reason::Reason;
pub use summary::{FileSummary, Summary};
pub use tables::{dropped, human_preferences};

use crate::store::shown;
use crate::{Error, Result};
use format::{Context, Format};
use read::{Record, Records};
use reason::Refusal;
use row::Row;
use sink::{Cell, Sink};
use target::Target;

/// Rows of a file that its format is told from.
const SAMPLE_ROWS: usize = 16;

/// What a prompt asks for; it decides which principles are drawn more often and how length is rewarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptKind {
    /// Anything else.
    General,
    /// A question with a line of thought to a checkable answer.
    Reasoning,
    /// An attempt to get something harmful.
    RedTeaming,
}

impl PromptKind {
    /// Every kind.
    pub const ALL: [PromptKind; 3] = [PromptKind::General, PromptKind::Reasoning, PromptKind::RedTeaming];

    /// The name in the `prompts` table and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PromptKind::General => "general",
            PromptKind::Reasoning => "reasoning",
            PromptKind::RedTeaming => "red_teaming",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The multiplier of the length bonus in RL (SALMON's published values).
    pub fn length_bonus(self) -> f64 {
        match self {
            PromptKind::Reasoning => -0.4,
            PromptKind::General | PromptKind::RedTeaming => 1.0,
        }
    }
}

/// How to import.
#[derive(Debug, Clone)]
pub struct Options {
    /// The format of every file; found per file from its first rows when missing.
    pub format: Option<String>,
    /// Write preference pairs instead of prompts.
    pub preferences: bool,
    /// The kind of every prompt, whatever the source says.
    pub kind: Option<PromptKind>,
    /// The source of every row; the format's or the file's name when missing.
    pub source: Option<String>,
    /// (target, field): which field of plain rows holds what.
    pub columns: Vec<(String, String)>,
    /// Shorter prompts are dropped, in characters.
    pub min_chars: usize,
    /// Longer prompts are dropped, in characters.
    pub max_chars: Option<usize>,
    /// Stop after this many kept rows.
    pub limit: Option<u64>,
    /// The share of prompts in the test split, 0 to 1.
    pub test_fraction: f64,
    /// SHP pairs whose `score_ratio` is not above this are dropped.
    pub min_score_ratio: f64,
    /// OpenAssistant tree states that are kept; `all` stands for any.
    pub tree_states: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            format: None,
            preferences: false,
            kind: None,
            source: None,
            columns: Vec::new(),
            min_chars: 1,
            max_chars: None,
            limit: None,
            test_fraction: 0.0,
            min_score_ratio: 2.0,
            tree_states: vec!["ready_for_export".into()],
        }
    }
}

/// The names of the formats, as `--format` takes them.
pub fn formats() -> impl Iterator<Item = &'static str> {
    format::ALL.iter().map(|format| format.name())
}

/// Imports files and folders into `out`, and the rows that were not kept into `<out>.dropped.parquet`.
///
/// `progress` is set to the size of all files and advances by the bytes read. Errors: `Config` for options that make
/// no sense, `Data` for a file that cannot be read on or whose format is unknown, or when no row was kept at all (then
/// only the dropped rows are written), `Store` when an output cannot be written.
pub fn import(inputs: &[PathBuf], out: &Path, options: &Options, progress: &ProgressBar) -> Result<Summary> {
    check(out, options)?;
    let forced = forced_format(options)?;
    let dropped_out = dropped_path(out);
    let files = read::files(inputs, &[out, &dropped_out])?;
    progress.set_length(files.iter().filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum());
    let mut import = Import {
        options,
        forced,
        target: Target::new(out, options)?,
        dropped: Sink::new(&dropped_out, &tables::dropped())?,
        left: options.limit.unwrap_or(u64::MAX),
    };
    let mut summary = Summary { files: Vec::new(), out: out.to_owned(), dropped_out };
    for path in &files {
        if import.left == 0 {
            break;
        }
        summary.files.push(import.file(path, progress)?);
    }
    let Import { target, dropped, .. } = import;
    dropped.commit()?;
    let total = summary.total();
    if total.kept == 0 {
        let why = if total.read == 0 { String::new() } else { format!(" ({})", summary::reasons(&total.dropped)) };
        return Err(Error::data(
            inputs.first().map(|input| shown(input)).unwrap_or_default(),
            format_args!("no row was kept of {} read{why}; see {}", total.read, summary.dropped_out.display()),
        ));
    }
    target.commit()?;
    Ok(summary)
}

/// An import under way.
struct Import<'a> {
    options: &'a Options,
    forced: Option<&'static dyn Format>,
    target: Target<'a>,
    dropped: Sink,
    /// How many more rows may be kept.
    left: u64,
}

impl Import<'_> {
    /// Imports one file.
    fn file(&mut self, path: &Path, progress: &ProgressBar) -> Result<FileSummary> {
        let name = shown(path);
        progress.set_message(name.clone());
        let mut records = read::open(path, progress)?;
        let sample = records.by_ref().take(SAMPLE_ROWS).collect::<Result<Vec<Record>>>()?;
        let mut summary = FileSummary { file: name.clone(), format: None, read: 0, kept: 0, dropped: BTreeMap::new() };
        if sample.is_empty() {
            tracing::warn!("{name}: the file has no rows");
            return Ok(summary);
        }
        let format = match self.forced {
            Some(format) => format,
            None => detect::format(&name, &sample, self.options.preferences)?,
        };
        detect::check_columns(&name, &sample, &self.options.columns)?;
        tracing::info!("{name}: reading as {}", format.name());
        summary.format = Some(format.name());
        let source = self.options.source.clone().unwrap_or_else(|| source_name(format, path));
        let context = Context { options: self.options, file: &name };
        let records: Records = Box::new(sample.into_iter().map(Ok).chain(records));
        for record in records {
            let Record { row, fields, excerpt } = record?;
            summary.read += 1;
            let taken = match fields {
                Ok(fields) => self.target.take(format, Row(&fields), context, &source)?,
                Err(refusal) => Err(refusal),
            };
            match taken {
                Ok(()) => {
                    summary.kept += 1;
                    self.left -= 1;
                    if self.left == 0 {
                        break;
                    }
                }
                Err(refusal) => {
                    *summary.dropped.entry(refusal.reason).or_default() += 1;
                    self.drop_row(&name, row, &refusal, excerpt)?;
                }
            }
        }
        Ok(summary)
    }

    fn drop_row(&mut self, name: &str, row: u64, refusal: &Refusal, excerpt: String) -> Result<()> {
        let excerpt = refusal.text.as_deref().map_or(excerpt, clean::excerpt);
        self.dropped.push(&[
            Cell::Text(name),
            Cell::Int(row as i64),
            Cell::Text(refusal.reason.name()),
            Cell::OptionalText(Some(refusal.detail.as_str()).filter(|detail| !detail.is_empty())),
            Cell::Text(&excerpt),
        ])
    }
}

fn forced_format(options: &Options) -> Result<Option<&'static dyn Format>> {
    let name = match &options.format {
        Some(name) => name.as_str(),
        None if options.columns.is_empty() => return Ok(None),
        None => "plain",
    };
    let known = || formats().collect::<Vec<_>>().join(", ");
    let format = format::by_name(name)
        .ok_or_else(|| Error::config("--format", format_args!("no format `{name}`; known: {}", known())))?;
    if !options.columns.is_empty() && name != "plain" {
        return Err(Error::config("--column", format_args!("only the format plain has columns to map, not {name}")));
    }
    if options.preferences && !format.has_pairs() {
        return Err(Error::config("--preferences", format_args!("the format {name} has no preference pairs")));
    }
    Ok(Some(format))
}

fn check(out: &Path, options: &Options) -> Result<()> {
    if out.to_string_lossy().contains("://") {
        return Err(Error::config("--out", "is a URL; an import writes to a local file"));
    }
    if !(0.0..=1.0).contains(&options.test_fraction) {
        return Err(Error::config("--test-fraction", format_args!("{} is not from 0 to 1", options.test_fraction)));
    }
    if options.min_score_ratio.is_nan() {
        return Err(Error::config("--min-score-ratio", "is not a number"));
    }
    if options.max_chars.is_some_and(|max| max < options.min_chars) {
        return Err(Error::config("--max-chars", "is smaller than --min-chars, so that no prompt would be kept"));
    }
    if options.limit == Some(0) {
        return Err(Error::config("--limit", "is 0, so that no row would be kept"));
    }
    match options.columns.iter().find(|(target, _)| !format::TARGETS.contains(&target.as_str())) {
        Some((target, _)) => Err(Error::config(
            "--column",
            format_args!("`{target}` is nothing to map to; known: {}", format::TARGETS.join(", ")),
        )),
        None => Ok(()),
    }
}

/// `prompts.parquet` -> `prompts.dropped.parquet`.
fn dropped_path(out: &Path) -> PathBuf {
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".parquet").unwrap_or(&name);
    out.with_file_name(format!("{stem}.dropped.parquet"))
}

/// The dataset's name: the format's where it stands for one dataset, else the file's without its extensions.
fn source_name(format: &dyn Format, path: &Path) -> String {
    if !format.is_layout() {
        return format.name().into();
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    stem.rsplit_once('.').map_or(stem, |(stem, _)| stem).to_owned()
}
