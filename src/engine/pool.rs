//! Blocks of keys and values, and the prefixes that sequences share.
//!
//! In: the tokens of a sequence that wants to start. Out: a [`Lease`]: the blocks of its longest known prefix, and
//! the promise of as many more as it can need, so that a sequence that has started never lacks memory.
//!
//! ```text
//! (parent block, 16 tokens) ─> block ─> (block, 16 tokens) ─> block ..     the tree of known prefixes
//! ```
//! A block is known once its sixteen tokens are computed; from then on it is never written. It is found by its
//! tokens and the identity of the block before it, so a hit is exact, not a matter of hashes. Keys and values of a
//! token depend on its prefix only, so a shared block holds the bits that each sequence would have computed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::native::{LANES, Lines};

/// Tokens in a block.
pub(super) const BLOCK: usize = LANES;

/// Keys and values of [`BLOCK`] tokens in all layers.
#[derive(Debug)]
pub(super) struct Block {
    data: Lines,
    /// Identity within the trees, whose roots have one too; 0 is the root of the first.
    id: u64,
    /// When a sequence last let go of it.
    used: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    parent: u64,
    tokens: [u32; BLOCK],
}

impl Place {
    /// Block `index` of a sequence, if it is full.
    fn of(parent: u64, tokens: &[u32], index: usize) -> Option<Place> {
        let tokens = tokens.get(index * BLOCK..(index + 1) * BLOCK)?;
        Some(Place { parent, tokens: tokens.try_into().ok()? })
    }
}

/// The blocks of one running sequence.
#[derive(Debug)]
pub(super) struct Lease {
    /// Known blocks, shared with the tree and other sequences.
    shared: Vec<Arc<Block>>,
    /// Blocks that only this sequence has, after the shared ones.
    own: Vec<Block>,
    /// Blocks that the sequence may have at most.
    most: usize,
    /// Where the next block to become known will be, until the prompt is computed.
    next: Option<Place>,
    /// All blocks in order, for the kernels.
    pointers: Vec<*mut f32>,
}

impl Lease {
    /// The blocks in order.
    pub(super) fn blocks(&self) -> &[*mut f32] {
        &self.pointers
    }

    /// Tokens whose keys and values were there from the start, right after [`Pool::admit`].
    pub(super) fn known_tokens(&self) -> usize {
        self.shared.len() * BLOCK
    }
}

/// What became of a sequence that wanted to start.
pub(super) enum Admission {
    Started(Lease),
    /// Another sequence is computing a prefix that this one needs too.
    Wait,
    /// There is no memory until another sequence ends.
    Full,
}

/// All blocks of an engine, bounded in number.
#[derive(Debug)]
pub(super) struct Pool {
    block_len: usize,
    most: usize,
    allocated: usize,
    free: Vec<Block>,
    known: HashMap<Place, Arc<Block>>,
    /// Places that running sequences are about to fill, and how many.
    coming: HashMap<Place, usize>,
    /// Known blocks that running sequences hold.
    held: usize,
    /// Blocks promised to running sequences, beyond the held ones.
    promised: usize,
    next_id: u64,
    clock: u64,
}

impl Pool {
    /// At most `most` blocks of `block_len` f32, allocated when needed.
    pub(super) fn new(block_len: usize, most: usize) -> Self {
        Pool {
            block_len,
            most,
            allocated: 0,
            free: Vec::new(),
            known: HashMap::new(),
            coming: HashMap::new(),
            held: 0,
            promised: 0,
            next_id: 1,
            clock: 0,
        }
    }

