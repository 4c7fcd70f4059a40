//! The Parquet files that a configuration names.
//!
//! In: paths, and the columns that a statement reads. Out: a table in the session, after every row was looked at: what
//! `salmon import` wrote always passes, and of what others wrote the first bad row is named with its file.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::setup::{Setup, hash_file};
use crate::import::guarded;
use crate::store::shown;
use crate::table::Column;
use crate::{Error, Result};

/// The files of a configuration list, and their hashes as lineage parameters.
pub(super) fn data_files(setup: &Setup, key: &str, files: &[String]) -> Result<(Vec<PathBuf>, Vec<Value>)> {
    let path = |file: &String| setup.fetched.get(file).cloned().unwrap_or_else(|| setup.folder.join(file));
    let paths: Vec<PathBuf> = files.iter().map(path).collect();
    if paths.is_empty() {
        return Err(Error::config(key, "names no files; `salmon import` makes them"));
    }
    let hashes = paths
        .iter()
        .map(|path| {
            hash_file(path)
                .map(|hash| Value::String(hash.to_hex().to_string()))
                .map_err(|e| Error::data(shown(path), format!("named by {key}, cannot be read")).because(e))
        })
        .collect::<Result<_>>()?;
    Ok((paths, hashes))
}

/// Registers Parquet files as `name`.
///
/// # Errors
/// A data error with file and row for what is no Parquet file, lacks one of `columns`, has it in another type, or
/// without a value where one is needed.
pub(super) async fn file_table(
    ctx: &SessionContext,
    name: &str,
    columns: Vec<Column>,
    files: &[PathBuf],
) -> Result<()> {
    for file in files {
        let (file, columns) = (file.clone(), columns.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let place = shown(&file);
            guarded(&place, || check(&file, &place, &columns))
        });
        checked.await.map_err(|e| Error::internal("the check of a data file", e))??;
    }
    let paths: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    let options = ParquetReadOptions { file_extension: "", ..ParquetReadOptions::default() };
    let table = ctx.read_parquet(paths, options).await?;
    ctx.register_table(name, table.into_view())?;
    Ok(())
}

/// Looks at every row of a file.
fn check(path: &Path, place: &str, columns: &[Column]) -> Result<()> {
    let broken = |e: parquet::errors::ParquetError| {
        Error::data(place, "cannot be read as Parquet; `salmon import` makes such files").because(e)
    };
    let file = File::open(path).map_err(|e| Error::data(place, "cannot be read").because(e))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(broken)?;
    for column in columns {
        check_type(reader.schema(), place, column)?;
    }
    let wanted = ProjectionMask::columns(reader.parquet_schema(), columns.iter().map(|column| column.name));
    let mut row = 1;
    for batch in reader.with_projection(wanted).build().map_err(broken)? {
        let batch =
            batch.map_err(|e| Error::data(place, format!("is damaged at row {row} or behind it")).because(e))?;
        check_rows(&batch, place, row, columns)?;
        row += batch.num_rows();
    }
    Ok(())
}

fn check_type(schema: &Schema, place: &str, column: &Column) -> Result<()> {
    let name = column.name;
    let Ok(field) = schema.field_with_name(name) else {
        let problem = format!("has no column `{name}` ({}); `salmon import` makes such files", column.doc);
        return Err(Error::data(place, problem));
    };
    let (fits, wanted) = match column.data_type {
        DataType::Utf8 => (field.data_type().is_string(), "text"),
        _ => (field.data_type().is_numeric(), "a number"),
    };
    if fits || (column.nullable && field.data_type().is_null()) {
        return Ok(());
    }
    Err(Error::data(place, format!("column `{name}` is {}; it must be {wanted}", field.data_type())))
}

fn check_rows(batch: &RecordBatch, place: &str, first: usize, columns: &[Column]) -> Result<()> {
    let wrong = |row: usize, problem: String| Err(Error::data(format!("{place}, row {}", first + row), problem));
    for column in columns {
        let name = column.name;
        let Some(values) = batch.column_by_name(name) else { continue };
        if !column.nullable
            && let Some(row) = (0..values.len()).find(|&row| values.is_null(row))
        {
            return wrong(row, format!("`{name}` has no value; fill it in, or drop the row"));
        }
        // A split that nothing reads would make rows vanish.
        if name == "split"
            && let Some(splits) = values.as_string_opt::<i32>()
            && let Some(row) = splits.iter().position(|split| !matches!(split, Some("train" | "test")))
        {
            return wrong(row, format!("`split` is `{}`; it must be train or test", splits.value(row)));
        }
    }
    Ok(())
}
