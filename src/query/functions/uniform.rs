//! `uniform(seed, key, ...)`: a random number that belongs to a row.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::{SCALAR_SECTION, documentation};
use crate::{Error, draw};

static DOC: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        SCALAR_SECTION,
        "A random double in [0, 1) that depends on the seed and the keys and on nothing else: the same row has the same \
         number in every run, batch and partition. Name the use in the first key and the row in the others. NULL where \
         a key is NULL.",
        "uniform(seed, key, ...)",
        &[
            ("seed", "whole number"),
            (
                "key",
                "one or more values of any simple type, compared by their text; ('ab', 'c') and ('a', 'bc') differ",
            ),
        ],
        "SELECT prompt_id FROM prompts ORDER BY uniform(42, 'shuffle', prompt_id), prompt_id LIMIT 100",
    )
});

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Uniform(Signature);

impl Uniform {
    pub(super) fn new() -> Self {
        // Immutable: the number is a function of the arguments.
        Self(Signature::variadic_any(Volatility::Immutable))
    }
}

impl ScalarUDFImpl for Uniform {
    fn name(&self) -> &str {
        "uniform"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOC)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let wrong = |problem: String| Error::query("uniform", problem);
        let [seed, keys @ ..] = args.args.as_slice() else {
            return Err(wrong("takes a seed and at least one key".into()).into());
        };
        if keys.is_empty() {
            return Err(wrong("takes at least one key after the seed".into()).into());
        }
        let seed = seed.to_array(args.number_rows)?;
        if !seed.data_type().is_integer() && !seed.data_type().is_null() {
            return Err(wrong(format!("the seed must be a whole number, not {}", seed.data_type())).into());
        }
        let seed = arrow::compute::cast(&seed, &DataType::Int64)?;
        let seed = seed.as_primitive::<Int64Type>();
        let mut columns: Vec<StringArray> = Vec::with_capacity(keys.len());
        for key in keys {
            let key: ArrayRef = key.to_array(args.number_rows)?;
            if key.data_type().is_nested() {
                return Err(wrong(format!("a key must be a simple value, not {}", key.data_type())).into());
            }
            columns.push(arrow::compute::cast(&key, &DataType::Utf8)?.as_string::<i32>().clone());
        }
        let mut names: Vec<&str> = Vec::with_capacity(columns.len());
        let numbers: Float64Array = (0..args.number_rows)
            .map(|row| {
                names.clear();
                for column in &columns {
                    names.push(column.is_valid(row).then(|| column.value(row))?);
                }
                // Two's complement: negative seeds are seeds too.
                let seed = seed.is_valid(row).then(|| seed.value(row))? as u64;
                Some(draw::key(seed, &names).uniform(0))
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(numbers)))
    }
}
