//! The Parquet sink: rows in, parts out, the same bytes for the same rows.
//!
//! In: record batches of any size. Out: `part-00000.parquet`, `part-00001.parquet`, ... as zstd, in row order. Row
//! groups and parts end where the rows themselves say so (a count of rows or of bytes of values, whichever comes
//! first), never where a batch happened to end, and no time or host is written, so that the parts of two attempts
//! are equal byte for byte. At most one row group is held in memory.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::conform::Conform;
use super::{FileEntry, Store, Upload, Version};
use crate::table::Table;
use crate::{Error, Result};

/// Where row groups and parts end. Bytes are those of the values before encoding.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows of a row group.
    pub group_rows: usize,
    /// Bytes of a row group; long texts make short row groups.
    pub group_bytes: usize,
    /// Rows of a part.
    pub part_rows: usize,
    /// Bytes of a part.
    pub part_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { group_rows: 16_384, group_bytes: 8 << 20, part_rows: 1 << 20, part_bytes: 512 << 20 }
    }
}

/// The name of part `number` of a table.
pub(super) fn part_name(number: usize) -> String {
    format!("part-{number:05}.parquet")
}

/// A table version being written.
#[derive(Debug)]
pub struct TableSink {
    store: Store,
    version: Version,
    conform: Conform,
    schema: SchemaRef,
    limits: Limits,
    /// Rows of the row group being filled.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
    part: Option<Part>,
    /// Number of the next part.
    next: usize,
    parts: Vec<FileEntry>,
}

/// The part being written.
#[derive(Debug)]
struct Part {
    name: String,
    writer: ArrowWriter<Vec<u8>>,
    upload: Upload,
    rows: usize,
    bytes: usize,
}

impl TableSink {
    /// A sink for `version` of `table`, with parts from 0.
    pub fn new(store: &Store, version: &Version, table: &Table, limits: Limits) -> Self {
        let schema = table.schema();
        TableSink {
            store: store.clone(),
            version: version.clone(),
            conform: Conform::new(table.name, Arc::clone(&schema)),
            schema,
            limits,
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            part: None,
            next: 0,
            parts: Vec::new(),
        }
    }

    /// A sink for the one part `number`, however long it gets.
    pub(super) fn one_part(store: &Store, version: &Version, table: &Table, number: usize) -> Self {
        let limits = Limits { part_rows: usize::MAX, part_bytes: usize::MAX, ..Limits::default() };
        TableSink { next: number, ..TableSink::new(store, version, table, limits) }
    }

    /// Adds rows. They are converted to the table's declared columns.
    ///
    /// # Errors
    /// A data error naming table, column and row (from 1) for a missing or unknown column, a wrong type, a null
    /// where a value is needed; a store error when writing fails.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = self.conform.batch(batch)?;
        let mut widths = vec![0usize; batch.num_rows()];
        for column in batch.columns() {
            add_widths(column, &mut widths);
        }
        let mut start = 0;
        for (row, width) in widths.into_iter().enumerate() {
            self.pending_rows += 1;
            self.pending_bytes += width;
            if self.pending_rows >= self.limits.group_rows || self.pending_bytes >= self.limits.group_bytes {
                self.pending.push(batch.slice(start, row + 1 - start));
                start = row + 1;
                self.end_group().await?;
            }
        }
        if start < batch.num_rows() {
            self.pending.push(batch.slice(start, batch.num_rows() - start));
        }
        Ok(())
    }

    /// Writes what is left and gives the parts. A table without rows has one part without rows, so that other
    /// tools still find its columns.
    ///
    /// # Errors
    /// A store error when writing fails.
    pub async fn finish(mut self) -> Result<Vec<FileEntry>> {
        if self.pending_rows > 0 {
            self.end_group().await?;
        }
        if self.part.is_none() && self.parts.is_empty() {
            self.part = Some(self.begin_part()?);
        }
        self.end_part().await?;
        Ok(self.parts)
    }

    async fn end_group(&mut self) -> Result<()> {
        let rows = concat_batches(&self.schema, &self.pending)?;
        let (count, bytes) = (self.pending_rows, self.pending_bytes);
        self.pending.clear();
        (self.pending_rows, self.pending_bytes) = (0, 0);
        let mut part = match self.part.take() {
            Some(part) => part,
            None => self.begin_part()?,
        };
        let name = self.store.name_of(&self.version.key(&part.name));
        let encoded = encode(&mut part.writer, &rows)
            .map_err(|e| Error::store(name, "these rows cannot be written as Parquet").because(e))?;
        part.upload.write(Bytes::from(encoded)).await?;
        part.rows += count;
        part.bytes += bytes;
        let full = part.rows >= self.limits.part_rows || part.bytes >= self.limits.part_bytes;
        self.part = Some(part);
        if full { self.end_part().await } else { Ok(()) }
    }

    fn begin_part(&mut self) -> Result<Part> {
        let name = part_name(self.next);
        self.next += 1;
        let key = self.version.key(&name);
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&self.schema), Some(properties())).map_err(|e| {
            Error::store(self.store.name_of(&key), "these columns cannot be written as Parquet").because(e)
        })?;
        Ok(Part { name, writer, upload: self.store.upload(&key)?, rows: 0, bytes: 0 })
    }

    async fn end_part(&mut self) -> Result<()> {
        let Some(Part { name, mut writer, mut upload, rows, .. }) = self.part.take() else { return Ok(()) };
        writer.finish().map_err(|e| {
            Error::store(self.store.name_of(&self.version.key(&name)), "this part cannot be ended").because(e)
        })?;
        upload.write(Bytes::from(std::mem::take(writer.inner_mut()))).await?;
        self.parts.push(FileEntry::new(name, upload.finish().await?, rows as u64));
        Ok(())
    }
}

/// Encodes one row group and takes its bytes out of the writer.
fn encode(writer: &mut ArrowWriter<Vec<u8>>, rows: &RecordBatch) -> parquet::errors::Result<Vec<u8>> {
    writer.write(rows)?;
    writer.flush()?;
    Ok(std::mem::take(writer.inner_mut()))
}

/// Fixed properties: anything that changes here changes bytes, so raise no default by accident.
fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by("salmon".into())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap_or_default()))
        // The sink ends row groups itself.
        .set_max_row_group_row_count(None)
        .build()
}

/// Adds the bytes of every row's values to `widths`: text and list lengths, nothing about their layout.
fn add_widths(array: &ArrayRef, widths: &mut [usize]) {
    match array.data_type() {
        DataType::Utf8 => {
            let offsets = array.as_string::<i32>().value_offsets();
            for (width, pair) in widths.iter_mut().zip(offsets.windows(2)) {
                *width += (pair[1] - pair[0]) as usize;
            }
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let mut inner = vec![0usize; list.values().len()];
            add_widths(list.values(), &mut inner);
            for (width, pair) in widths.iter_mut().zip(list.value_offsets().windows(2)) {
                *width += inner.get(pair[0] as usize..pair[1] as usize).map_or(0, |items| items.iter().sum());
            }
        }
        DataType::Struct(_) => array.as_struct().columns().iter().for_each(|column| add_widths(column, widths)),
        other => {
            let bytes = other.primitive_width().unwrap_or(1);
            widths.iter_mut().for_each(|width| *width += bytes);
        }
    }
}
