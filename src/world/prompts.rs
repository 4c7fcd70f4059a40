//! The demo's prompts as a file of the kind that `salmon import` writes.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use arrow::json::ReaderBuilder;
use parquet::arrow::ArrowWriter;
use serde_json::{Map, Value};

use crate::draw::key;
use crate::{Error, Result, table};

/// 215 training prompts, a quarter of them asking for harm, and 60 held out.
const PROMPTS: &str = include_str!("../../datasets/pocket/prompts.jsonl");

/// Writes them as Parquet, whole or not at all.
///
/// # Errors
/// A store error when the file cannot be written.
pub fn write_prompts(path: &Path) -> Result<()> {
    let bad = |e: std::io::Error| Error::store(path.display(), "cannot be written").because(e);
    let rows = PROMPTS.lines().map(prompt).collect::<Result<Vec<Value>>>()?;
    let schema = table::prompts().schema();
    let mut decoder = ReaderBuilder::new(schema.clone()).with_batch_size(rows.len()).build_decoder()?;
    decoder.serialize(&rows)?;
    let mut bytes = Vec::new();
    let parquet = |e| Error::internal("prompts", "cannot be encoded").because(e);
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).map_err(parquet)?;
    if let Some(batch) = decoder.flush()? {
        writer.write(&batch).map_err(parquet)?;
    }
    writer.close().map_err(parquet)?;
    let partial = path.with_extension("partial");
    File::create(&partial).and_then(|mut file| file.write_all(&bytes)).map_err(bad)?;
    std::fs::rename(&partial, path).map_err(bad)
}

/// One line with the id that `salmon import` would give it.
fn prompt(line: &str) -> Result<Value> {
    let damaged = |e| Error::internal("datasets/pocket/prompts.jsonl", "a line is not JSON").because(e);
    let mut row: Map<String, Value> = serde_json::from_str(line).map_err(damaged)?;
    let instruction = row.get("instruction").and_then(Value::as_str).unwrap_or_default();
    let id = format!("{:016x}", key(0, &[instruction]).bits());
    row.insert("prompt_id".into(), Value::String(id));
    Ok(Value::Object(row))
}
