//! Writes the rows of a query.
//!
//! In: a stream of record batches. Out: the same rows as text or Parquet, written as they come; only a table for people
//! waits for its rows, because their widths decide its columns, and shows the first of them.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use clap::ValueEnum;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::{Error, Result};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// A JSON array of objects.
    Json,
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated, with a header.
    Csv,
    /// Tab-separated, with a header.
    Tsv,
    /// A Parquet file.
    Parquet,
}

/// How a table for people looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Rows at most; 0 for all.
    pub(super) max_rows: usize,
    /// One line per value instead of one per row.
    pub(super) expanded: bool,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written {
    pub(super) rows: usize,
    /// Whether there were more.
    pub(super) more: bool,
    /// Whether the statement has rows at all; one that defines something has not.
    pub(super) asked: bool,
}

/// Writes all rows of `stream`, or the first ones of a table.
///
/// # Errors
/// The query's, or a store error where they cannot be written.
pub(super) async fn write_rows(
    mut stream: SendableRecordBatchStream,
    format: Format,
    look: Look,
    out: &mut (dyn Write + Send),
) -> Result<Written> {
    let schema = stream.schema();
    if format == Format::Table {
        let (rows, more) = first(&mut stream, look.max_rows).await?;
        let count = rows.iter().map(RecordBatch::num_rows).sum();
        let text = if look.expanded { expanded(&rows)? } else { table(schema, rows)? };
        write(out, text.as_bytes())?;
        return Ok(Written { rows: count, more, asked: true });
    }
    let closed = Arc::new(AtomicBool::new(false));
    let mut writer = Writer::new(format, &schema, Pipe { out, closed: Arc::clone(&closed) })?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        writer.write(&batch)?;
        if closed.load(Ordering::Relaxed) {
            return Ok(Written { rows, more: false, asked: true });
        }
    }
    writer.finish()?;
    Ok(Written { rows, more: false, asked: true })
}

/// The first rows, and whether there are more; the rest of the query is not run.
async fn first(stream: &mut SendableRecordBatchStream, max_rows: usize) -> Result<(Vec<RecordBatch>, bool)> {
    let (mut rows, mut count) = (Vec::new(), 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let left = if max_rows == 0 { usize::MAX } else { max_rows - count };
        if batch.num_rows() > left {
            rows.push(batch.slice(0, left));
            return Ok((rows, true));
        }
        count += batch.num_rows();
        rows.push(batch);
    }
    Ok((rows, false))
}

fn table(schema: SchemaRef, rows: Vec<RecordBatch>) -> Result<String> {
    let rows = if rows.is_empty() { vec![RecordBatch::new_empty(schema)] } else { rows };
    Ok(format!("{}\n", pretty_format_batches(&rows)?))
}

/// psql's `\x`: a block for each row, a line for each value.
fn expanded(rows: &[RecordBatch]) -> Result<String> {
    let (mut text, mut number) = (String::new(), 0);
    for batch in rows {
        let schema = batch.schema();
        let width = schema.fields().iter().map(|field| field.name().chars().count()).max().unwrap_or(0);
        let options = FormatOptions::default();
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            number += 1;
            text += &format!("-[ row {number} ]-\n");
            for (field, column) in schema.fields().iter().zip(&columns) {
                let value = column.value(row).try_to_string()?.replace('\n', &format!("\n{:width$} | ", ""));
                text += &format!("{:width$} | {value}\n", field.name());
            }
        }
    }
    Ok(text)
}

