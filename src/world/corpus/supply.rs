//! Micro-batches of one kind each, of documents of like length.
//!
//! ```text
//! kind, refill ─> documents 0, 1, 2, ... ─ sorted by length, cut, shuffled ─> micro-batches, one per call
//! ```
//!
//! In: a key. Out: micro-batches. Every document is a function of the key, its kind, the refill, its number and the
//! emphasis of the refill, so what is left of a refill is saved as a few numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Document, Emphasis, Kind, document};
use crate::draw::Key;
use crate::world::dice::Dice;

/// The most padded tokens of a micro-batch.
pub const MICRO_BATCH: usize = 1260;
/// A refill has this many tokens: about six micro-batches.
const REFILL: usize = 7200;
/// What is left over by the cut is used from this many documents on.
const FEWEST: usize = 3;

/// Micro-batches on demand.
#[derive(Debug)]
pub struct Supply {
    key: Key,
    shelves: BTreeMap<Kind, Shelf>,
}

/// What is there of one kind.
#[derive(Debug, Default)]
struct Shelf {
    /// Refills so far.
    refills: u64,
    /// The emphasis of the last one.
    emphasis: Emphasis,
    /// What is left of it; taken from the end.
    batches: Vec<Vec<Document>>,
}

/// A [`Supply`] in numbers.
#[derive(Debug, Serialize, Deserialize)]
pub struct SupplyState(Vec<ShelfState>);

#[derive(Debug, Serialize, Deserialize)]
struct ShelfState {
    kind: Kind,
    refills: u64,
    left: usize,
    bridging: bool,
    /// Bits of the weights.
    principles: [u64; 10],
}

impl Supply {
    /// Nothing yet; all documents to come are draws of `key`.
    pub fn new(key: Key) -> Self {
        Supply { key, shelves: BTreeMap::new() }
    }

    /// A micro-batch. `emphasis` counts where there is nothing of the kind left.
    pub fn next(&mut self, kind: Kind, emphasis: &Emphasis) -> Vec<Document> {
        let key = self.key.with(kind as u64);
        let shelf = self.shelves.entry(kind).or_default();
        loop {
            if let Some(batch) = shelf.batches.pop() {
                return batch;
            }
            shelf.emphasis = *emphasis;
            shelf.batches = refill(kind, key.with(shelf.refills), emphasis);
            shelf.refills += 1;
        }
    }

    /// Throws away what is left.
    pub fn discard(&mut self) {
        self.shelves.values_mut().for_each(|shelf| shelf.batches.clear());
    }

    /// Where the supply stands.
    pub fn state(&self) -> SupplyState {
        let state = |(kind, shelf): (&Kind, &Shelf)| ShelfState {
            kind: *kind,
            refills: shelf.refills,
            left: shelf.batches.len(),
            bridging: shelf.emphasis.bridging,
            principles: shelf.emphasis.principles.map(f64::to_bits),
        };
        SupplyState(self.shelves.iter().map(state).collect())
    }

    /// The supply of `key` as it stood at `state`.
    pub fn restore(key: Key, state: &SupplyState) -> Self {
        let shelf = |s: &ShelfState| {
            let emphasis = Emphasis { principles: s.principles.map(f64::from_bits), bridging: s.bridging };
            let mut batches = Vec::new();
            if s.left > 0 {
                batches = refill(s.kind, key.with(s.kind as u64).with(s.refills.saturating_sub(1)), &emphasis);
                batches.truncate(s.left);
            }
            (s.kind, Shelf { refills: s.refills, emphasis, batches })
        };
        Supply { key, shelves: state.0.iter().map(shelf).collect() }
    }
}

fn refill(kind: Kind, key: Key, emphasis: &Emphasis) -> Vec<Vec<Document>> {
    let (mut documents, mut tokens) = (Vec::new(), 0);
    while tokens < REFILL {
        let document = document(kind, emphasis, &mut Dice::new(key.with(documents.len() as u64)));
        tokens += document.ids.len();
        documents.push(document);
    }
    documents.sort_by_key(|document| document.ids.len());
    let (mut batches, mut batch) = (Vec::new(), Vec::new());
    for document in documents {
        // Sorted, so this one is the longest.
        if (batch.len() + 1) * document.ids.len() > MICRO_BATCH {
            batches.push(std::mem::take(&mut batch));
        }
        batch.push(document);
    }
    if batch.len() >= FEWEST {
        batches.push(batch);
    }
    Dice::new(key.with(u64::MAX)).shuffled(&batches)
}
