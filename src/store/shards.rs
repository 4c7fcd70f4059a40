//! Progress of a long stage, shard by shard.
//!
//! In: the rows of shard `i` of `n`. Out: `part-<i>.parquet` and, after it, a marker `shards/<i>.json` with the
//! part's checksum. A later attempt at the same version reads each marker, verifies its part, and skips the
//! shard. Parts are named by shard, so a resumed table equals an uninterrupted one byte for byte.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures::{Stream, StreamExt};

use super::manifest::Marker;
use super::parquet::TableSink;
use super::{FileEntry, Store, Version};
use crate::table::Table;
use crate::{Error, Result};

/// The shards of one table version being made.
#[derive(Debug)]
pub struct Shards {
    store: Store,
    version: Version,
    table: Table,
    count: usize,
    done: Mutex<BTreeMap<usize, FileEntry>>,
}

impl Shards {
    /// Finds what earlier attempts finished of `version` in `count` shards. A shard whose marker or part is
    /// damaged, or which was cut for another count, is simply not done.
    ///
    /// # Errors
    /// A store error when the store cannot be read.
    pub async fn open(store: &Store, version: &Version, table: &Table, count: usize) -> Result<Self> {
        let keys: Vec<String> = store.list(&version.key("shards")).await?.into_iter().map(|entry| entry.key).collect();
        let check = |key: String| async move {
            let Some(marker) = Marker::read(store, &key).await? else { return Ok(None) };
            let (number, of) = (marker.number as usize, marker.of as usize);
            let [file] = marker.files.as_slice() else { return Ok(None) };
            if of != count || number >= count || !marker.intact(store, version).await? {
                return Ok(None);
            }
            Ok(Some((number, file.clone())))
        };
        let done = Store::each(keys, check).await?.into_iter().flatten().collect();
        Ok(Shards {
            store: store.clone(),
            version: version.clone(),
            table: table.clone(),
            count,
            done: Mutex::new(done),
        })
    }

    /// How many shards there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether shard `number` is committed.
    pub fn is_done(&self, number: usize) -> bool {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&number)
    }

    /// The shards still to make, in order.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.count).filter(|&number| !self.is_done(number)).collect()
    }

    /// How many shards are committed.
    pub fn done(&self) -> usize {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Rows of the committed shards.
    pub fn rows(&self) -> u64 {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).values().map(|file| file.rows).sum()
    }

    /// Writes and commits shard `number`; gives its rows. Shards may be written in any order and at once.
    ///
    /// # Errors
    /// The stream's own error, a data error as of [`TableSink::write`], or a store error; the shard is not
    /// committed then.
    pub async fn write<E: Into<Error>>(
        &self,
        number: usize,
        mut rows: impl Stream<Item = Result<arrow::array::RecordBatch, E>> + Unpin,
    ) -> Result<u64> {
        let mut sink = TableSink::one_part(&self.store, &self.version, &self.table, number);
        while let Some(batch) = rows.next().await {
            sink.write(&batch.map_err(Into::into)?).await?;
        }
        let files = sink.finish().await?;
        let [file] = files.as_slice() else {
            return Err(Error::internal(&self.version, "a shard made more than one part"));
        };
        let key = self.version.key(&format!("shards/{number:05}.json"));
        let marker = Marker::new(number as u64, self.count as u64, files.clone());
        marker.write(&self.store, &key).await?;
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(number, file.clone());
        Ok(file.rows)
    }

    /// The parts in shard order, for the manifest.
    ///
    /// # Errors
    /// An internal error when a shard is missing; a store error when the empty part of a table without any
    /// shard cannot be written.
    pub async fn finish(self) -> Result<Vec<FileEntry>> {
        if let Some(missing) = self.missing().first() {
            return Err(Error::internal(&self.version, format!("shard {missing} of {} was not written", self.count)));
        }
        if self.count == 0 {
            return TableSink::one_part(&self.store, &self.version, &self.table, 0).finish().await;
        }
        Ok(self.done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect())
    }
}
