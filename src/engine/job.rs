//! One request while it runs: which tokens come next, and what is made of each hidden state.
//!
//! In: a checked [`Request`], then the decoder's row for every position from `needed` on. Out: the request's
//! [`Output`], delivered through its [`Ticket`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;

use super::native::{Choice, Decoder, Sampler, Scratch};
use super::request::{Finish, Generation, Output, Request, Sampling, Task};
use super::variant::Variant;
use crate::draw::Key;
use crate::model::{Head, TextStream, Tokenizer};
use crate::{Error, Result};

/// Where the outputs of one `submit` call gather.
#[derive(Debug)]
pub(super) struct Ticket {
    cancelled: AtomicBool,
    gathered: Mutex<Gathered>,
}

#[derive(Debug)]
struct Gathered {
    outputs: Vec<Option<Output>>,
    left: usize,
    sender: Option<oneshot::Sender<Result<Vec<Output>>>>,
}

impl Ticket {
    pub(super) fn new(rows: usize) -> (Arc<Self>, oneshot::Receiver<Result<Vec<Output>>>) {
        let (sender, receiver) = oneshot::channel();
        let outputs = std::iter::repeat_with(|| None).take(rows).collect();
        let gathered = Mutex::new(Gathered { outputs, left: rows, sender: Some(sender) });
        (Arc::new(Ticket { cancelled: AtomicBool::new(false), gathered }), receiver)
    }

    /// Nobody waits for the outputs any more.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, index: usize, output: Output) {
        let mut gathered = self.gathered();
        gathered.outputs[index] = Some(output);
        gathered.left -= 1;
        if gathered.left == 0
            && let Some(sender) = gathered.sender.take()
        {
            let outputs = std::mem::take(&mut gathered.outputs).into_iter().flatten().collect();
            // An error means that nobody waits any more.
            let _ = sender.send(Ok(outputs));
        }
    }

    /// Gives the error to the caller, once, and stops the other rows.
    fn fail(&self, error: Error) {
        self.cancel();
        if let Some(sender) = self.gathered().sender.take() {
            let _ = sender.send(Err(error));
        }
    }
}

/// What all jobs of an engine share.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) end_tokens: Vec<u32>,
}

/// One request, queued or running. Dropping it unfinished fails its ticket.
#[derive(Debug)]
pub(super) struct Job {
    ticket: Arc<Ticket>,
    index: usize,
    /// The number of its model.
    variant: usize,
    finished: bool,
    /// The input, then what was sampled.
    tokens: Vec<u32>,
    /// Length of the input.
    input: usize,
    /// Positions from here on need their hidden state.
    needed: usize,
    /// Positions whose keys and values will be computed at most.
    length: usize,
    /// Positions whose keys and values are computed.
    computed: usize,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Generate { sampling: Arc<Sampling>, key: Key, logprobs: Vec<f32>, stream: TextStream },
    Choice { tokens: Vec<u32> },
    Logprobs { response: Vec<u32>, values: Vec<f32> },
    Reward,
}

impl Job {
    /// The request is checked. `None`: there is nothing to compute, and the output is delivered.
    pub(super) fn new(
        ticket: &Arc<Ticket>,
        index: usize,
        variant: usize,
        request: Request,
        context: usize,
    ) -> Option<Self> {
        let mut tokens = request.prompt;
        let prompt = tokens.len();
        let mut length = prompt;
        let work = match request.task {
            Task::Generate { sampling, key } => {
                // The last token sampled is never fed back.
                length = (prompt.saturating_add(sampling.max_tokens)).min(context) - 1;
                Work::Generate { sampling, key, logprobs: Vec::new(), stream: TextStream::new() }
            }
            Task::Choice { tokens } => Work::Choice { tokens },
            Task::Logprobs { response } => {
                let Some((_, fed)) = response.split_last() else {
                    ticket.deliver(index, Output::Logprobs(Vec::new()));
                    return None;
                };
                tokens.extend_from_slice(fed);
                length = tokens.len();
                Work::Logprobs { values: Vec::with_capacity(response.len()), response }
            }
            Task::Reward => Work::Reward,
        };
        let input = tokens.len();
        let ticket = Arc::clone(ticket);
        Some(Job {
            ticket,
            index,
            variant,
            finished: false,
            tokens,
            input,
            needed: prompt - 1,
            length,
            computed: 0,
            work,
        })
    }

