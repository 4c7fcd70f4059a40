//! From rows to requests.
//!
//! In: the argument columns of one call over one micro-batch. Out: the requests for the rows that can be asked, and
//! what becomes of the others:
//!
//! | row | generate | choice_logits, reward, logprobs |
//! |---|---|---|
//! | NULL prompt or response, or an empty prompt of a model without a begin token | NULL | NULL |
//! | prompt (with response) beyond the context | empty response, `prompt_too_long` | NULL |
//! | any other | the answer | the answer |

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Int64Type};

use super::call::Operation;
use super::metrics::ModelMetrics;
use crate::draw;
use crate::engine::{Inference, Request, Task};
use crate::model::Tokenizer;
use crate::{Error, Result};

/// What becomes of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    Null,
    TooLong,
    /// An empty response has no log-probabilities: nothing to ask.
    Empty,
    Asked,
}

/// The requests of one call over one micro-batch, and which rows they are for.
pub(super) struct Asked {
    pub(super) rows: Vec<Row>,
    pub(super) requests: Vec<Request>,
}

/// The token of each choice: the text as it stands in the vocabulary, or else its encoding if that is one token.
pub(super) fn choice_tokens(choices: &[String], model: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut tokens = Vec::with_capacity(choices.len());
    for choice in choices {
        let token = match tokenizer.token(choice) {
            Some(token) => token,
            None => match tokenizer.encode(choice, false)?.as_slice() {
                [token] => *token,
                several => {
                    let problem = format!(
                        "choice {choice:?} is {} tokens of model {model}; give choices that are one token each",
                        several.len()
                    );
                    return Err(Error::query("choice_logits", problem));
                }
            },
        };
        tokens.push(token);
    }
    Ok(tokens)
}

/// Encodes the rows. `args` as [`super::call::ModelCall`] lays them out; `choices` are the tokens of choice_logits.
pub(super) fn ask(
    operation: &Operation,
    args: &[ArrayRef],
    choices: &[u32],
    model: &dyn Inference,
    metrics: &ModelMetrics,
) -> Result<Asked> {
    let prompts = column(args, 0)?;
    let prompts = strings(prompts)?;
    let mut asked = Asked { rows: Vec::with_capacity(prompts.len()), requests: Vec::with_capacity(prompts.len()) };
    for (i, prompt) in prompts.iter().enumerate() {
        let row = match prompt {
            Some(prompt) => {
                let prompt = model.tokenizer().encode(prompt, true)?;
                let task = task(operation, args, choices, model.tokenizer(), i)?;
                classify(prompt, task, model.context(), &mut asked.requests)
            }
            None => Row::Null,
        };
        asked.rows.push(row);
    }
    metrics.requests.add(asked.requests.len());
    metrics.prompt_tokens.add(asked.requests.iter().map(length).sum());
    metrics.too_long.add(asked.rows.iter().filter(|row| **row == Row::TooLong).count());
    Ok(asked)
}

/// Tokens the model reads for a request.
fn length(request: &Request) -> usize {
    match &request.task {
        Task::Logprobs { response } => request.prompt.len() + response.len(),
        _ => request.prompt.len(),
    }
}

/// What row `i` asks; `None` where an argument beside the prompt is NULL.
fn task(
    operation: &Operation,
    args: &[ArrayRef],
    choices: &[u32],
    tokenizer: &Tokenizer,
    i: usize,
) -> Result<Option<Task>> {
    Ok(match operation {
        Operation::Generate { sampling, seed } => {
            let keys = strings(column(args, 1)?)?;
            let key = if keys.is_null(i) { draw::key(*seed, &[]) } else { draw::key(*seed, &[keys.value(i)]) };
            Some(Task::Generate { sampling: Arc::clone(sampling), key })
        }
        Operation::ChoiceLogits { .. } => Some(Task::Choice { tokens: choices.to_vec() }),
        Operation::Reward => Some(Task::Reward),
        Operation::Logprobs => response(column(args, 1)?, tokenizer, i)?.map(|response| Task::Logprobs { response }),
    })
}

fn response(column: &ArrayRef, tokenizer: &Tokenizer, i: usize) -> Result<Option<Vec<u32>>> {
    if column.is_null(i) {
        return Ok(None);
    }
    if *column.data_type() == DataType::Utf8 {
        return tokenizer.encode(strings(column)?.value(i), false).map(Some);
    }
    let bad = |what: &str| Error::query("logprobs", format!("the response holds {what}, not a token id"));
    let Some(lists) = column.as_list_opt::<i32>() else { return Err(bad("no list")) };
    let ids = lists.value(i);
    let Some(ids) = ids.as_primitive_opt::<Int64Type>() else { return Err(bad("no whole numbers")) };
    let size = tokenizer.vocab_size() as i64;
    let id = |id: Option<i64>| match id {
        Some(id) if (0..size).contains(&id) => Ok(id as u32),
        Some(id) => Err(bad(&id.to_string())),
        None => Err(bad("a NULL")),
    };
    ids.iter().map(id).collect::<Result<Vec<u32>>>().map(Some)
}

fn classify(prompt: Vec<u32>, task: Option<Task>, context: usize, requests: &mut Vec<Request>) -> Row {
    let Some(task) = task else { return Row::Null };
    if prompt.is_empty() {
        return Row::Null;
    }
    if matches!(&task, Task::Logprobs { response } if response.is_empty()) {
        return Row::Empty;
    }
    let request = Request { prompt, task };
    // A generation needs room for at least one token.
    let room = usize::from(matches!(request.task, Task::Generate { .. }));
    if length(&request) + room > context {
        return Row::TooLong;
    }
    requests.push(request);
    Row::Asked
}

fn column(args: &[ArrayRef], index: usize) -> Result<&ArrayRef> {
    args.get(index).ok_or_else(|| Error::internal("model call", "an argument is missing"))
}

fn strings(column: &ArrayRef) -> Result<&StringArray> {
    column.as_string_opt::<i32>().ok_or_else(|| Error::internal("model call", "a text column has another type"))
}
