//! SQL function `row_hash(..)`: one number for some columns of a row, equal where all of them are.
//!
//! In: columns of any types, lists and structs included. Out: the first 64 bits of blake3 over their values; null is a
//! value of its own. Two tables are compared by it without holding their texts.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

#[derive(Debug, PartialEq, Eq, Hash)]
struct RowHash {
    signature: Signature,
}

/// The function.
pub(super) fn row_hash() -> ScalarUDF {
    ScalarUDF::from(RowHash { signature: Signature::variadic_any(Volatility::Immutable) })
}

impl ScalarUDFImpl for RowHash {
    fn name(&self) -> &str {
        "row_hash"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
        let hash = |row: &[u8]| i64::from_le_bytes(*blake3::hash(row).as_bytes().first_chunk().unwrap_or(&[0; 8]));
        let hashes = Int64Array::from_iter_values(rows.iter().map(|row| hash(row.as_ref())));
        Ok(ColumnarValue::Array(Arc::new(hashes)))
    }
}
