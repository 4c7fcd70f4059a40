//! TensorBoard's event files.
//!
//! In: scalars with their step and time. Out: a file of TFRecords (length, masked CRC-32C of the length, bytes, masked
//! CRC-32C of the bytes), each an `Event` of TensorFlow's `event.proto`, of which only what scalars need is declared.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use crate::{Error, Result};

/// What the first record says, so that readers know the format.
const VERSION: &str = "brain.Event:2";

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970, UTC.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// `Summary.Value` with a `simple_value`.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    // Optional, because a zero is a value too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// An event file in the making.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    out: BufWriter<File>,
}

impl EventFile {
    /// Starts the file; `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    /// A store error when it cannot be written.
    pub fn create(path: &Path, wall_time: f64) -> Result<Self> {
        let out = File::create(path).map_err(|e| Error::store(path.display(), "cannot be written").because(e))?;
        let mut file = EventFile { path: path.to_path_buf(), out: BufWriter::new(out) };
        file.record(&Event { wall_time, step: 0, file_version: Some(VERSION.into()), summary: None })?;
        Ok(file)
    }

    /// Adds the scalars of one step, by tag.
    ///
    /// # Errors
    /// A store error when they cannot be written.
    pub fn scalars(&mut self, wall_time: f64, step: i64, scalars: &[(String, f64)]) -> Result<()> {
        let scalar = |(tag, value): &(String, f64)| Scalar { tag: tag.clone(), simple_value: Some(*value as f32) };
        let summary = Summary { value: scalars.iter().map(scalar).collect() };
        self.record(&Event { wall_time, step, file_version: None, summary: Some(summary) })
    }

    /// Ends the file.
    ///
    /// # Errors
    /// A store error when it cannot be written.
    pub fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(|e| Error::store(self.path.display(), "cannot be written").because(e))
    }

    fn record(&mut self, event: &Event) -> Result<()> {
        let data = event.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        let parts: [&[u8]; 4] = [&length, &masked_crc(&length).to_le_bytes(), &data, &masked_crc(&data).to_le_bytes()];
        let bad = |e| Error::store(self.path.display(), "cannot be written").because(e);
        self.out.write_all(&parts.concat()).map_err(bad)
    }
}

/// The CRC of TFRecords: rotated and shifted, so that the CRC of bytes that hold CRCs stays a good one.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