    /// The root of a tree of its own, for prefixes whose keys and values come from other weights.
    pub(super) fn new_root(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Starts a sequence under `root` with this input, which may grow to `length` tokens. Only blocks before position `needed`
    /// are taken from the tree: from there on the sequence needs hidden states, which the tree does not hold.
    pub(super) fn admit(&mut self, root: u64, input: &[u32], needed: usize, length: usize) -> Admission {
        let mut found: Vec<&Arc<Block>> = Vec::new();
        let mut parent = root;
        while let Some(place) = Place::of(parent, &input[..needed], found.len()) {
            match self.known.get(&place) {
                Some(block) => found.push(block),
                None if self.coming.contains_key(&place) => return Admission::Wait,
                None => break,
            }
            parent = found.last().map_or(root, |block| block.id);
        }
        let most = length.div_ceil(BLOCK);
        let newly_held = found.iter().filter(|block| Arc::strong_count(block) == 1).count();
        let promised = most - found.len();
        if self.held + newly_held + self.promised + promised > self.most {
            return Admission::Full;
        }
        let shared: Vec<Arc<Block>> = found.into_iter().cloned().collect();
        self.held += newly_held;
        self.promised += promised;
        let pointers = shared.iter().map(|block| block.data.as_slice().as_ptr().cast_mut()).collect();
        let next = Place::of(parent, input, shared.len());
        self.announce(next.as_ref());
        Admission::Started(Lease { shared, own: Vec::new(), most, next, pointers })
    }

    /// Gives the lease the blocks for its first `tokens` tokens.
    pub(super) fn grow(&mut self, lease: &mut Lease, tokens: usize) {
        while lease.pointers.len() * BLOCK < tokens {
            debug_assert!(lease.pointers.len() < lease.most);
            let mut block = self.take();
            lease.pointers.push(block.data.as_mut_slice().as_mut_ptr());
            lease.own.push(block);
        }
    }

    fn take(&mut self) -> Block {
        if self.free.is_empty() && self.allocated >= self.most {
            self.evict();
        }
        self.free.pop().unwrap_or_else(|| {
            self.allocated += 1;
            Block { data: Lines::zeroed(self.block_len), id: 0, used: AtomicU64::new(0) }
        })
    }

    /// Forgets the least recently used eighth of the known blocks that no sequence holds.
    fn evict(&mut self) {
        let mut idle: Vec<u64> = Vec::new();
        for block in self.known.values() {
            if Arc::strong_count(block) == 1 {
                idle.push(block.used.load(Ordering::Relaxed));
            }
        }
        if idle.is_empty() {
            return;
        }
        let nth = idle.len() / 8;
        let (_, &mut limit, _) = idle.select_nth_unstable(nth);
        let old = |block: &Arc<Block>| Arc::strong_count(block) == 1 && block.used.load(Ordering::Relaxed) <= limit;
        for (_, block) in self.known.extract_if(|_, block| old(block)) {
            self.free.extend(Arc::into_inner(block));
        }
    }

    /// Makes the full blocks of `input` known as far as `computed` tokens are computed.
    /// True if other sequences may be waiting for them.
    pub(super) fn publish(&mut self, lease: &mut Lease, input: &[u32], computed: usize) -> bool {
        let mut any = false;
        while let Some(place) = lease.next.take_if(|_| computed >= (lease.shared.len() + 1) * BLOCK) {
            any = true;
            self.arrived(&place);
            let index = lease.shared.len();
            let mut block = lease.own.remove(0);
            self.promised -= 1;
            let known = match self.known.get(&place) {
                // Computed twice at the same time, with the same bits.
                Some(known) => {
                    self.held += usize::from(Arc::strong_count(known) == 1);
                    self.free.push(block);
                    Arc::clone(known)
                }
                None => {
                    block.id = self.next_id;
                    self.next_id += 1;
                    self.held += 1;
                    let block = Arc::new(block);
                    self.known.insert(place, Arc::clone(&block));
                    block
                }
            };
            lease.pointers[index] = known.data.as_slice().as_ptr().cast_mut();
            lease.next = Place::of(known.id, input, index + 1);
            lease.shared.push(known);
            self.announce(lease.next.as_ref());
        }
        any
    }

    /// Takes a sequence's blocks back; the known ones stay in the tree.
    pub(super) fn release(&mut self, mut lease: Lease) {
        if let Some(place) = lease.next.take() {
            self.arrived(&place);
        }
        self.promised -= lease.most - lease.shared.len();
        self.free.append(&mut lease.own);
        // From the end, so that a leaf is older than the blocks it needs.
        for block in lease.shared.into_iter().rev() {
            self.clock += 1;
            block.used.store(self.clock, Ordering::Relaxed);
            // The tree's own and ours: nobody else holds it.
            self.held -= usize::from(Arc::strong_count(&block) == 2);
        }
    }

    /// Forgets every prefix; no sequence may be running.
    pub(super) fn clear(&mut self) {
        for (_, block) in self.known.drain() {
            self.free.extend(Arc::into_inner(block));
        }
    }

    fn announce(&mut self, place: Option<&Place>) {
        if let Some(place) = place {
            *self.coming.entry(place.clone()).or_insert(0) += 1;
        }
    }

    fn arrived(&mut self, place: &Place) {
        if let Some(count) = self.coming.get_mut(place) {
            *count -= 1;
            if *count == 0 {
                self.coming.remove(place);
            }
        }
    }
}
