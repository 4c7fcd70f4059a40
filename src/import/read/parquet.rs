//! Parquet, batch by batch.
//!
//! In: a file. Out: one [`Record`] per row; Arrow's own JSON writer turns nested columns into the same values that a
//! JSON file would have. The Parquet library panics on some damaged files; here that is an error like any other.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

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

thread_local! {
    /// Whether a panic on this thread is about to be caught here.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs calls into the Parquet library; a panic becomes an error and is not printed.
pub(crate) fn guarded<T>(name: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CAUGHT.try_with(Cell::get).unwrap_or(false) {
                previous(info);
            }
        }));
    });
    CAUGHT.set(true);
    // What was half changed when the panic struck is dropped by the caller together with the error.
    let result = catch_unwind(AssertUnwindSafe(call));
    CAUGHT.set(false);
    result.unwrap_or_else(|_| Err(broken(name, "the Parquet library gave up on it")))
}

impl Parquet {
    /// Reads the footer.
    pub(super) fn open(file: File, name: String) -> Result<Self> {
        let batches = guarded(&name, || {
            // The Arrow schema that some writers add says nothing that JSON values need.
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
                .and_then(|builder| builder.with_batch_size(BATCH_ROWS).build())
                .map_err(|error| broken(&name, error))
        })?;
        Ok(Parquet { batches, name, row: 0, waiting: VecDeque::new() })
    }

    /// Decodes the next batch into `waiting`; whether there was one.
    fn fill(&mut self) -> Result<bool> {
        let lines = guarded(&self.name, || {
            let Some(batch) = self.batches.next() else { return Ok(None) };
            let batch = batch.map_err(|error| broken(&self.name, error))?;
            let mut writer = LineDelimitedWriter::new(Vec::new());
            writer.write(&batch).and_then(|()| writer.finish()).map_err(|error| broken(&self.name, error))?;
            Ok(Some(writer.into_inner()))
        })?;
        let Some(lines) = lines else { return Ok(false) };
        // Line breaks inside values are escaped in JSON, so every line is a row.
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
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
