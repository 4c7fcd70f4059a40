//! The Parquet files of `[data]`, row by row.
//!
//! In: files as `salmon import` writes them. Out: how many rows there are and their prompts, or what is wrong and in
//! which row first. Rows are counted from 1.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Report;
use super::place::Places;
use crate::Result;
use crate::config::Config;
use crate::import::guarded;
use crate::principle::KINDS;
use crate::store;
use crate::table;

/// What the files hold.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// Distinct training prompts.
    pub(super) train: Vec<String>,
    /// Distinct test prompts.
    pub(super) test: u64,
    /// Human preferences.
    pub(super) preferences: u64,
}

/// Columns that a row must fill.
const PREFERENCES: [&str; 3] = ["prompt", "chosen", "rejected"];

/// Looks at all files.
pub(super) async fn check(config: &Config, folder: &Path, places: &Places, report: &mut Report) -> Result<Data> {
    let mut data = Data::default();
    let mut seen = HashSet::new();
    let place = places.of("data.prompts");
    let before = report.findings.len();
    if config.data.prompts.is_empty() {
        report.finding(format!("{place}: names no files; `salmon import` makes them"));
    }
    for file in &config.data.prompts {
        let before = report.findings.len();
        let Some((path, shown)) = find(file, folder, report).await else { continue };
        let (train, test) = (data.train.len(), data.test);
        let columns: Vec<(&str, DataType)> =
            table::prompts().columns.into_iter().map(|c| (c.name, c.data_type)).collect();
        let rows = scan(&path, &shown, &place, &columns, report, |batch, first, bad| {
            prompts(batch, first, bad, &mut seen, &mut data);
        });
        let counts = format!("{} train and {} test prompts", data.train.len() - train, data.test - test);
        report.done(before, format!("data.prompts: {shown}: {rows} rows, {counts}"))?;
    }
    if report.findings.len() == before && data.train.is_empty() {
        report.finding(format!("{place}: the files hold no training prompt (split = 'train')"));
    }
    if report.findings.len() == before && data.test == 0 {
        report.note(format!("{place}: no prompt has split = 'test'; policies cannot be evaluated"));
    }
    if config.reward_pretraining.is_some() {
        let place = places.of("data.human_preferences");
        if config.data.human_preferences.is_empty() {
            report.finding(format!("{place}: names no files, and [reward_pretraining] needs them"));
        }
        for file in &config.data.human_preferences {
            let before = report.findings.len();
            let Some((path, shown)) = find(file, folder, report).await else { continue };
            let columns = PREFERENCES.map(|name| (name, DataType::Utf8));
            let rows = scan(&path, &shown, &place, &columns, report, |batch, first, bad| {
                PREFERENCES.iter().for_each(|name| filled(batch, name, first, bad));
            });
            data.preferences += rows;
            report.done(before, format!("data.human_preferences: {shown}: {rows} rows"))?;
        }
    }
    Ok(data)
}

/// A file on this machine and how it is shown; a URL's is fetched.
async fn find(file: &str, folder: &Path, report: &mut Report) -> Option<(PathBuf, String)> {
    match store::local(file, folder).await {
        Ok(path) if store::is_url(file) => Some((path, file.to_string())),
        Ok(path) => {
            let shown = path.display().to_string();
            Some((path, shown))
        }
        Err(error) => {
            report.finding(error);
            None
        }
    }
}

/// Problems by text: the first row that has it, and in how many rows it is.
type Bad = BTreeMap<String, (u64, u64)>;

fn note(bad: &mut Bad, problem: impl Into<String>, row: u64) {
    bad.entry(problem.into()).or_insert((row, 0)).1 += 1;
}

/// Reads the columns of one file; `each` gets batches of the columns' own types and the number of their first row.
fn scan(
    path: &Path,
    shown: &str,
    place: &str,
    columns: &[(&str, DataType)],
    report: &mut Report,
    each: impl FnMut(&RecordBatch, u64, &mut Bad),
) -> u64 {
    // The Parquet library may panic on a damaged file.
    match guarded(shown, || Ok(read(path, shown, place, columns, report, each))) {
        Ok(rows) => rows,
        Err(error) => {
            report.finding(error);
            0
        }
    }
}

