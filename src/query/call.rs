//! One model call of a statement: which model, what it is asked, and the expressions it reads.
//!
//! In: the arguments of a marker function as the analyser sees them. Out: a [`ModelCall`] whose model name and
//! options are settled and whose remaining arguments are expressions over the input columns.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::options::{self, fold, wrong};
use crate::engine::Sampling;
use crate::{Error, Result};

/// The functions that run as operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ModelFunction {
    Generate,
    ChoiceLogits,
    Reward,
    Logprobs,
}

impl ModelFunction {
    pub(super) const ALL: [Self; 4] = [Self::Generate, Self::ChoiceLogits, Self::Reward, Self::Logprobs];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::ChoiceLogits => "choice_logits",
            Self::Reward => "reward",
            Self::Logprobs => "logprobs",
        }
    }

    pub(super) fn syntax(self) -> &'static str {
        match self {
            Self::Generate => "generate(model, prompt [, {option: value, ...}])",
            Self::ChoiceLogits => "choice_logits(model, prompt, [choice, ...])",
            Self::Reward => "reward(model, prompt)",
            Self::Logprobs => "logprobs(model, prompt, response)",
        }
    }

    /// The type of its result. A row whose prompt is NULL has a NULL result.
    pub(super) fn output_type(self) -> DataType {
        match self {
            Self::Generate => DataType::Struct(generation_fields()),
            Self::ChoiceLogits | Self::Logprobs => list_of(DataType::Float64),
            Self::Reward => DataType::Float64,
        }
    }
}

/// `struct<response, ids, tokens, finish_reason, logprobs, logprob>`, what `generate` gives back.
pub(super) fn generation_fields() -> Fields {
    Fields::from(vec![
        Field::new("response", DataType::Utf8, true),
        Field::new("ids", list_of(DataType::Int64), true),
        Field::new("tokens", DataType::Int64, true),
        Field::new("finish_reason", DataType::Utf8, true),
        Field::new("logprobs", list_of(DataType::Float64), true),
        Field::new("logprob", DataType::Float64, true),
    ])
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// What a call asks of its model, the same for every row.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Generate { sampling: Arc<Sampling>, seed: u64 },
    ChoiceLogits { choices: Vec<String> },
    Reward,
    Logprobs,
}

impl Operation {
    pub(super) fn function(&self) -> ModelFunction {
        match self {
            Self::Generate { .. } => ModelFunction::Generate,
            Self::ChoiceLogits { .. } => ModelFunction::ChoiceLogits,
            Self::Reward => ModelFunction::Reward,
            Self::Logprobs => ModelFunction::Logprobs,
        }
    }
}

impl fmt::Display for Operation {
    /// Everything that decides the result, so that equal text means equal operations.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generate { sampling, seed } => {
                write!(f, "temperature={}, top_p={}", sampling.temperature, sampling.top_p)?;
                write!(f, ", top_k={}, max_tokens={}", sampling.top_k, sampling.max_tokens)?;
                write!(f, ", stop={:?}, seed={seed}", sampling.stop)
            }
            Self::ChoiceLogits { choices } => write!(f, "choices={choices:?}"),
            Self::Reward | Self::Logprobs => Ok(()),
        }
    }
}

/// One call: the result of `function(model, args)` under `operation` becomes the column `column`.
///
/// `args` is `[prompt, row key]` for generate, `[prompt, response]` for logprobs, else `[prompt]`;
/// prompt and row key are Utf8, the response is Utf8 or a list of Int64 token ids.
#[derive(Debug, Clone)]
pub(super) struct ModelCall {
    pub(super) model: String,
    pub(super) operation: Operation,
    pub(super) args: Vec<Expr>,
    pub(super) column: String,
}

