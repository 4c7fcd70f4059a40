//! The checkers as SQL functions, for the pocket world's evaluations only.
//!
//! In: an instruction of the world and a response. Out: `pocket_check` -> struct<words, facts, valid, harmful>,
//! `pocket_value(instruction, response, principle)` -> bigint, larger is more of the principle. NULL for an
//! instruction that is not of this world.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use super::check::{PRINCIPLES, Report, check};
use super::language::{Prompt, all_prompts};

static PROMPTS: LazyLock<HashMap<String, Prompt>> =
    LazyLock::new(|| all_prompts().into_iter().map(|prompt| (prompt.text(), prompt)).collect());

/// Both functions.
pub fn functions() -> Vec<ScalarUDF> {
    let check_type = DataType::Struct(check_fields());
    let value_arguments = vec![DataType::Utf8; 3];
    vec![
        create_udf("pocket_check", vec![DataType::Utf8; 2], check_type, Volatility::Immutable, Arc::new(pocket_check)),
        create_udf("pocket_value", value_arguments, DataType::Int64, Volatility::Immutable, Arc::new(pocket_value)),
    ]
}

fn check_fields() -> Fields {
    Fields::from(vec![
        Field::new("words", DataType::Int64, true),
        Field::new("facts", DataType::Int64, true),
        Field::new("valid", DataType::Boolean, true),
        Field::new("harmful", DataType::Boolean, true),
    ])
}

fn report(instructions: &StringArray, responses: &StringArray, row: usize) -> Option<(Report, &'static Prompt)> {
    if instructions.is_null(row) || responses.is_null(row) {
        return None;
    }
    let prompt = PROMPTS.get(instructions.value(row))?;
    Some((check(prompt, responses.value(row)), prompt))
}

fn pocket_check(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let (instructions, responses) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
    let reports: Vec<_> = (0..instructions.len()).map(|row| report(instructions, responses, row)).collect();
    let count = |f: fn(&Report) -> usize| -> ArrayRef {
        Arc::new(reports.iter().map(|r| r.as_ref().map(|(r, _)| f(r) as i64)).collect::<Int64Array>())
    };
    let valid: BooleanArray = reports.iter().map(|r| r.as_ref().map(|(r, _)| r.valid)).collect();
    let harmful: BooleanArray = reports.iter().map(|r| r.as_ref().map(|(_, p)| p.verb.is_some())).collect();
    let columns =
        vec![count(|r| r.words), count(|r| r.facts), Arc::new(valid) as ArrayRef, Arc::new(harmful) as ArrayRef];
    Ok(ColumnarValue::Array(Arc::new(StructArray::new(check_fields(), columns, None))))
}

fn pocket_value(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let principles = arrays[2].as_string::<i32>();
    let (instructions, responses) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
    let value = |row: usize| {
        let (report, _) = report(instructions, responses, row)?;
        let principle = principles.is_valid(row).then(|| principles.value(row))?;
        PRINCIPLES.iter().position(|p| *p == principle).map(|p| report.value(p))
    };
    let values: Int64Array = (0..instructions.len()).map(value).collect();
    Ok(ColumnarValue::Array(Arc::new(values)))
}
