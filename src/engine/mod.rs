//! Batched inference: what an engine is asked and what it answers.
//!
//! In: token ids with a task per request. Out: one [`Output`] per [`Request`], in request order.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::Result;
use crate::draw::Key;
use crate::model::Tokenizer;

/// How to sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Softmax temperature; 0 takes the most likely token.
    pub temperature: f64,
    /// Nucleus: the smallest set of tokens whose probabilities sum to this.
    pub top_p: f64,
    /// Only the k most likely tokens; 0 = all.
    pub top_k: usize,
    /// At most this many tokens.
    pub max_tokens: usize,
    /// Texts that end the response.
    pub stop: Vec<String>,
}

/// What is asked of one prompt.
#[derive(Debug, Clone)]
pub enum Task {
    /// Sample a response.
    Generate {
        /// How to sample.
        sampling: Arc<Sampling>,
        /// The row's stream of random draws.
        key: Key,
    },
    /// Logits of these tokens at the position after the prompt.
    Choice {
        /// Token ids.
        tokens: Vec<u32>,
    },
    /// Log-probability of each token of this response.
    Logprobs {
        /// Token ids.
        response: Vec<u32>,
    },
    /// The reward head's score of the prompt's last position.
    Reward,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// What to do with it.
    pub task: Task,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// An end token or a stop string.
    Stop,
    /// `max_tokens` or the context.
    Length,
}

/// One sampled response.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Token ids, with the end token when it stopped on one.
    pub ids: Vec<u32>,
    /// Its text without the end token, cut before the stop string.
    pub text: String,
    /// Log-probability per id at temperature 1, nats.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// The answer to one request.
#[derive(Debug, Clone)]
pub enum Output {
    /// To [`Task::Generate`].
    Generation(Generation),
    /// To [`Task::Choice`], one per token asked for.
    Logits(Vec<f32>),
    /// To [`Task::Logprobs`], one per response token, nats.
    Logprobs(Vec<f32>),
    /// To [`Task::Reward`].
    Reward(f32),
}

/// A model that answers requests.
pub trait Inference: Debug + Send + Sync {
    /// Its tokenizer.
    fn tokenizer(&self) -> &Arc<Tokenizer>;
    /// The longest sequence it takes, tokens.
    fn context(&self) -> usize;
    /// Answers in request order; dropping the future cancels what has not run yet.
    fn submit(&self, requests: Vec<Request>) -> BoxFuture<'static, Result<Vec<Output>>>;
}
