//! From answers to a column.
//!
//! In: what became of each row, and the outputs of the rows that were asked, in order. Out: an array with one value
//! per row, of the function's output type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Float64Builder, Int64Builder, ListBuilder, NullBufferBuilder, StringBuilder, StructArray,
};

use super::call::{Operation, generation_fields};
use super::metrics::ModelMetrics;
use super::requests::Row;
use crate::engine::{Finish, Generation, Output};
use crate::{Error, Result};

/// The result column of `operation`.
pub(super) fn column(
    operation: &Operation,
    rows: &[Row],
    outputs: Vec<Output>,
    metrics: &ModelMetrics,
) -> Result<ArrayRef> {
    let asked = rows.iter().filter(|row| **row == Row::Asked).count();
    if outputs.len() != asked {
        let problem = format!("the model answered {} of {asked} requests", outputs.len());
        return Err(Error::internal(operation.function().name(), problem));
    }
    let outputs = outputs.into_iter();
    match operation {
        Operation::Generate { .. } => generations(rows, outputs, metrics),
        Operation::ChoiceLogits { .. } | Operation::Logprobs => lists(operation, rows, outputs),
        Operation::Reward => rewards(rows, outputs),
    }
}

fn unexpected(operation: &str) -> Error {
    Error::internal(operation, "the model answered with another kind of output")
}

fn rewards(rows: &[Row], mut outputs: impl Iterator<Item = Output>) -> Result<ArrayRef> {
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        values.push(match row {
            Row::Asked => match outputs.next() {
                Some(Output::Reward(reward)) => Some(f64::from(reward)),
                _ => return Err(unexpected("reward")),
            },
            _ => None,
        });
    }
    Ok(Arc::new(Float64Array::from(values)))
}

fn lists(operation: &Operation, rows: &[Row], mut outputs: impl Iterator<Item = Output>) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(Float64Builder::new());
    for row in rows {
        match row {
            Row::Asked => match (operation, outputs.next()) {
                (Operation::ChoiceLogits { .. }, Some(Output::Logits(values)))
                | (Operation::Logprobs, Some(Output::Logprobs(values))) => {
                    lists.append_value(values.into_iter().map(|value| Some(f64::from(value))));
                }
                _ => return Err(unexpected(operation.function().name())),
            },
            Row::Empty => lists.append(true),
            Row::Null | Row::TooLong => lists.append(false),
        }
    }
    Ok(Arc::new(lists.finish()))
}

/// The columns of `generate`'s struct while they are filled.
#[derive(Default)]
struct Generations {
    response: StringBuilder,
    ids: ListBuilder<Int64Builder>,
    tokens: Int64Builder,
    finish_reason: StringBuilder,
    logprobs: ListBuilder<Float64Builder>,
    logprob: Float64Builder,
}

impl Generations {
    fn push(&mut self, generation: &Generation, finish_reason: &str) {
        self.response.append_value(&generation.text);
        self.ids.append_value(generation.ids.iter().map(|id| Some(i64::from(*id))));
        self.tokens.append_value(generation.ids.len() as i64);
        self.finish_reason.append_value(finish_reason);
        self.logprobs.append_value(generation.logprobs.iter().map(|value| Some(f64::from(*value))));
        self.logprob.append_value(generation.logprobs.iter().map(|value| f64::from(*value)).sum());
    }

    fn push_null(&mut self) {
        self.response.append_null();
        self.ids.append(false);
        self.tokens.append_null();
        self.finish_reason.append_null();
        self.logprobs.append(false);
        self.logprob.append_null();
    }
}

fn generations(rows: &[Row], mut outputs: impl Iterator<Item = Output>, metrics: &ModelMetrics) -> Result<ArrayRef> {
    let nothing = Generation { ids: Vec::new(), text: String::new(), logprobs: Vec::new(), finish: Finish::Length };
    let mut columns = Generations::default();
    let mut valid = NullBufferBuilder::new(rows.len());
    for row in rows {
        match row {
            Row::Asked => match outputs.next() {
                Some(Output::Generation(generation)) => {
                    metrics.sampled_tokens.add(generation.ids.len());
                    let reason = match generation.finish {
                        Finish::Stop => "stop",
                        Finish::Length => "length",
                    };
                    columns.push(&generation, reason);
                    valid.append_non_null();
                }
                _ => return Err(unexpected("generate")),
            },
            Row::TooLong => {
                columns.push(&nothing, "prompt_too_long");
                valid.append_non_null();
            }
            Row::Null | Row::Empty => {
                columns.push_null();
                valid.append_null();
            }
        }
    }
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(columns.response.finish()),
        Arc::new(columns.ids.finish()),
        Arc::new(columns.tokens.finish()),
        Arc::new(columns.finish_reason.finish()),
        Arc::new(columns.logprobs.finish()),
        Arc::new(columns.logprob.finish()),
    ];
    Ok(Arc::new(StructArray::try_new(generation_fields(), arrays, valid.finish())?))
}
