//! Principles as a run keeps them: the `principles` table back into a [`Library`].
//!
//! In: the batches that [`Library::batch`] made, as the store gives them back. Out: a library without rules and
//! exemplars, in which names resolve as they did when the run was made, whatever became of the files since.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;

use super::library::{Library, Principle};
use super::source::At;
use crate::{Error, Result};

impl Library {
    /// The principles of the table's rows.
    ///
    /// # Errors
    /// A store error when a column is missing or of another type.
    pub fn stored(batches: &[RecordBatch]) -> Result<Self> {
        let mut library = Library::default();
        for batch in batches {
            let (names, definitions) = (texts(batch, "name")?, texts(batch, "definition")?);
            let negatives = texts(batch, "negative_definition")?;
            let weights = column(batch, "weight")?.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong("weight"))?;
            for row in 0..batch.num_rows() {
                library.principles.push(Principle {
                    name: names.value(row).to_string(),
                    definition: definitions.value(row).to_string(),
                    negative_definition: negatives.is_valid(row).then(|| negatives.value(row).to_string()),
                    weight: weights.value(row),
                    sets: list(batch, "sets", row)?,
                    tags: list(batch, "tags", row)?,
                    reworded: vec![],
                    negative_reworded: vec![],
                    at: At::stored("table principles", library.principles.len() + 1),
                });
            }
        }
        Ok(library)
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| wrong(name))
}

fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| wrong(name))
}

fn list(batch: &RecordBatch, name: &str, row: usize) -> Result<Vec<String>> {
    let lists = column(batch, name)?.as_list_opt::<i32>().ok_or_else(|| wrong(name))?;
    let items = lists.value(row);
    let items = items.as_string_opt::<i32>().ok_or_else(|| wrong(name))?;
    Ok(items.iter().flatten().map(str::to_string).collect())
}

fn wrong(name: &str) -> Error {
    Error::store("table principles", format!("column {name} is missing or of another type; run the stage again"))
}
