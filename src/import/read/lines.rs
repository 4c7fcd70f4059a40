//! JSON lines: one object per line, blank lines in between do not count.
//!
//! In: bytes. Out: one [`Record`] per line that is not blank, numbered by the line in the file.

use std::io::{BufRead, Read};

use super::{MAX_ROW_BYTES, Record, json_record, open, too_long};
use crate::Result;

pub(super) struct Lines {
    pub(super) reader: Box<dyn BufRead>,
    pub(super) name: String,
    pub(super) row: u64,
}

impl Lines {
    /// The next line into `line`; whether it was longer than a row may be. Nothing at the end of the file.
    fn read(&mut self, line: &mut Vec<u8>) -> std::io::Result<Option<bool>> {
        line.clear();
        let read = self.reader.by_ref().take(MAX_ROW_BYTES as u64 + 1).read_until(b'\n', line)?;
        if read == 0 {
            return Ok(None);
        }
        let whole = line.last() == Some(&b'\n');
        let long = !whole && read > MAX_ROW_BYTES;
        if long {
            self.reader.skip_until(b'\n')?;
        }
        Ok(Some(long))
    }
}

impl Iterator for Lines {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        loop {
            let long = match self.read(&mut line) {
                Ok(Some(long)) => long,
                Ok(None) => return None,
                Err(error) => return Some(Err(open::read_error(&self.name, error))),
            };
            self.row += 1;
            // Files that were joined together have byte-order marks inside.
            let text = line.strip_prefix(open::UTF8_BOM).unwrap_or(&line).trim_ascii();
            match long {
                true => return Some(Ok(too_long(self.row, text))),
                false if text.is_empty() => continue,
                false => return Some(Ok(json_record(self.row, text))),
            }
        }
    }
}
