//! `cut_at(text, markers)`: a text up to the first of some markers.

use std::sync::{Arc, LazyLock};

use arrow::array::StringArray;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::{Arguments, SCALAR_SECTION, documentation, items};

static DOC: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        SCALAR_SECTION,
        "The text before the earliest of the markers, as it is (no blanks are taken off); the whole text where none \
         occurs.",
        "cut_at(text, markers)",
        &[("text", "text"), ("markers", "list of texts; empty and NULL ones are ignored")],
        "SELECT trim(cut_at(response, ['### User', '###'])) AS response FROM responses",
    )
});

/// `text` before the earliest of `markers`.
pub fn cut_at<'a>(text: &'a str, markers: &[&str]) -> &'a str {
    let places = markers.iter().filter(|marker| !marker.is_empty()).filter_map(|marker| text.find(marker));
    places.min().and_then(|place| text.get(..place)).unwrap_or(text)
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct CutAt(Signature);

impl CutAt {
    pub(super) fn new() -> Self {
        Self(Signature::any(2, Volatility::Immutable))
    }
}

impl ScalarUDFImpl for CutAt {
    fn name(&self) -> &str {
        "cut_at"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOC)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let args = Arguments::new("cut_at", ["text", "markers"], args)?;
        let (texts, markers) = (args.texts(0, "the text")?, args.lists(1, "the markers")?);
        let cut: StringArray = texts
            .iter()
            .zip(markers.iter())
            .map(|(text, list)| Some(cut_at(text?, &items(&list?)).to_string()))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(cut)))
    }
}
