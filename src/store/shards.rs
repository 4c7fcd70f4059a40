//! Progress of a long stage, shard by shard.
//!
//! In: the rows of shard `i` of `n`. Out: `part-<i>.parquet` and, after it, a marker `shards/<i>.json` with the
//! part's checksum. A later attempt at the same version reads each marker, verifies its part, and skips the
//! shard. Parts are named by shard, so a resumed table equals an uninterrupted one byte for byte. One stream may
//! carry several shards, one after the other, each row with its shard's number: a shard is committed as soon as its
//! last row has passed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::{Stream, StreamExt};

use super::manifest::Marker;
use super::parquet::TableSink;
use super::{FileEntry, Store, Version};
use crate::table::Table;
use crate::{Error, Result};

/// The column of a stream of several shards that says to which a row belongs.
const SHARD: &str = "shard";

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
        mut rows: impl Stream<Item = Result<RecordBatch, E>> + Unpin,
    ) -> Result<u64> {
        let mut sink = self.sink(number);
        while let Some(batch) = rows.next().await {
            sink.write(&batch.map_err(Into::into)?).await?;
        }
        self.commit(number, sink).await
    }

    /// Writes and commits the shards of `numbers` from one stream, whose rows have the number of their shard in the
    /// column `shard` and come in its order. `committed` is called after each shard.
    ///
    /// # Errors
    /// As [`Shards::write`], and an internal error for rows out of order; the shards before are committed then.
    pub async fn write_all<E: Into<Error>>(
        &self,
        numbers: RangeInclusive<usize>,
        mut rows: impl Stream<Item = Result<RecordBatch, E>> + Unpin,
        committed: impl Fn(),
    ) -> Result<()> {
        let (mut number, last) = numbers.into_inner();
        let mut sink = self.sink(number);
        while let Some(batch) = rows.next().await {
            for (shard, rows) in self.split(batch.map_err(Into::into)?)? {
                if !(number..=last).contains(&shard) {
                    let text = format!("a row of shard {shard} came among those of shards {number} to {last}");
                    return Err(Error::internal(&self.version, text));
                }
                while number < shard {
                    let full = std::mem::replace(&mut sink, self.sink(number + 1));
                    self.commit(number, full).await?;
                    committed();
                    number += 1;
                }
                sink.write(&rows).await?;
            }
        }
        loop {
            self.commit(number, sink).await?;
            committed();
            if number == last {
                return Ok(());
            }
            number += 1;
            sink = self.sink(number);
        }
    }

    /// A batch in pieces of one shard each, without the column of its number.
    fn split(&self, mut batch: RecordBatch) -> Result<Vec<(usize, RecordBatch)>> {
        let wrong = |text: &str| Error::internal(&self.version, text);
        let place = batch.schema().index_of(SHARD).map_err(|error| wrong("its rows have no shard").because(error))?;
        let column = batch.remove_column(place);
        let shards = column.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong("a shard is a bigint"))?;
        let mut pieces = Vec::new();
        for range in arrow::compute::partition(std::slice::from_ref(&column))?.ranges() {
            let shard = usize::try_from(shards.value(range.start))
                .map_err(|error| wrong("a shard is from 0").because(error))?;
            pieces.push((shard, batch.slice(range.start, range.len())));
        }
        Ok(pieces)
    }

    fn sink(&self, number: usize) -> TableSink {
        TableSink::one_part(&self.store, &self.version, &self.table, number)
    }

    async fn commit(&self, number: usize, sink: TableSink) -> Result<u64> {
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
