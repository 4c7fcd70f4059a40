//! From rows of different lengths to the tensors of a step, in an order that depends on nothing but the rows.
//!
//! ```text
//! rows ── Plan ──> the rows of step k ── micro_batches ──> groups of similar length ── Padded ──> [batch, time]
//! ```
//!
//! How a step is split into micro-batches depends on its rows and the token budget only, never on the number of
//! workers, so the sum of their gradients has the same bits on any machine size.

use tch::{Device, Tensor};

use crate::draw::Key;

/// Which rows each step of a run takes: every epoch is a permutation of its own, cut into batches; the last
/// batch of an epoch may be smaller.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rows in the data set.
    pub rows: usize,
    /// Rows in a step.
    pub batch_size: usize,
    /// Passes over the data.
    pub epochs: usize,
    /// The key of the permutations.
    pub key: Key,
}

impl Plan {
    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.rows.div_ceil(self.batch_size.max(1))
    }

    /// Steps in all.
    pub fn steps(&self) -> usize {
        self.steps_per_epoch() * self.epochs
    }

    /// The epochs that `steps` steps make up.
    pub fn epoch(&self, steps: usize) -> f64 {
        steps as f64 / self.steps_per_epoch().max(1) as f64
    }

    /// The row order of an epoch.
    pub fn order(&self, epoch: usize) -> Vec<usize> {
        self.key.with(epoch as u64).permutation(self.rows)
    }

    /// The rows of step `step` (from 0) within its epoch's order.
    pub fn rows_of<'a>(&self, order: &'a [usize], step: usize) -> &'a [usize] {
        let start = (step % self.steps_per_epoch().max(1)) * self.batch_size;
        order.get(start..order.len().min(start + self.batch_size)).unwrap_or_default()
    }
}

/// Splits rows of the given lengths into groups of at most `budget` padded tokens (rows x longest row), longest
/// rows first, equal lengths in row order. A row above the budget is a group of its own.
///
/// The groups are even in number where there are several, and as equal in size as the budget allows, so that
/// two, four, .. workers finish together.
pub fn micro_batches(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| (std::cmp::Reverse(lengths[row]), row));
    let count = groups(lengths, &order, budget).len();
    let count = (count + count % 2).min(lengths.len());
    // The smallest budget that needs no more groups than that.
    let (mut low, mut high) = (1, budget.max(1));
    while low < high {
        let middle = low + (high - low) / 2;
        if groups(lengths, &order, middle).len() <= count {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    groups(lengths, &order, high)
}

fn groups(lengths: &[usize], order: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &row in order {
        match groups.last_mut() {
            // Rows come longest first, so the first row of a group is its width.
            Some(group) if (group.len() + 1) * lengths[group[0]] <= budget => group.push(row),
            _ => groups.push(vec![row]),
        }
    }
    groups
}

/// Token rows padded on the right to one width. A causal model never looks at the padding.
#[derive(Debug, Clone)]
pub struct Padded {
    ids: Vec<i64>,
    /// Rows.
    pub batch: usize,
    /// Width.
    pub time: usize,
}

impl Padded {
    /// Pads the rows to the longest one.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let rows: Vec<&[u32]> = rows.into_iter().collect();
        let time = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rows.len() * time);
        for row in &rows {
            ids.extend(row.iter().map(|&id| i64::from(id)));
            ids.resize(ids.len() + time - row.len(), 0);
        }
        Padded { ids, batch: rows.len(), time }
    }

    /// Where position `time` of row `row` lies in the flattened tensor.
    pub fn position(&self, row: usize, time: usize) -> i64 {
        (row * self.time + time) as i64
    }

    /// `[batch, time]` i64.
    pub fn tensor(&self, device: Device) -> Tensor {
        Tensor::from_slice(&self.ids).view([self.batch as i64, self.time as i64]).to_device(device)
    }
}
