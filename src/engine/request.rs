//! What callers ask of a model, and what they get.
//!
//! In: prompts as token ids with a [`Task`] each. Out: one [`Output`] per request.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::draw::Key;
use crate::model::Tokenizer;
use crate::{Error, Result};

/// How to sample a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only the most likely tokens that together reach this probability; 1 for all.
    pub top_p: f64,
    /// Only this many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Tokens at most; the model's context bounds them too.
    pub max_tokens: usize,
    /// Texts that end the response, found even when they are spread over tokens.
    pub stop: Vec<String>,
}

/// What to do with a prompt.
#[derive(Debug, Clone)]
pub enum Task {
    /// Sample a response. Token `i` is chosen by `key.uniform(i)` and by nothing else that is random.
    Generate {
        /// How.
        sampling: Arc<Sampling>,
        /// The row's own key.
        key: Key,
    },
    /// The logits of these tokens right after the prompt.
    Choice {
        /// Token ids.
        tokens: Vec<u32>,
    },
    /// The log-probability of every token of a given response.
    Logprobs {
        /// The response's token ids; it may be empty.
        response: Vec<u32>,
    },
    /// The reward head's score of the last token of the prompt.
    Reward,
}

/// One row for a model.
#[derive(Debug, Clone)]
pub struct Request {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// What to do with it.
    pub task: Task,
}

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// With an end token or a stop string.
    Stop,
    /// At `max_tokens`, or where the model's context ends.
    Length,
}

/// A sampled response.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Sampled tokens, the end token included where there is one.
    pub ids: Vec<u32>,
    /// Their text, without the end token, cut before the stop string.
    pub text: String,
    /// Natural logarithm of each token's probability at temperature 1 over the whole vocabulary.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// The answer to one [`Request`].
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To [`Task::Generate`].
    Generation(Generation),
    /// To [`Task::Choice`], in the order of its tokens.
    Logits(Vec<f32>),
    /// To [`Task::Logprobs`], one per response token, natural logarithms.
    Logprobs(Vec<f32>),
    /// To [`Task::Reward`].
    Reward(f32),
}

/// A model that answers requests; what the model operators of a query see.
pub trait Inference: Debug + Send + Sync {
    /// The model's tokenizer.
    fn tokenizer(&self) -> &Arc<Tokenizer>;

    /// Tokens of prompt and response together at most.
    fn context(&self) -> usize;

    /// Queues the requests; the outputs come in their order. Dropping the future cancels what is not done.
    ///
    /// # Errors
    /// A data error that names the request by its index here, before any of them runs.
    fn submit(&self, requests: Vec<Request>) -> BoxFuture<'static, Result<Vec<Output>>>;
}

/// What a request is checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) vocab: usize,
    pub(super) context: usize,
    pub(super) has_head: bool,
}

impl Request {
    /// Everything that could go wrong later because of the request itself.
    pub(super) fn check(&self, index: usize, limits: &Limits) -> Result<()> {
        let wrong = |problem: String| Err(Error::data(format!("request {index}"), problem));
        let Limits { vocab, context, has_head } = *limits;
        let length = self.prompt.len();
        if length == 0 {
            return wrong("the prompt has no tokens; give it at least one, or drop the row".into());
        }
        let (what, more): (&str, &[u32]) = match &self.task {
            Task::Generate { sampling, .. } => {
                if let Some(problem) = sampling.problem() {
                    return wrong(problem);
                }
                if length >= context {
                    return wrong(format!(
                        "the prompt has {length} tokens, which leaves no room for a response in the model's context \
                         of {context}; shorten it"
                    ));
                }
                ("response", &[])
            }
            Task::Choice { tokens } if tokens.is_empty() => {
                return wrong("there are no tokens to choose from; name at least one".into());
            }
            Task::Choice { tokens } => ("choice", tokens),
            Task::Logprobs { response } => ("response", response),
            Task::Reward if !has_head => {
                return wrong("this model has no reward head; use a reward model, or a Yes/No head".into());
            }
            Task::Reward => ("response", &[]),
        };
        let whole = if matches!(self.task, Task::Logprobs { .. }) { length + more.len() } else { length };
        if whole > context {
            return wrong(format!("{whole} tokens do not fit into the model's context of {context}; shorten the text"));
        }
        for (what, ids) in [("prompt", self.prompt.as_slice()), (what, more)] {
            if let Some(at) = ids.iter().position(|&id| id as usize >= vocab) {
                return wrong(format!(
                    "token {} at position {at} of the {what} is outside the model's vocabulary of {vocab}; \
                     use this model's tokenizer",
                    ids[at]
                ));
            }
        }
        Ok(())
    }
}

impl Sampling {
    fn problem(&self) -> Option<String> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Some(format!("temperature is {}; it must be a number from 0 on", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Some(format!("top_p is {}; it must be above 0 and at most 1", self.top_p));
        }
        if self.max_tokens == 0 {
            return Some("max_tokens is 0; a response needs at least one token".into());
        }
        if self.stop.iter().any(String::is_empty) {
            return Some("a stop string is empty; remove it".into());
        }
        None
    }
}