/// A format that is written batch by batch.
enum Writer<'a> {
    Array(arrow::json::Writer<Pipe<'a>, JsonArray>),
    Lines(arrow::json::Writer<Pipe<'a>, LineDelimited>),
    Values(Box<arrow::csv::Writer<Pipe<'a>>>),
    Parquet(Box<ArrowWriter<Pipe<'a>>>),
}

impl<'a> Writer<'a> {
    fn new(format: Format, schema: &SchemaRef, out: Pipe<'a>) -> Result<Self> {
        let json = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
        let values = arrow::csv::WriterBuilder::new().with_header(true);
        Ok(match format {
            Format::Json => Writer::Array(json.build(out)),
            Format::Ndjson => Writer::Lines(json.build(out)),
            Format::Csv | Format::Tsv => {
                let separator = if format == Format::Csv { b',' } else { b'\t' };
                let mut writer = values.with_delimiter(separator).build(out);
                // The header is written with the first batch, and is there when there is none.
                writer.write(&flat(&RecordBatch::new_empty(Arc::clone(schema)))?)?;
                Writer::Values(Box::new(writer))
            }
            Format::Parquet | Format::Table => {
                let level = ZstdLevel::try_new(3).map_err(|e| Error::internal("Parquet", e))?;
                let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
                let writer = ArrowWriter::try_new(out, Arc::clone(schema), Some(properties));
                Writer::Parquet(Box::new(writer.map_err(unwritten)?))
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Writer::Array(writer) => Ok(writer.write(batch)?),
            Writer::Lines(writer) => Ok(writer.write(batch)?),
            Writer::Values(writer) => Ok(writer.write(&flat(batch)?)?),
            Writer::Parquet(writer) => writer.write(batch).map_err(unwritten),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Writer::Array(mut writer) => {
                writer.finish()?;
                write(writer.get_mut(), b"\n")
            }
            Writer::Lines(mut writer) => Ok(writer.finish()?),
            Writer::Values(_) => Ok(()),
            Writer::Parquet(writer) => writer.close().map(drop).map_err(unwritten),
        }
    }
}

fn unwritten(e: parquet::errors::ParquetError) -> Error {
    Error::store("output", "the Parquet file cannot be written").because(e)
}

/// The batch with lists and structs as JSON, which is what separated values can hold of them.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let nested = field.data_type().is_nested();
        fields.push(if nested { Arc::new(Field::new(field.name(), DataType::Utf8, true)) } else { Arc::clone(field) });
        columns.push(if nested { json_texts(field, column)? } else { Arc::clone(column) });
    }
    let rows = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)?)
}

fn json_texts(field: &Field, column: &ArrayRef) -> Result<ArrayRef> {
    let schema = Schema::new(vec![Field::new("v", field.data_type().clone(), true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::clone(column)])?;
    let mut lines = arrow::json::WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    lines.write(&batch)?;
    lines.finish()?;
    let lines = lines.into_inner();
    let lines = std::str::from_utf8(&lines).map_err(|e| Error::internal("JSON", e))?;
    let value = |line: &str| line.strip_prefix("{\"v\":").and_then(|line| line.strip_suffix('}')).map(str::to_string);
    let texts = lines.lines().map(|line| value(line).filter(|text| text != "null"));
    Ok(Arc::new(StringArray::from_iter(texts)))
}

/// An output whose reader may go away, such as `head` that has seen enough: that is no error.
struct Pipe<'a> {
    out: &'a mut (dyn Write + Send),
    closed: Arc<AtomicBool>,
}

impl Pipe<'_> {
    fn unless_closed<T>(&self, done: std::io::Result<T>, otherwise: T) -> std::io::Result<T> {
        match done {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                self.closed.store(true, Ordering::Relaxed);
                Ok(otherwise)
            }
            done => done,
        }
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let done = self.out.write(bytes);
        self.unless_closed(done, bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let done = self.out.flush();
        self.unless_closed(done, ())
    }
}

/// Writes to standard output.
pub(in crate::cli) fn say(text: &str) -> Result<()> {
    write(&mut std::io::stdout().lock(), text.as_bytes())
}

fn write(out: &mut (impl Write + ?Sized), bytes: &[u8]) -> Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|e| Error::store("output", "cannot be written").because(e)),
    }
}

/// A table of texts, for what the shell itself has to say.
pub(super) fn texts<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> Result<RecordBatch> {
    let column = |i: usize| Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row[i]))) as ArrayRef;
    let columns = names.into_iter().enumerate().map(|(i, name)| (name, column(i)));
    Ok(RecordBatch::try_from_iter(columns)?)
}
