//! From whatever SQL produced to the columns a table declares.
//!
//! In: a record batch. Out: the same rows with exactly the declared columns, types and order. Only conversions
//! that lose nothing happen by themselves (a wider integer, another string layout, an integer as a real); anything
//! else is an error that names table, column and row. Structs match by field name, at any depth.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, ListArray, OffsetSizeTrait, RecordBatch, StructArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, SchemaRef};

use crate::{Error, Result};

/// What is wrong with a column, and in which row of the array given when it is one value.
struct Bad {
    row: Option<usize>,
    problem: String,
}

/// Rows of one table on their way to its declared schema.
#[derive(Debug)]
pub(super) struct Conform {
    table: String,
    schema: SchemaRef,
    /// Rows seen before the current batch, so that errors count from the first row of the stream.
    seen: u64,
}

impl Conform {
    pub(super) fn new(table: &str, schema: SchemaRef) -> Self {
        Conform { table: table.to_string(), schema, seen: 0 }
    }

    /// The batch with the declared columns. An empty batch still has its columns checked.
    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let given = batch.schema();
        let table = &self.table;
        for field in given.fields() {
            if self.schema.field_with_name(field.name()).is_err() {
                return Err(Error::data(
                    format!("table {table}, column {}", field.name()),
                    format!("is not a column of this table; it has {}", self.names()),
                ));
            }
        }
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            let place = format!("table {table}, column {}", field.name());
            let mut found = given.fields().iter().enumerate().filter(|(_, f)| f.name() == field.name());
            let (index, _) = found.next().ok_or_else(|| Error::data(&place, "is missing; the SQL must select it"))?;
            if found.next().is_some() {
                return Err(Error::data(&place, "is there twice; select it once"));
            }
            let at = |row: usize| format!("{place}, row {}", self.seen + row as u64 + 1);
            let column = convert(batch.column(index), field)
                .map_err(|bad| Error::data(bad.row.map_or_else(|| place.clone(), at), bad.problem))?;
            if !field.is_nullable() && column.null_count() > 0 {
                let row = (0..column.len()).find(|&row| column.is_null(row)).unwrap_or(0);
                return Err(Error::data(at(row), "is null, but this column needs a value"));
            }
            columns.push(column);
        }
        self.seen += batch.num_rows() as u64;
        let rows = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)?)
    }

    fn names(&self) -> String {
        self.schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
    }
}

fn convert(array: &ArrayRef, field: &Field) -> Result<ArrayRef, Bad> {
    let (from, to) = (array.data_type(), field.data_type());
    if from == to {
        return Ok(Arc::clone(array));
    }
    match (from, to) {
        (DataType::Null, _) => Ok(new_null_array(to, array.len())),
        (DataType::List(_), DataType::List(item)) => list::<i32>(array, item),
        (DataType::LargeList(_), DataType::List(item)) => list::<i64>(array, item),
        (
            DataType::FixedSizeList(inner, _) | DataType::ListView(inner) | DataType::LargeListView(inner),
            DataType::List(item),
        ) => {
            let plain = cast(array, &DataType::List(Arc::clone(inner)))?;
            list::<i32>(&plain, item)
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let given = array.as_struct();
            if let Some(extra) = given.fields().iter().find(|f| fields.find(f.name()).is_none()) {
                return Err(whole(format!("has a field {} that the table does not declare", extra.name())));
            }
            let mut columns = Vec::with_capacity(fields.len());
            for inner in fields {
                let column = given
                    .column_by_name(inner.name())
                    .ok_or_else(|| whole(format!("has no field {}", inner.name())))?;
                columns.push(convert(column, inner)?);
            }
            StructArray::try_new_with_length(fields.clone(), columns, given.nulls().cloned(), given.len())
                .map(|array| Arc::new(array) as ArrayRef)
                .map_err(|e| whole(e.to_string()))
        }
        (from, to) if lossless(from, to) => cast(array, to),
        (from, to) => Err(whole(format!("is {from}, but the table declares {to}; convert it with CAST in the SQL"))),
    }
}

fn list<O: OffsetSizeTrait>(array: &ArrayRef, item: &Arc<Field>) -> Result<ArrayRef, Bad> {
    let given: &GenericListArray<O> = array.as_list();
    let offsets = given.value_offsets();
    let (start, end) = (offsets.first().map_or(0, |o| o.as_usize()), offsets.last().map_or(0, |o| o.as_usize()));
    // A value's row is the last list that starts at or before it.
    let row_of = |value: usize| offsets.partition_point(|o| o.as_usize() <= value + start).saturating_sub(1);
    let values = convert(&given.values().slice(start, end - start), item)
        .map_err(|bad| Bad { row: bad.row.map(row_of), problem: bad.problem })?;
    if !item.is_nullable() && values.null_count() > 0 {
        let value = (0..values.len()).find(|&at| values.is_null(at)).unwrap_or(0);
        return Err(Bad { row: Some(row_of(value)), problem: "holds a null, but its items need a value".into() });
    }
    let lengths = offsets.windows(2).map(|pair| pair[1].as_usize() - pair[0].as_usize());
    if i32::try_from(end - start).is_err() {
        return Err(whole("has more than 2^31 items in one batch".into()));
    }
    ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), values, given.nulls().cloned())
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|e| whole(e.to_string()))
}

/// Casts; a value that does not fit is an error with its row.
fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Bad> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let result = cast_with_options(array, to, &options).map_err(|e| whole(e.to_string()))?;
    if result.logical_null_count() > array.logical_null_count() {
        let (before, after) = (array.logical_nulls(), result.logical_nulls());
        let null = |nulls: &Option<arrow::buffer::NullBuffer>, row| nulls.as_ref().is_some_and(|n| n.is_null(row));
        let row = (0..array.len()).find(|&row| null(&after, row) && !null(&before, row)).unwrap_or(0);
        return Err(Bad { row: Some(row), problem: format!("does not fit into {to}") });
    }
    Ok(result)
}

/// Whether every value of `from` is a value of `to`; unsigned 64-bit integers are checked one by one.
fn lossless(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    let from = match from {
        D::Dictionary(_, value) => value.as_ref(),
        other => other,
    };
    if from == to {
        return true;
    }
    match to {
        D::Utf8 => matches!(from, D::LargeUtf8 | D::Utf8View),
        D::Int64 => from.is_integer(),
        D::Float64 => from.is_integer() || matches!(from, D::Float32 | D::Float16),
        _ => false,
    }
}

fn whole(problem: String) -> Bad {
    Bad { row: None, problem }
}
