//! `detect_language(text)`: which language a text is in, where that is clear.

use std::sync::{Arc, LazyLock};

use arrow::array::StringArray;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::{Arguments, SCALAR_SECTION, documentation};

/// Below this many letters a guess is too often wrong.
const LETTERS: usize = 16;

static DOC: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        SCALAR_SECTION,
        "ISO 639-3 code of the text's language, for example `eng` or `spa`. NULL where the text has fewer than 16 \
         letters or the guess is not reliable.",
        "detect_language(text)",
        &[("text", "text")],
        "SELECT detect_language(response) AS language, count(*) FROM responses GROUP BY language",
    )
});

/// The ISO 639-3 code, if the text is long and clear enough.
pub fn detect_language(text: &str) -> Option<&'static str> {
    if text.chars().filter(|c| c.is_alphabetic()).take(LETTERS).count() < LETTERS {
        return None;
    }
    whatlang::detect(text).filter(whatlang::Info::is_reliable).map(|info| info.lang().code())
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DetectLanguage(Signature);

impl DetectLanguage {
    pub(super) fn new() -> Self {
        Self(Signature::any(1, Volatility::Immutable))
    }
}

impl ScalarUDFImpl for DetectLanguage {
    fn name(&self) -> &str {
        "detect_language"
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
        let texts = Arguments::new("detect_language", ["text"], args)?.texts(0, "the text")?;
        let codes: StringArray = texts.iter().map(|text| text.and_then(detect_language)).collect();
        Ok(ColumnarValue::Array(Arc::new(codes)))
    }
}
