//! Functions that make much of little.
//!
//! In: `repeat('x', 1000000000)`. Out: an error before anything is made. What an operator holds is counted by the memory
//! pool, what one call of a function makes is not; the few functions whose result can be far larger than what they are
//! given say here first how large it would be.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::kernels::length::length;
use arrow::compute::{cast, max, min, sum};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::prelude::SessionContext;

/// Most bytes that one call may make of one batch.
const MOST: u64 = 256 << 20;

const TEXTS: [&str; 5] = ["repeat", "lpad", "rpad", "replace", "regexp_replace"];
const LISTS: [&str; 4] = ["array_repeat", "array_resize", "range", "generate_series"];

/// Puts a bounded function in place of each such one that the session has.
pub(super) fn replace_functions(context: &SessionContext) {
    for name in TEXTS.into_iter().chain(LISTS) {
        if let Ok(inner) = context.udf(name) {
            context.register_udf(ScalarUDF::new_from_impl(Bounded { inner }));
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
}

impl Bounded {
    /// The most bytes that the call can make.
    fn bytes(&self, args: &ScalarFunctionArgs) -> Result<u64> {
        let rows = args.number_rows as u64;
        let of = |i: usize| args.args.get(i);
        Ok(match self.inner.name() {
            "repeat" => text(of(0), rows)?.total.saturating_mul(largest(of(1))?),
            "lpad" | "rpad" => rows.saturating_mul(largest(of(1))?).saturating_mul(4),
            "replace" | "regexp_replace" => text(of(0), rows)?.total.saturating_mul(text(of(2), rows)?.longest.max(1)),
            "array_repeat" => size(of(0), rows).saturating_mul(largest(of(1))?),
            "array_resize" => rows.saturating_mul(largest(of(1))?).saturating_mul(16),
            _ => rows.saturating_mul(span(&args.args)?).saturating_mul(8),
        })
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = self.bytes(&args)?;
        if bytes > MOST {
            let name = self.inner.name();
            let problem = format!("{name}() would make up to {} MiB of one batch, {} at most", bytes >> 20, MOST >> 20);
            return Err(DataFusionError::ResourcesExhausted(problem));
        }
        self.inner.invoke_with_args(args)
    }
}

/// Bytes of texts.
#[derive(Default)]
struct Text {
    total: u64,
    longest: u64,
}

fn text(value: Option<&ColumnarValue>, rows: u64) -> Result<Text> {
    let Some(value) = value else { return Ok(Text::default()) };
    let (array, times) = one(value, rows)?;
    if array.data_type() == &DataType::Null {
        return Ok(Text::default());
    }
    let array = cast(&array, &DataType::LargeUtf8)?;
    let lengths = length(&array)?;
    let lengths = lengths.as_primitive::<Int64Type>();
    let total = (sum(lengths).unwrap_or(0) as u64).saturating_mul(times);
    Ok(Text { total, longest: max(lengths).unwrap_or(0) as u64 })
}

/// The largest number; nothing is 0.
fn largest(value: Option<&ColumnarValue>) -> Result<u64> {
    let Some(value) = value else { return Ok(0) };
    Ok(u64::try_from(max(integers(value)?.as_primitive::<Int64Type>()).unwrap_or(0)).unwrap_or(0))
}

fn integers(value: &ColumnarValue) -> Result<ArrayRef> {
    Ok(cast(&one(value, 1)?.0, &DataType::Int64)?)
}

/// Most elements of `range(stop)`, `range(start, stop)` or `range(start, stop, step)`.
fn span(args: &[ColumnarValue]) -> Result<u64> {
    let whole = |value: &ColumnarValue| value.data_type().is_integer() || value.data_type() == DataType::Null;
    if !args.iter().all(whole) {
        let problem = "a list of times is not made here; write generate_series() in FROM".to_string();
        return Err(DataFusionError::Plan(problem));
    }
    let (mut low, mut high) = (i64::MAX, i64::MIN);
    // A single argument counts from 0.
    let zero = ColumnarValue::Scalar(ScalarValue::Int64(Some(0)));
    for value in args.iter().take(2).chain((args.len() == 1).then_some(&zero)) {
        let array = integers(value)?;
        let numbers = array.as_primitive::<Int64Type>();
        low = min(numbers).unwrap_or(0).min(low);
        high = max(numbers).unwrap_or(0).max(high);
    }
    Ok(high.abs_diff(low).saturating_add(1))
}

/// Bytes of any values.
fn size(value: Option<&ColumnarValue>, rows: u64) -> u64 {
    match value {
        Some(ColumnarValue::Array(array)) => array.get_array_memory_size() as u64,
        Some(ColumnarValue::Scalar(scalar)) => (scalar.size() as u64).saturating_mul(rows),
        None => 0,
    }
}

/// The array, and how often each of its values stands for a row: a constant is not spread out for this.
fn one(value: &ColumnarValue, rows: u64) -> Result<(ArrayRef, u64)> {
    Ok(match value {
        ColumnarValue::Array(array) => (Arc::clone(array), 1),
        ColumnarValue::Scalar(scalar) => (scalar.to_array_of_size(1)?, rows),
    })
}
