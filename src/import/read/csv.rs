//! CSV and TSV with a header: quoted fields may hold separators and line breaks.
//!
//! In: bytes. Out: one [`Record`] per record after the header, every field as text. Records are assembled by the
//! streaming CSV machine, so that a quote that is never closed costs one row and no memory.

use std::io::BufRead;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use serde_json::Value;

use super::{MAX_ROW_BYTES, Record, open, refused, too_long};
use crate::import::reason::{Reason, Refusal};
use crate::import::row::Fields;
use crate::{Error, Result, import::clean};

/// The most fields a record may have.
const MAX_FIELDS: usize = 1 << 16;

pub(super) struct Csv {
    reader: Box<dyn BufRead>,
    core: Reader,
    name: String,
    header: Vec<String>,
    row: u64,
    done: bool,
}

/// The bytes of one record, field after field, and where each field ends.
struct Raw {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    long: bool,
}

impl Raw {
    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| self.bytes.get(start..end).unwrap_or_default())
    }
}

impl Csv {
    /// Reads the header; the reader stands at the beginning of the file, after a byte-order mark.
    pub(super) fn open(reader: Box<dyn BufRead>, delimiter: u8, name: String) -> Result<Self> {
        let core = ReaderBuilder::new().delimiter(delimiter).build();
        let mut csv = Csv { reader, core, name, header: Vec::new(), row: 0, done: false };
        let header = csv.read().map_err(|error| open::read_error(&csv.name, error))?;
        if let Some(raw) = header {
            let names = raw.fields().map(|field| std::str::from_utf8(field).map(|name| name.trim().to_owned()));
            let bad = |what: &str| {
                Error::data(format_args!("{}, line 1", csv.name), format_args!("the CSV header is {what}"))
            };
            csv.header = names.collect::<std::result::Result<_, _>>().map_err(|_| bad("not UTF-8"))?;
            if raw.long {
                return Err(bad("too long"));
            }
        }
        Ok(csv)
    }

    /// The next record, nothing at the end of the file.
    fn read(&mut self) -> std::io::Result<Option<Raw>> {
        let mut raw = Raw { bytes: vec![0; 4096], ends: vec![0; 32], long: false };
        let (mut filled, mut fields) = (0, 0);
        // The beginning of a record that is too long to keep.
        let mut head = None;
        loop {
            let input = self.reader.fill_buf()?;
            let (result, read, wrote, ended) =
                self.core.read_record(input, &mut raw.bytes[filled..], &mut raw.ends[fields..]);
            self.reader.consume(read);
            filled += wrote;
            fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if filled < MAX_ROW_BYTES => raw.bytes.resize(2 * raw.bytes.len(), 0),
                ReadRecordResult::OutputEndsFull if fields < MAX_FIELDS => raw.ends.resize(2 * raw.ends.len(), 0),
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    head.get_or_insert_with(|| raw.bytes[..filled.min(1024)].to_vec());
                    (filled, fields) = (0, 0);
                }
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(None),
            }
        }
        raw.bytes.truncate(filled);
        raw.ends.truncate(fields);
        if let Some(head) = head {
            raw = Raw { ends: vec![head.len()], bytes: head, long: true };
        }
        Ok(Some(raw))
    }

    fn record(&mut self, raw: &Raw) -> std::io::Result<Record> {
        let line = raw.fields().collect::<Vec<_>>().join(&b","[..]);
        if raw.long {
            return Ok(too_long(self.row, &line));
        }
        let (found, wanted) = (raw.ends.len(), self.header.len());
        if found != wanted {
            let torn = found < wanted && self.reader.fill_buf()?.is_empty();
            let reason = if torn { Reason::TornLine } else { Reason::Malformed };
            return Ok(refused(self.row, &line, reason, &format!("{found} fields, the header has {wanted}")));
        }
        let mut fields = Fields::new();
        for (name, bytes) in self.header.iter().zip(raw.fields()) {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return Ok(refused(self.row, &line, Reason::BadUtf8, &format!("`{name}` is not UTF-8")));
            };
            fields.insert(name.clone(), Value::String(text.to_owned()));
        }
        let fields: std::result::Result<_, Refusal> = Ok(fields);
        Ok(Record { row: self.row, fields, excerpt: clean::excerpt_bytes(&line) })
    }
}

impl Iterator for Csv {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let read = self.read().and_then(|raw| {
            self.row += 1;
            raw.map(|raw| self.record(&raw)).transpose()
        });
        self.done = !matches!(read, Ok(Some(_)));
        read.map_err(|error| open::read_error(&self.name, error)).transpose()
    }
}
