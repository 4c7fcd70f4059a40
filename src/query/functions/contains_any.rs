//! `contains_any(text, parts)`: whether a text holds one of some parts.

use std::sync::{Arc, LazyLock};

use arrow::array::BooleanArray;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::{Arguments, SCALAR_SECTION, documentation, items};

static DOC: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        SCALAR_SECTION,
        "Whether the text contains one of the parts, letter for letter; false for an empty list.",
        "contains_any(text, parts)",
        &[("text", "text"), ("parts", "list of texts; empty and NULL ones are ignored")],
        "SELECT * FROM responses WHERE NOT contains_any(response, ['As an AI language model', 'rule ('])",
    )
});

/// Whether `text` contains one of `parts`.
pub fn contains_any(text: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| !part.is_empty() && text.contains(part))
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ContainsAny(Signature);

impl ContainsAny {
    pub(super) fn new() -> Self {
        Self(Signature::any(2, Volatility::Immutable))
    }
}

impl ScalarUDFImpl for ContainsAny {
    fn name(&self) -> &str {
        "contains_any"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOC)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let args = Arguments::new("contains_any", ["text", "parts"], args)?;
        let (texts, parts) = (args.texts(0, "the text")?, args.lists(1, "the parts")?);
        let found: BooleanArray =
            texts.iter().zip(parts.iter()).map(|(text, list)| Some(contains_any(text?, &items(&list?)))).collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}
