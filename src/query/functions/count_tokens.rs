//! `count_tokens(model, text)`: how long a text is for a model.

use std::sync::{Arc, LazyLock};

use arrow::array::Int64Array;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::{Arguments, SCALAR_SECTION, Shared, documentation};
use crate::query::Models;

static DOC: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        SCALAR_SECTION,
        "Tokens of a text, bigint, without the begin token that a prompt gets.",
        "count_tokens(model, text)",
        &[("model", "name of a model of the run; only its tokenizer is loaded"), ("text", "text")],
        "SELECT * FROM prompts WHERE count_tokens('base', instruction) <= 256",
    )
});

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct CountTokens {
    models: Shared<Models>,
    signature: Signature,
}

impl CountTokens {
    pub(super) fn new(models: Shared<Models>) -> Self {
        Self { models, signature: Signature::any(2, Volatility::Stable) }
    }
}

impl ScalarUDFImpl for CountTokens {
    fn name(&self) -> &str {
        "count_tokens"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOC)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let args = Arguments::new("count_tokens", ["model", "text"], args)?;
        let texts = args.texts(1, "the text")?;
        if args.rows == 0 {
            return Ok(ColumnarValue::Array(Arc::new(Int64Array::new_null(0))));
        }
        let tokenizer = self.models.tokenizer(&args.constant(0, "the model")?)?;
        let mut counts = Vec::with_capacity(args.rows);
        for text in texts.iter() {
            counts.push(match text {
                Some(text) => Some(tokenizer.encode(text, false)?.len() as i64),
                None => None,
            });
        }
        Ok(ColumnarValue::Array(Arc::new(Int64Array::from(counts))))
    }
}
