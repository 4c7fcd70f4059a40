//! Files of any of the containers as one stream of rows.
//!
//! In: the paths of the command line. Out: [`Record`]s, one per source row, each parsed or refused; memory is bounded
//! by the largest row that is accepted ([`MAX_ROW_BYTES`]), whatever the size of the file.

mod array;
mod csv;
mod lines;
mod open;
mod parquet;

pub(crate) use open::{files, open};
pub(crate) use parquet::guarded;

use super::clean;
use super::reason::{Reason, Refusal};
use super::row::Fields;
use crate::Result;

/// The largest row that is held in memory; longer ones are read past and dropped.
pub(crate) const MAX_ROW_BYTES: usize = 8 << 20;

/// One row of a source file.
#[derive(Debug)]
pub(crate) struct Record {
    /// From 1: the line of a JSON lines file, the element of an array, the record after a CSV header, the Parquet row.
    pub(crate) row: u64,
    pub(crate) fields: std::result::Result<Fields, Refusal>,
    /// The beginning of the row as it stands in the file.
    pub(crate) excerpt: String,
}

/// The rows of one file. An `Err` ends the import: the file cannot be read on.
pub(crate) type Records = Box<dyn Iterator<Item = Result<Record>>>;

/// A row of JSON bytes.
fn json_record(row: u64, bytes: &[u8]) -> Record {
    Record { row, fields: parse(bytes), excerpt: clean::excerpt_bytes(bytes) }
}

/// A row that is refused before it is parsed.
fn refused(row: u64, bytes: &[u8], reason: Reason, detail: &str) -> Record {
    Record { row, fields: Err(Refusal::new(reason, detail)), excerpt: clean::excerpt_bytes(bytes) }
}

fn too_long(row: u64, bytes: &[u8]) -> Record {
    refused(row, bytes, Reason::LineTooLong, &format!("longer than {} MiB", MAX_ROW_BYTES >> 20))
}

/// One JSON object.
fn parse(bytes: &[u8]) -> std::result::Result<Fields, Refusal> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Refusal::new(Reason::BadUtf8, format!("not UTF-8 from byte {} on", error.valid_up_to())))?;
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Refusal::new(Reason::WrongType, "the row is not an object")),
        Err(error) => {
            let message = error.to_string();
            // serde_json has no public code for these two; both only occur at a surrogate without its partner.
            let surrogate =
                message.contains("lone leading surrogate") || message.contains("unexpected end of hex escape");
            let reason = match () {
                () if error.is_eof() => Reason::TornLine,
                () if surrogate => Reason::LoneSurrogate,
                () => Reason::Malformed,
            };
            Err(Refusal::new(reason, message))
        }
    }
}