    pub(super) fn variant(&self) -> usize {
        self.variant
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.ticket.is_cancelled()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(super) fn input(&self) -> &[u32] {
        &self.tokens[..self.input]
    }

    pub(super) fn needed(&self) -> usize {
        self.needed
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn computed(&self) -> usize {
        self.computed
    }

    /// Tokens that wait to be computed.
    pub(super) fn waiting(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether the next token is a sampled one.
    pub(super) fn is_decoding(&self) -> bool {
        self.computed >= self.input
    }

    /// The next `count` tokens, and how many of them need their hidden state.
    pub(super) fn next(&self, count: usize) -> (&[u32], usize) {
        let end = self.computed + count;
        (&self.tokens[self.computed..end], end.saturating_sub(self.needed.max(self.computed)))
    }

    /// `count` more positions are computed (or were known).
    pub(super) fn advance(&mut self, count: usize) {
        self.computed += count;
    }

    /// Whether it takes whole rows of logits.
    pub(super) fn wants_logits(&self) -> bool {
        matches!(self.work, Work::Generate { .. } | Work::Logprobs { .. })
    }

    /// Takes the logits after one more position; the output if that was the last one needed.
    pub(super) fn take_logits(
        &mut self,
        model: &Model,
        decoder: &Decoder,
        sampler: &mut Sampler,
        logits: &mut [f32],
    ) -> Result<Option<Output>> {
        match &mut self.work {
            Work::Generate { sampling, key, logprobs, stream } => {
                let choice = Choice { temperature: sampling.temperature, top_k: sampling.top_k, top_p: sampling.top_p };
                let uniform = key.uniform(logprobs.len() as u64);
                let (token, logprob) = sampler.sample(decoder, logits, &choice, uniform).ok_or_else(not_a_number)?;
                self.tokens.push(token);
                logprobs.push(logprob);
                let ids = &self.tokens[self.input..];
                let ended = model.end_tokens.contains(&token);
                let found = if ended { None } else { find_stop(&model.tokenizer, stream, token, &sampling.stop)? };
                let finish = match ended || found.is_some() {
                    true => Finish::Stop,
                    // `length` counts the tokens fed: one less than the tokens there can be.
                    false if self.tokens.len() > self.length => Finish::Length,
                    false => return Ok(None),
                };
                let text = match found {
                    Some(at) => stream.text()[..at].to_string(),
                    None => model.tokenizer.decode(&ids[..ids.len() - usize::from(ended)])?,
                };
                let logprobs = std::mem::take(logprobs);
                Ok(Some(Output::Generation(Generation { ids: ids.to_vec(), text, logprobs, finish })))
            }
            Work::Logprobs { response, values } => {
                let (_, normalizer) = sampler.normalizer(decoder, logits).ok_or_else(not_a_number)?;
                let token = response[values.len()];
                values.push((f64::from(logits[token as usize]) - normalizer) as f32);
                let done = values.len() == response.len();
                Ok(done.then(|| Output::Logprobs(std::mem::take(values))))
            }
            Work::Choice { .. } | Work::Reward => Err(Error::internal("engine", "this task takes no logits")),
        }
    }

    /// Takes hidden state `row` of the scratch; the output.
    pub(super) fn take_hidden(
        &self,
        variant: &Variant,
        decoder: &Decoder,
        scratch: &mut Scratch,
        row: usize,
    ) -> Result<Output> {
        let output = match (&self.work, variant.head) {
            (Work::Choice { tokens }, _) => {
                Output::Logits(tokens.iter().map(|&token| decoder.logit(scratch, row, token)).collect())
            }
            (Work::Reward, Head::Linear) => {
                let score = decoder.score(scratch, row, variant.adapter.as_ref());
                Output::Reward(score.ok_or_else(|| Error::internal("engine", "there is no score.weight"))?)
            }
            (Work::Reward, Head::YesNo { yes, no }) => {
                Output::Reward(decoder.logit(scratch, row, yes) - decoder.logit(scratch, row, no))
            }
            _ => return Err(Error::internal("engine", "this task takes logits, or a head")),
        };
        let finite = match &output {
            Output::Logits(values) => values.iter().all(|x| x.is_finite()),
            Output::Reward(score) => score.is_finite(),
            _ => true,
        };
        if finite { Ok(output) } else { Err(not_a_number()) }
    }

    /// Hands the result to the caller.
    pub(super) fn finish(&mut self, result: Result<Output>) {
        self.finished = true;
        match result {
            Ok(output) => self.ticket.deliver(self.index, output),
            Err(error) => self.ticket.fail(error),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.finished {
            self.ticket.fail(Error::internal("engine", "stopped before this row was done"));
        }
    }
}

fn not_a_number() -> Error {
    Error::model("weights", "the model gives logits that are no numbers (NaN or infinite); the checkpoint is damaged")
}

/// Adds a token to the text; where in it the first stop string begins, if one is there now.
fn find_stop(tokenizer: &Tokenizer, stream: &mut TextStream, token: u32, stops: &[String]) -> Result<Option<usize>> {
    let Some(longest) = stops.iter().map(String::len).max() else { return Ok(None) };
    // What was there before had none, so a stop string ends in the new text.
    let mut from = (stream.text().len() + 1).saturating_sub(longest);
    stream.push(tokenizer, token)?;
    let text = stream.text();
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    Ok(stops.iter().filter_map(|stop| text[from..].find(stop.as_str())).min().map(|at| from + at))
}
