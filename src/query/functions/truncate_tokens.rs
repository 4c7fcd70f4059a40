//! `truncate_tokens(model, text, max, side)`: a text cut to a number of tokens.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, StringBuilder};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::{Arguments, SCALAR_SECTION, Shared, documentation};
use crate::model::Tokenizer;
use crate::query::Models;
use crate::{Error, Result};

static DOC: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        SCALAR_SECTION,
        "The text itself if it has at most `max` tokens, else the text of `max` of them: side 'left' cuts at the left \
         and keeps the end, 'right' cuts at the right and keeps the start. Special tokens and parts of a character \
         leave no text.",
        "truncate_tokens(model, text, max, side)",
        &[
            ("model", "name of a model of the run; only its tokenizer is loaded"),
            ("text", "text"),
            ("max", "tokens to keep, from 0"),
            ("side", "'left' or 'right': where text is cut away"),
        ],
        "SELECT truncate_tokens('reward', instruction, 128, 'left') AS instruction FROM prompts",
    )
});

/// The side of a text that is cut away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Keeps the end.
    Left,
    /// Keeps the start.
    Right,
}

/// `text` with at most `max` tokens, cut at `side`.
pub fn truncate_tokens(tokenizer: &Tokenizer, text: &str, max: usize, side: Side) -> Result<String> {
    let ids = tokenizer.encode(text, false)?;
    if ids.len() <= max {
        return Ok(text.to_string());
    }
    let kept = match side {
        Side::Left => ids.split_at(ids.len() - max).1,
        Side::Right => ids.split_at(max).0,
    };
    let text = tokenizer.decode(kept)?;
    // A cut within a character leaves bytes that are none.
    Ok(match side {
        Side::Left => text.trim_start_matches('\u{FFFD}').to_string(),
        Side::Right => text.trim_end_matches('\u{FFFD}').to_string(),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TruncateTokens {
    models: Shared<Models>,
    signature: Signature,
}

impl TruncateTokens {
    pub(super) fn new(models: Shared<Models>) -> Self {
        Self { models, signature: Signature::any(4, Volatility::Stable) }
    }
}

impl ScalarUDFImpl for TruncateTokens {
    fn name(&self) -> &str {
        "truncate_tokens"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOC)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let args = Arguments::new("truncate_tokens", ["model", "text", "max", "side"], args)?;
        let texts = args.texts(1, "the text")?;
        let limits = args.array(2)?;
        if !limits.data_type().is_integer() && !limits.data_type().is_null() {
            return Err(args.wrong("max", "a whole number", limits.data_type()).into());
        }
        let mut cut = StringBuilder::new();
        if args.rows > 0 {
            let limits = arrow::compute::cast(&limits, &DataType::Int64)?;
            let limits = limits.as_primitive::<Int64Type>();
            let tokenizer = self.models.tokenizer(&args.constant(0, "the model")?)?;
            let side = match args.constant(3, "the side")?.as_str() {
                "left" => Side::Left,
                "right" => Side::Right,
                other => {
                    let problem = format!("the side must be 'left' or 'right', not {other:?}");
                    return Err(Error::query("truncate_tokens", problem).into());
                }
            };
            for (text, max) in texts.iter().zip(limits.iter()) {
                cut.append_option(match (text, max) {
                    (Some(text), Some(max)) => {
                        let max = usize::try_from(max)
                            .map_err(|_| Error::query("truncate_tokens", format!("max must be from 0, not {max}")))?;
                        Some(truncate_tokens(&tokenizer, text, max, side)?)
                    }
                    _ => None,
                });
            }
        }
        Ok(ColumnarValue::Array(Arc::new(cut.finish())))
    }
}
