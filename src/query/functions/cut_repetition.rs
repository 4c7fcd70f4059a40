//! `cut_repetition(text)`: a response up to where it begins to repeat itself.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use arrow::array::StringArray;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::{Arguments, SCALAR_SECTION, documentation};

static DOC: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        SCALAR_SECTION,
        "The text up to its first repeated sentence fragment. Fragments end after a line break, one of `. ? ! ; : ,` or \
         a backtick; blanks around them do not count, and fragments without a letter (numbers, blank lines) may repeat.",
        "cut_repetition(text)",
        &[("text", "text")],
        "SELECT cut_repetition('It is so. It is not. It is so. It is') -- 'It is so. It is not.'",
    )
});

/// `text` before its first repeated fragment, without blanks at the end; the whole text if nothing repeats.
pub fn cut_repetition(text: &str) -> &str {
    let mut seen = HashSet::new();
    let mut start = 0;
    for fragment in text.split_inclusive(['\n', '.', '?', '!', ';', ':', ',', '`']) {
        let key = fragment.trim();
        if key.contains(char::is_alphabetic) && !seen.insert(key) {
            return text.get(..start).unwrap_or(text).trim_end();
        }
        start += fragment.len();
    }
    text
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct CutRepetition(Signature);

impl CutRepetition {
    pub(super) fn new() -> Self {
        Self(Signature::any(1, Volatility::Immutable))
    }
}

impl ScalarUDFImpl for CutRepetition {
    fn name(&self) -> &str {
        "cut_repetition"
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
        let texts = Arguments::new("cut_repetition", ["text"], args)?.texts(0, "the text")?;
        let cut: StringArray = texts.iter().map(|text| text.map(cut_repetition)).collect();
        Ok(ColumnarValue::Array(Arc::new(cut)))
    }
}
