//! Parquet files that appear whole or not at all.
//!
//! In: rows of text and integer cells in the order of a [`Table`]. Out: a file next to its final place, renamed to it
//! by [`Sink::commit`]; dropping the sink leaves nothing behind.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tempfile::NamedTempFile;

use crate::table::Table;
use crate::{Error, Result};

/// Rows and bytes after which waiting rows are encoded.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;
/// Rows and bytes of a row group: small, because readers hold whole groups of long texts.
const GROUP_ROWS: usize = 8192;
const GROUP_BYTES: usize = 32 << 20;

/// One value of a row.
pub(crate) enum Cell<'a> {
    Text(&'a str),
    OptionalText(Option<&'a str>),
    Int(i64),
    Real(f64),
}

enum Builder {
    Text(StringBuilder),
    Int(Int64Builder),
    Real(Float64Builder),
}

impl Builder {
    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Text(builder) => Arc::new(builder.finish()),
            Builder::Int(builder) => Arc::new(builder.finish()),
            Builder::Real(builder) => Arc::new(builder.finish()),
        }
    }
}

/// A Parquet file in the making.
pub(crate) struct Sink {
    path: PathBuf,
    schema: SchemaRef,
    columns: Vec<Builder>,
    /// Rows and bytes of text in `columns`.
    waiting: (usize, usize),
    writer: ArrowWriter<NamedTempFile>,
}

fn failed(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::store(path.display(), "cannot be written; check the folder and the space left").because(error)
}

impl Sink {
    /// Starts the file for `path`; its folder is made if it is missing.
    pub(crate) fn new(path: &Path, table: &Table) -> Result<Self> {
        if path.is_dir() {
            return Err(Error::config(path.display(), "is a folder; --out names a file, e.g. prompts.parquet"));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        let file = tempfile::Builder::new()
            .prefix(".salmon-import-")
            // The permissions of a new file under the user's umask, not a temporary file's private ones.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(|error| failed(path, error))?;
        let schema = table.schema();
        let columns = schema.fields().iter().map(|field| match field.data_type() {
            DataType::Int64 => Builder::Int(Int64Builder::new()),
            DataType::Float64 => Builder::Real(Float64Builder::new()),
            _ => Builder::Text(StringBuilder::new()),
        });
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .build();
        let columns = columns.collect();
        let schema_of_writer = Arc::clone(&schema);
        let writer =
            ArrowWriter::try_new(file, schema_of_writer, Some(properties)).map_err(|error| failed(path, error))?;
        Ok(Sink { path: path.to_owned(), schema, columns, waiting: (0, 0), writer })
    }

    /// Adds a row: one cell per column, of the column's type.
    pub(crate) fn push(&mut self, row: &[Cell<'_>]) -> Result<()> {
        if row.len() != self.columns.len() {
            return Err(Error::internal(self.path.display(), "a row has another width than its table"));
        }
        for (builder, cell) in self.columns.iter_mut().zip(row) {
            match (builder, cell) {
                (Builder::Text(builder), Cell::Text(text)) => {
                    self.waiting.1 += text.len();
                    builder.append_value(text);
                }
                (Builder::Text(builder), Cell::OptionalText(text)) => {
                    self.waiting.1 += text.map_or(0, str::len);
                    builder.append_option(*text);
                }
                (Builder::Int(builder), Cell::Int(number)) => builder.append_value(*number),
                (Builder::Real(builder), Cell::Real(number)) => builder.append_value(*number),
                _ => return Err(Error::internal(self.path.display(), "a cell has another type than its column")),
            }
        }
        self.waiting.0 += 1;
        if self.waiting.0 >= BATCH_ROWS || self.waiting.1 >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.waiting = (0, 0);
        let columns = self.columns.iter_mut().map(Builder::finish).collect();
        let batch =
            RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|error| failed(&self.path, error))?;
        self.writer.write(&batch).map_err(|error| failed(&self.path, error))
    }

    /// Writes what is waiting and puts the file in its place.
    pub(crate) fn commit(mut self) -> Result<()> {
        self.flush()?;
        let path = self.path;
        let file = self.writer.into_inner().map_err(|error| failed(&path, error))?;
        file.as_file().sync_all().map_err(|error| failed(&path, error))?;
        file.persist(&path).map_err(|error| failed(&path, error.error))?;
        Ok(())
    }
}
