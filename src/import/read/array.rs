//! A JSON array, element by element: only the brackets and quotes are followed here, each element is parsed alone.
//!
//! In: bytes `[{..}, {..}]`. Out: one [`Record`] per element, numbered from 1. An element that is broken, torn or too
//! long does not cost its neighbours, and the array is never held as a whole.

use std::io::BufRead;

use super::{MAX_ROW_BYTES, Record, json_record, open, refused, too_long};
use crate::Result;
use crate::import::reason::Reason;

pub(super) struct Elements {
    reader: Box<dyn BufRead>,
    name: String,
    row: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the opening bracket.
    Start,
    Inside,
    /// After the closing bracket.
    Closed,
    Done,
}

/// What ended an element.
enum End {
    /// A comma or the closing bracket; whether the element is longer than a row may be.
    Whole { long: bool },
    /// The end of the file inside an element.
    Torn,
    /// The end of the file where the closing bracket should be.
    Unclosed,
    /// The closing bracket, without another element.
    Closed,
}

/// Where the scanner is inside an element.
#[derive(Default)]
struct Scan {
    begun: bool,
    depth: usize,
    in_string: bool,
    escaped: bool,
    long: bool,
}

impl Scan {
    /// Takes one byte of the array; says what ended with it, if anything.
    fn take(&mut self, byte: u8, element: &mut Vec<u8>) -> Option<End> {
        if !self.begun {
            match byte {
                b',' | b' ' | b'\t' | b'\r' | b'\n' => return None,
                b']' => return Some(End::Closed),
                _ => self.begun = true,
            }
        }
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b',' | b']' if self.depth == 0 => return Some(End::Whole { long: self.long }),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        if element.len() < MAX_ROW_BYTES {
            element.push(byte);
        } else {
            self.long = true;
        }
        None
    }
}

impl Elements {
    /// The elements of the array that starts with the reader's first `[`.
    pub(super) fn new(reader: Box<dyn BufRead>, name: String) -> Self {
        Elements { reader, name, row: 0, state: State::Start }
    }

    /// Reads up to the end of the next element.
    fn read(&mut self, element: &mut Vec<u8>) -> std::io::Result<End> {
        let mut scan = Scan::default();
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(if scan.begun { End::Torn } else { End::Unclosed });
            }
            for (index, &byte) in chunk.iter().enumerate() {
                if self.state == State::Start {
                    // Byte-order mark and white space; the opening bracket is known to be there.
                    if byte == b'[' {
                        self.state = State::Inside;
                    }
                    continue;
                }
                if let Some(end) = scan.take(byte, element) {
                    if byte == b']' {
                        self.state = State::Closed;
                    }
                    self.reader.consume(index + 1);
                    return Ok(end);
                }
            }
            let read = chunk.len();
            self.reader.consume(read);
        }
    }

    /// The first bytes after the closing bracket that are not white space, if there are any.
    fn trailing(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let text = chunk.trim_ascii_start();
            if !text.is_empty() {
                return Ok(Some(text.iter().copied().take(1024).collect()));
            }
            let read = chunk.len();
            self.reader.consume(read);
        }
    }

    fn next_record(&mut self) -> std::io::Result<Option<Record>> {
        if self.state == State::Closed {
            self.state = State::Done;
            let detail = "there is more after the closing bracket of the array; it was not read";
            return Ok(self.trailing()?.map(|text| refused(self.row + 1, &text, Reason::Malformed, detail)));
        }
        if self.state == State::Done {
            return Ok(None);
        }
        let mut element = Vec::new();
        let end = self.read(&mut element)?;
        self.row += 1;
        let text = element.trim_ascii();
        let torn = match end {
            End::Whole { long: true } => return Ok(Some(too_long(self.row, text))),
            End::Whole { long: false } => return Ok(Some(json_record(self.row, text))),
            End::Closed => {
                self.row -= 1;
                return self.next_record();
            }
            End::Torn => "the file ends inside this element",
            End::Unclosed => "the file ends without the closing bracket of the array",
        };
        self.state = State::Done;
        Ok(Some(refused(self.row, text, Reason::TornLine, torn)))
    }
}

impl Iterator for Elements {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_record().map_err(|error| open::read_error(&self.name, error));
        if next.is_err() {
            self.state = State::Done;
        }
        next.transpose()
    }
}
