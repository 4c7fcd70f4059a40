//! Rows of a version by their number.
//!
//! In: a manifest and a range of row numbers. Out: those rows, in the order in which they were written. Sharded
//! stages cut their driver table with it; only the row groups that hold the range are read.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::{FileEntry, Manifest, Store, Version, fault};
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
            let unreadable = |e: ParquetError| {
                Error::store(store.name_of(&key), "cannot be read as Parquet; run its stage again with --force")
                    .because(fault::scrub(&e.to_string()))
            };
            let part = Part { objects: store.named(), path: store.path(&key)?, size: file.size };
            let stream = ParquetRecordBatchStreamBuilder::new(part)
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

/// The columns and the number of rows of one part, from its footer.
///
/// # Errors
/// A store error when it cannot be read as Parquet.
pub async fn part_facts(store: &Store, version: &Version, file: &FileEntry) -> Result<(SchemaRef, u64)> {
    let key = version.key(&file.path);
    let part = Part { objects: store.named(), path: store.path(&key)?, size: file.size };
    let reader = ParquetRecordBatchStreamBuilder::new(part).await.map_err(|e| {
        Error::store(store.name_of(&key), "cannot be read as Parquet; run its stage again with --force")
            .because(fault::scrub(&e.to_string()))
    })?;
    Ok((Arc::clone(reader.schema()), reader.metadata().file_metadata().num_rows().max(0) as u64))
}

/// A part as the Parquet reader wants it.
struct Part {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for Part {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.objects.get_range(&self.path, range).map_err(|e| ParquetError::External(Box::new(e))).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move { self.objects.get_ranges(&self.path, &ranges).await.map_err(|e| ParquetError::External(Box::new(e))) }
            .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let size = self.size;
        let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
        async move { reader.load_and_finish(self, size).await.map(Arc::new) }.boxed()
    }
}