fn read(
    path: &Path,
    shown: &str,
    place: &str,
    columns: &[(&str, DataType)],
    report: &mut Report,
    mut each: impl FnMut(&RecordBatch, u64, &mut Bad),
) -> u64 {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) => {
            report.finding(format!("{place}: {shown} cannot be opened; `salmon import` makes it ({e})"));
            return 0;
        }
    };
    let reader = match ParquetRecordBatchReaderBuilder::try_new(file) {
        Ok(reader) => reader,
        Err(e) => {
            report
                .finding(format!("{shown}: is not Parquet that can be read; make it again with `salmon import` ({e})"));
            return 0;
        }
    };
    let before = report.findings.len();
    for (name, expected) in columns {
        match reader.schema().field_with_name(name) {
            Err(_) => report.finding(format!("{shown}: has no column `{name}`; it has {}", listed(reader.schema()))),
            Ok(field) if !fits(field.data_type(), expected) => {
                report.finding(format!("{shown}: column `{name}` is {}, it must be {expected}", field.data_type()));
            }
            Ok(_) => {}
        }
    }
    if report.findings.len() > before {
        return 0;
    }
    let (mut rows, mut bad) = (0, Bad::new());
    let batches = match reader.build() {
        Ok(batches) => batches,
        Err(e) => {
            report.finding(format!("{shown}: cannot be read ({e})"));
            return 0;
        }
    };
    for batch in batches {
        match batch.and_then(|batch| typed(&batch, columns)) {
            Ok(batch) => {
                each(&batch, rows + 1, &mut bad);
                rows += batch.num_rows() as u64;
            }
            Err(e) => {
                report.finding(format!("{shown}: cannot be read after row {rows}; is it damaged? ({e})"));
                break;
            }
        }
    }
    for (problem, (row, n)) in bad {
        let more = if n > 1 { format!(" (and {} more rows)", n - 1) } else { String::new() };
        report.finding(format!("{shown}: row {row}: {problem}{more}"));
    }
    if rows == 0 && report.findings.len() == before {
        report.finding(format!("{shown}: holds no rows; look at what `salmon import` dropped"));
    }
    rows
}

fn listed(schema: &Schema) -> String {
    schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

/// Whether a file's type can stand for the table's.
fn fits(found: &DataType, expected: &DataType) -> bool {
    match (found, expected) {
        (DataType::LargeUtf8 | DataType::Utf8View | DataType::Null, DataType::Utf8) => true,
        (found, DataType::Float64) => found.is_numeric(),
        _ => found == expected,
    }
}

/// The columns in the table's types.
fn typed(batch: &RecordBatch, columns: &[(&str, DataType)]) -> std::result::Result<RecordBatch, ArrowError> {
    let mut cells = Vec::with_capacity(columns.len());
    for (name, to) in columns {
        let missing = || ArrowError::SchemaError(format!("no column {name}"));
        cells.push((*name, cast(batch.column_by_name(name).ok_or_else(missing)?, to)?, true));
    }
    RecordBatch::try_from_iter_with_nullable(cells)
}

/// Notes the rows in which a text is missing or empty.
fn filled(batch: &RecordBatch, name: &str, first: u64, bad: &mut Bad) {
    let Some(texts) = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>()) else { return };
    for (i, text) in texts.iter().enumerate() {
        match text {
            None => note(bad, format!("{name} is null"), first + i as u64),
            Some(text) if text.trim().is_empty() => note(bad, format!("{name} is empty"), first + i as u64),
            Some(_) => {}
        }
    }
}

/// Checks a batch of prompts and counts them.
fn prompts(batch: &RecordBatch, first: u64, bad: &mut Bad, seen: &mut HashSet<String>, data: &mut Data) {
    ["prompt_id", "instruction", "source"].iter().for_each(|name| filled(batch, name, first, bad));
    let text = |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let (Some(ids), Some(instructions)) = (text("prompt_id"), text("instruction")) else { return };
    let (Some(kinds), Some(splits)) = (text("kind"), text("split")) else { return };
    let bonus = batch.column_by_name("length_bonus");
    for i in 0..batch.num_rows() {
        let row = first + i as u64;
        let value = |texts: &arrow::array::StringArray| texts.is_valid(i).then(|| texts.value(i).to_string());
        let kind = value(kinds).unwrap_or_default();
        if !KINDS.contains(&kind.as_str()) {
            note(bad, format!("kind is `{kind}`; it must be one of {}", KINDS.join(", ")), row);
        }
        if bonus.is_none_or(|bonus| bonus.is_null(i)) {
            note(bad, "length_bonus is null", row);
        }
        // A prompt_id that comes again is the same prompt: the first one counts.
        let new = value(ids).is_none_or(|id| seen.insert(id));
        match value(splits).as_deref() {
            Some("train") if new => data.train.extend(value(instructions)),
            Some("test") if new => data.test += 1,
            Some("train" | "test") => {}
            other => note(bad, format!("split is `{}`; it must be train or test", other.unwrap_or("null")), row),
        }
    }
}
