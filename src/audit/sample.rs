//! Some rows that changed, column by column.
//!
//! In: a session with both versions of a table. Out: the first rows by their key whose values differ, each with its key
//! and what its columns were and are.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::SessionContext;
use serde::Serialize;

use super::diff::{hashes, key};
use crate::Result;
use crate::query::{self, Params};
use crate::table::Table;

/// A row that changed.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its key, in the order of the table's columns: (column, value).
    pub key: Vec<(String, String)>,
    /// What changed: by column, before and after.
    pub columns: BTreeMap<String, (String, String)>,
}

/// At most `rows` of them.
pub(super) async fn sample(ctx: &SessionContext, table: &Table, rows: usize) -> Result<Vec<Row>> {
    let (name, keys) = (table.name, key(table.name));
    // Rows that the other run has just so are no change.
    let numbered = |end: &str, other: &str| {
        format!(
            "select x.*, row_number() over (partition by x.row_key order by x.row_value) as row_n \
             from (select *, {} from {name}_{end}) x left anti join {other} y on x.row_key = y.row_key and x.row_value = y.row_value",
            hashes(table)
        )
    };
    let columns = |side: &str| {
        table
            .columns
            .iter()
            .map(|column| format!("{side}.\"{0}\" as \"{side}_{0}\"", column.name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let order = keys.iter().map(|key| format!("a.\"{key}\"")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "select {}, {} from ({}) a join ({}) b on a.row_key = b.row_key and a.row_n = b.row_n \
         order by {order}, a.row_n limit {rows}",
        columns("a"),
        columns("b"),
        numbered("before", "after"),
        numbered("after", "before"),
    );
    let mut found = Vec::new();
    for batch in query::sql(ctx, &text, &Params::new()).await?.collect().await? {
        for row in 0..batch.num_rows() {
            let mut one = Row { key: Vec::new(), columns: BTreeMap::new() };
            for column in &table.columns {
                let before = shown(&batch, &format!("a_{}", column.name), row)?;
                let after = shown(&batch, &format!("b_{}", column.name), row)?;
                if keys.contains(&column.name) {
                    one.key.push((column.name.to_string(), before));
                } else if before != after {
                    one.columns.insert(column.name.to_string(), (before, after));
                }
            }
            found.push(one);
        }
    }
    Ok(found)
}

fn shown(batch: &RecordBatch, column: &str, row: usize) -> Result<String> {
    let Some(values) = batch.column_by_name(column) else { return Ok(String::new()) };
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(values, &options)?;
    Ok(formatter.value(row).to_string())
}
