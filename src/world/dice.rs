//! A cursor over the counter-based draws of one key, for code that needs many small choices in a row.

use crate::draw::Key;

/// Draws 0, 1, 2, ... of a key.
#[derive(Debug, Clone)]
pub struct Dice {
    key: Key,
    next: u64,
}

impl Dice {
    /// The draws of `key` from the first on.
    pub fn new(key: Key) -> Self {
        Dice { key, next: 0 }
    }

    fn index(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// A number in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        let n = self.index();
        self.key.uniform(n)
    }

    /// A number in `0..below`.
    pub fn below(&mut self, below: usize) -> usize {
        let n = self.index();
        self.key.below(n, below as u64) as usize
    }

    /// One of the items (`items` must not be empty).
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// An index drawn by weight.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.uniform() * weights.iter().sum::<f64>();
        for (i, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return i;
            }
        }
        weights.len() - 1
    }

    /// A number in `0..below` other than `not` (`below` > 1).
    pub fn other(&mut self, below: usize, not: usize) -> usize {
        let n = self.below(below - 1);
        if n >= not { n + 1 } else { n }
    }

    /// The items in a random order.
    pub fn shuffled<T: Clone>(&mut self, items: &[T]) -> Vec<T> {
        let mut items = items.to_vec();
        for i in (1..items.len()).rev() {
            let j = self.below(i + 1);
            items.swap(i, j);
        }
        items
    }

    /// `n` different items in a random order.
    pub fn sample<T: Clone>(&mut self, items: &[T], n: usize) -> Vec<T> {
        let mut items = self.shuffled(items);
        items.truncate(n);
        items
    }
}
