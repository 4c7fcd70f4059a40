//! The two tables that only an import writes; the third, `prompts`, belongs to the run.
//!
//! In: nothing. Out: their columns.

use arrow::datatypes::DataType;

use crate::table::{Column, Table};

fn text(name: &'static str, doc: &'static str) -> Column {
    Column { name, data_type: DataType::Utf8, nullable: false, doc }
}

/// Human preferences, on which a reward model can be pre-trained.
pub fn human_preferences() -> Table {
    Table {
        name: "human_preferences",
        doc: "One pair of answers of which a person preferred one (TRL names).",
        columns: vec![
            text("prompt_id", "hash of the prompt: pairs with the same prompt share it"),
            text("prompt", "the prompt; several turns are paragraphs that begin with System:, User: or Assistant:"),
            text("chosen", "the preferred answer"),
            text("rejected", "the other one"),
            text("source", "the dataset it came from"),
            text("split", "train or test, by the prompt"),
        ],
    }
}

/// The rows that an import did not keep.
pub fn dropped() -> Table {
    Table {
        name: "dropped",
        doc: "One source row that was not kept.",
        columns: vec![
            text("file", "the file, as it was named"),
            Column {
                name: "row",
                data_type: DataType::Int64,
                nullable: false,
                doc: "line, array element, CSV record or Parquet row, from 1",
            },
            text("reason", "why, one of the documented reasons"),
            Column {
                name: "detail",
                data_type: DataType::Utf8,
                nullable: true,
                doc: "what exactly was found, e.g. the field",
            },
            text("excerpt", "the beginning of the row or of its prompt, at most 200 characters"),
        ],
    }
}
