//! Rows of a version by their number.
//!
//! In: a manifest and a range of row numbers. Out: those rows, in the order in which they were written. Sharded
//! stages cut their driver table with it; only the row groups that hold the range are read.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::async_reader::ParquetObjectReader;

use super::{Manifest, Store};
use crate::{Error, Result};

/// Rows `range` (from 0) of the table version `manifest` describes; a range beyond the end is cut.
///
/// # Errors
/// A store error that names the part which cannot be read.
pub async fn read_rows(store: &Store, manifest: &Manifest, range: Range<u64>) -> Result<Vec<RecordBatch>> {
    let version = manifest.version()?;
    let mut batches = Vec::new();
    let mut first = 0;
    for file in &manifest.files {
        let (start, end) = (range.start.max(first), range.end.min(first + file.rows));
        if start < end {
            file.present(store, &version).await?;
            let key = version.key(&file.path);
            let unreadable = |e: parquet::errors::ParquetError| {
                Error::store(store.name_of(&key), "cannot be read as Parquet; run its stage again with --force")
                    .because(super::fault::scrub(&e.to_string()))
            };
            let reader = ParquetObjectReader::new(Arc::clone(store.objects()), store.path(&key)?).with_file_size(file.size);
            let stream = ParquetRecordBatchStreamBuilder::new(reader)
                .await
                .map_err(unreadable)?
                .with_offset((start - first) as usize)
                .with_limit((end - start) as usize)
                .build()
                .map_err(unreadable)?;
            batches.extend(stream.try_collect::<Vec<_>>().await.map_err(unreadable)?);
        }
        first += file.rows;
    }
    Ok(batches)
}
