//! Small tables that come from the configuration, and columns out of record batches.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use datafusion::prelude::SessionContext;
use serde::Serialize;

use crate::query::register_batches;
use crate::{Error, Result};

/// Registers `rows` as table `name`; every column may be null.
pub(super) fn register<T: Serialize>(ctx: &SessionContext, name: &str, fields: Vec<Field>, rows: &[T]) -> Result<()> {
    let schema = Arc::new(Schema::new(fields));
    let batch = batch(Arc::clone(&schema), rows)?;
    register_batches(ctx, name, schema, batch.into_iter().collect())
}

/// Rows as a record batch; none for no rows.
pub(super) fn batch<T: Serialize>(schema: SchemaRef, rows: &[T]) -> Result<Option<RecordBatch>> {
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(rows.len().max(1)).build_decoder()?;
    decoder.serialize(rows)?;
    Ok(decoder.flush()?)
}

/// A text column.
pub(super) fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Result<Vec<&'a str>> {
    let column = column(batch, name)?;
    let array = column.as_string_opt::<i32>().ok_or_else(|| wrong(name, "text"))?;
    (0..array.len()).map(|i| if array.is_null(i) { Err(wrong(name, "not null")) } else { Ok(array.value(i)) }).collect()
}

/// A column of 64-bit floats; null gives NaN.
pub(super) fn numbers(batch: &RecordBatch, name: &str) -> Result<Vec<f64>> {
    let array = column(batch, name)?;
    let array = array.as_primitive_opt::<arrow::datatypes::Float64Type>().ok_or_else(|| wrong(name, "a double"))?;
    Ok(array.iter().map(|v| v.unwrap_or(f64::NAN)).collect())
}

/// A column of lists of token ids.
pub(super) fn token_lists(batch: &RecordBatch, name: &str) -> Result<Vec<Vec<u32>>> {
    let column = column(batch, name)?;
    let lists = column.as_list_opt::<i32>().ok_or_else(|| wrong(name, "a list"))?;
    let ids = |row: usize| {
        let row = lists.value(row);
        let row =
            row.as_primitive_opt::<arrow::datatypes::Int64Type>().ok_or_else(|| wrong(name, "a list of bigint"))?;
        Ok(row.values().iter().map(|id| *id as u32).collect())
    };
    (0..lists.len()).map(ids).collect()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Arc<dyn Array>> {
    batch.column_by_name(name).ok_or_else(|| wrong(name, "a column of this statement"))
}

fn wrong(name: &str, expected: &str) -> Error {
    Error::query(format!("column {name}"), format!("must be {expected}"))
}
