//! Parquet, batch by batch.
//!
//! In: a file. Out: one [`Record`] per row; Arrow's own JSON writer turns nested columns into the same values that a
//! JSON file would have.

use std::collections::VecDeque;
use std::fs::File;

use arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{Record, json_record};
use crate::{Error, Result};

/// Rows decoded at a time; conversations can be long.
const BATCH_ROWS: usize = 256;

pub(super) struct Parquet {
    batches: ParquetRecordBatchReader,
    name: String,
    row: u64,
    waiting: VecDeque<Record>,
}

fn broken(name: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::data(name, "cannot be read as Parquet; it may be cut off or damaged, fetch it again").because(error)
}

impl Parquet {
    /// Reads the footer.
    pub(super) fn open(file: File, name: String) -> Result<Self> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| broken(&name, error))?;
        let batches = builder.with_batch_size(BATCH_ROWS).build().map_err(|error| broken(&name, error))?;
        Ok(Parquet { batches, name, row: 0, waiting: VecDeque::new() })
    }

    /// Decodes the next batch into `waiting`; whether there was one.
    fn fill(&mut self) -> Result<bool> {
        let Some(batch) = self.batches.next() else { return Ok(false) };
        let batch = batch.map_err(|error| broken(&self.name, error))?;
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&batch).and_then(|()| writer.finish()).map_err(|error| broken(&self.name, error))?;
        // Line breaks inside values are escaped in JSON, so every line is a row.
        for line in writer.into_inner().split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            self.row += 1;
            self.waiting.push_back(json_record(self.row, line));
        }
        Ok(true)
    }
}

impl Iterator for Parquet {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.waiting.is_empty() {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        self.waiting.pop_front().map(Ok)
    }
}