impl ModelCall {
    /// Reads a call off the marker's arguments; `schema` is that of the input the expressions refer to.
    pub(super) fn parse(function: ModelFunction, args: &[Expr], schema: &DFSchemaRef, column: String) -> Result<Self> {
        let usage = || Error::query(function.name(), format!("expected {}", function.syntax()));
        let (model, prompt, rest) = match args {
            [model, prompt, rest @ ..] => (model, prompt, rest),
            _ => return Err(usage()),
        };
        let model = match fold(model, schema, function.name(), "the model name")? {
            ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)) | ScalarValue::LargeUtf8(Some(name)) => {
                name
            }
            other => return Err(wrong(function.name(), "the model name", "a text", &other)),
        };
        let prompt = text(function, "the prompt", prompt, schema)?;
        let (operation, args) = match (function, rest) {
            (ModelFunction::Generate, []) => {
                let (sampling, seed) = (Arc::new(options::default_sampling()), options::DEFAULT_SEED);
                (Operation::Generate { sampling, seed }, vec![prompt.clone(), prompt])
            }
            (ModelFunction::Generate, [given]) => {
                let given = options::parse(given, schema)?;
                let row = match given.row {
                    Some(row) => row.cast_to(&DataType::Utf8, schema)?,
                    None => prompt.clone(),
                };
                let operation = Operation::Generate { sampling: Arc::new(given.sampling), seed: given.seed };
                (operation, vec![prompt, row])
            }
            (ModelFunction::ChoiceLogits, [choices]) => {
                let choices = fold(choices, schema, function.name(), "the choices")?;
                let choices = options::texts(function.name(), "the choices", &choices)?;
                if choices.is_empty() {
                    return Err(Error::query(function.name(), "give at least one choice, e.g. ['a', 'b']"));
                }
                (Operation::ChoiceLogits { choices }, vec![prompt])
            }
            (ModelFunction::Reward, []) => (Operation::Reward, vec![prompt]),
            (ModelFunction::Logprobs, [response]) => {
                let response = response_argument(response, schema)?;
                (Operation::Logprobs, vec![prompt, response])
            }
            _ => return Err(usage()),
        };
        Ok(Self { model, operation, args, column })
    }

    /// Whether `other` gives the same value on the same row (the columns may be named differently).
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    fn key(&self) -> (ModelFunction, &str, String, &[Expr]) {
        (self.operation.function(), &self.model, self.operation.to_string(), &self.args)
    }
}

impl PartialEq for ModelCall {
    fn eq(&self, other: &Self) -> bool {
        self.column == other.column && self.same_as(other)
    }
}

impl Eq for ModelCall {}

impl Hash for ModelCall {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.column.hash(state);
        self.key().hash(state);
    }
}

impl fmt::Display for ModelCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args: Vec<String> = self.args.iter().map(ToString::to_string).collect();
        write_call(f, &self.column, &self.operation, &self.model, &args)
    }
}

/// `column = function('model', arguments; options)`, the same in logical and physical plans.
pub(super) fn write_call(
    f: &mut fmt::Formatter<'_>,
    column: &str,
    operation: &Operation,
    model: &str,
    args: &[String],
) -> fmt::Result {
    write!(f, "{column} = {}('{model}', {}", operation.function().name(), args.join(", "))?;
    let options = operation.to_string();
    if options.is_empty() { f.write_str(")") } else { write!(f, "; {options})") }
}

/// `argument` as Utf8.
fn text(function: ModelFunction, what: &str, argument: &Expr, schema: &DFSchemaRef) -> Result<Expr> {
    match argument.get_type(schema)? {
        DataType::Utf8 => Ok(argument.clone()),
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => {
            Ok(argument.clone().cast_to(&DataType::Utf8, schema)?)
        }
        other => Err(Error::query(function.name(), format!("{what} ({argument}) must be text, not {other}"))),
    }
}

/// The response of `logprobs`: a text, or the token ids that `generate` gave back.
fn response_argument(argument: &Expr, schema: &DFSchemaRef) -> Result<Expr> {
    match argument.get_type(schema)? {
        DataType::List(item) | DataType::LargeList(item) if item.data_type().is_integer() => {
            Ok(argument.clone().cast_to(&list_of(DataType::Int64), schema)?)
        }
        _ => text(ModelFunction::Logprobs, "the response", argument, schema)
            .map_err(|_| Error::query("logprobs", "the response must be text or a list of token ids")),
    }
}
