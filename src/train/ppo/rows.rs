//! Rollouts as token rows, and how they become micro-batches.
//!
//! In: [`Row`]s. Out: padded token ids with the flat positions of the response tokens; every per-token number
//! travels as a flat list in row order, as long as the responses together.

use std::ops::Range;

use crate::train::batch::{Padded, micro_batches};

/// One sampled response and what it earned.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The prompt's token ids.
    pub query_ids: Vec<u32>,
    /// The sampled token ids, with the end token where it stopped.
    pub response_ids: Vec<u32>,
    /// The shaped score: reward model, length bonus, unfinished penalty. Before KL.
    pub reward: f64,
}

/// The models' view of a response, one number per response token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// The policy's log-probabilities at the configured temperature, nats.
    pub logprobs: Vec<f32>,
    /// The reference's.
    pub ref_logprobs: Vec<f32>,
    /// Value estimates of the states that the tokens were sampled in.
    pub values: Vec<f32>,
}

/// What a step used for one response.
#[derive(Debug, Clone, PartialEq)]
pub struct RowUpdate {
    /// Before the update.
    pub evaluation: Evaluation,
    /// `log p - log q` summed over the response (k1, whatever estimator the penalty uses), nats.
    pub kl: f64,
    /// GAE advantages per token, before whitening.
    pub advantages: Vec<f64>,
    /// Advantage plus value per token.
    pub returns: Vec<f64>,
}

/// What the losses need per response token beside the token itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Targets {
    pub(super) logprobs: Vec<f32>,
    pub(super) values: Vec<f32>,
    /// Whitened.
    pub(super) advantages: Vec<f32>,
    pub(super) returns: Vec<f32>,
}

impl Targets {
    /// Appends those of another row.
    pub(super) fn extend(&mut self, other: &Targets) {
        self.logprobs.extend(&other.logprobs);
        self.values.extend(&other.values);
        self.advantages.extend(&other.advantages);
        self.returns.extend(&other.returns);
    }
}

/// A micro-batch of responses.
pub(super) struct Piece {
    /// Rows of the step and the lengths of their responses, in the order they lie here.
    rows: Vec<(usize, usize)>,
    pub(super) ids: Padded,
    /// Flat positions that response tokens are predicted at.
    pub(super) positions_n: Vec<i64>,
    /// Those tokens.
    pub(super) tokens_n: Vec<i64>,
}

impl Piece {
    /// Each row with the span of its tokens in the flat lists.
    pub(super) fn spans(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        self.rows.iter().scan(0, |end, &(row, length)| {
            let start = *end;
            *end += length;
            Some((row, start..*end))
        })
    }
}

/// The micro-batches of the rows `members` of a step; a function of these rows and the budget alone, so that an
/// evaluation and the first training pass over the same members compute the same bits.
pub(super) fn pieces(rows: &[Row], members: &[usize], budget: usize) -> Vec<Piece> {
    // The last token is predicted, not fed.
    let fed: Vec<Vec<u32>> = members
        .iter()
        .map(|&row| {
            let row = &rows[row];
            let mut ids = [row.query_ids.as_slice(), &row.response_ids].concat();
            ids.pop();
            ids
        })
        .collect();
    let lengths: Vec<usize> = fed.iter().map(Vec::len).collect();
    micro_batches(&lengths, budget)
        .into_iter()
        .map(|group| {
            let ids = Padded::new(group.iter().map(|&member| fed[member].as_slice()));
            let (mut positions_n, mut tokens_n) = (Vec::new(), Vec::new());
            for (place, &member) in group.iter().enumerate() {
                let row = &rows[members[member]];
                for (t, &token) in row.response_ids.iter().enumerate() {
                    positions_n.push(ids.position(place, row.query_ids.len() - 1 + t));
                    tokens_n.push(i64::from(token));
                }
            }
            let length = |row: usize| (row, rows[row].response_ids.len());
            let rows = group.into_iter().map(|member| length(members[member])).collect();
            Piece { rows, ids, positions_n, tokens_n }
        })
        .collect()
}
