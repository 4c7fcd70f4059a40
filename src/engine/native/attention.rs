//! Causal attention of consecutive tokens of one sequence over blocks of keys and values.
//!
//! In: rotated and scaled queries `[rows, heads, key_width]`, and the sequence's blocks, each with sixteen
//! tokens of one layer: keys transposed `[kv_heads, key_width, 16]`, then values `[kv_heads, 16, value_width]`.
//! Out: `[rows, heads, value_width]`.
//!
//! Order of every sum, whatever the tile: a score over the key's elements in turn; the softmax sum over blocks in
//! turn by lane, then the lanes by halves; an output element over even and over odd tokens in turn, then both.
//!
//! With a window, tokens left of it that share a block with the window, or that another query of the tile sees, get
//! the weight 0, which changes no sum.

use super::simd::{LANES, Simd};

/// One span of tokens in one layer, for one key-value head.
#[derive(Clone, Copy)]
pub(super) struct Attention<'a> {
    pub(super) queries: *const f32,
    pub(super) query_stride: usize,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
    pub(super) rows: usize,
    /// Position of the first row in its sequence.
    pub(super) start: usize,
    /// How many positions, its own included, a row sees at most.
    pub(super) window: usize,
    /// Scores become `cap * tanh(score / cap)`; 0 leaves them as they are.
    pub(super) cap: f32,
    /// The sequence's blocks in order.
    pub(super) blocks: &'a [*mut f32],
    /// Where this layer starts in a block.
    pub(super) layer: usize,
    pub(super) kv_heads: usize,
    /// The one of them to be computed, with its query heads.
    pub(super) head: usize,
    /// Query heads per key-value head.
    pub(super) group: usize,
    pub(super) key_width: usize,
    pub(super) value_width: usize,
    /// Room for `score_stride` f32 per query of a tile.
    pub(super) scores: *mut f32,
    pub(super) score_stride: usize,
}

/// Queries a tile may hold at most, on any instruction set.
pub(super) const MAX_QUERIES: usize = 4;

/// Tiles of `Q` queries against `B` blocks, the rest one query against `C` blocks at a time.
#[inline(always)]
pub(super) unsafe fn attention<S: Simd, const Q: usize, const B: usize, const C: usize>(a: &Attention<'_>) {
    let queries = a.rows * a.group;
    let mut first = 0;
    while first + Q <= queries {
        tile::<S, Q, B>(a, first);
        first += Q;
    }
    while first < queries {
        tile::<S, 1, C>(a, first);
        first += 1;
    }
}

/// Queries `first..first + Q` of the head, numbered row by row and head by head within its group.
#[inline(always)]
unsafe fn tile<S: Simd, const Q: usize, const B: usize>(a: &Attention<'_>, first: usize) {
    let head = a.head;
    let mut queries = [std::ptr::null::<f32>(); Q];
    let mut outs = [std::ptr::null_mut::<f32>(); Q];
    let mut lengths = [0; Q];
    let mut starts = [0; Q];
    for q in 0..Q {
        let (row, member) = ((first + q) / a.group, (first + q) % a.group);
        let query_head = head * a.group + member;
        queries[q] = a.queries.add(row * a.query_stride + query_head * a.key_width);
        outs[q] = a.out.add(row * a.out_stride + query_head * a.value_width);
        lengths[q] = a.start + row + 1;
        starts[q] = lengths[q].saturating_sub(a.window);
    }
    let keys = a.layer + head * a.key_width * LANES;
    let values = a.layer + a.kv_heads * a.key_width * LANES + head * LANES * a.value_width;

    let blocks = lengths[Q - 1].div_ceil(LANES);
    // The first query sees furthest back.
    let first = starts[0] / LANES;
    let mut block = first;
    while block + B <= blocks {
        scores::<S, Q, B>(a, keys, &queries, block, blocks);
        block += B;
    }
    // Several sums side by side hide each other's latency, so a part of a tile is cheaper than its blocks in turn.
    match blocks - block {
        0 => {}
        1 => scores::<S, Q, 1>(a, keys, &queries, block, blocks),
        2 => scores::<S, Q, 2>(a, keys, &queries, block, blocks),
        3 | 4 => scores::<S, Q, 4>(a, keys, &queries, block, blocks),
        _ => scores::<S, Q, B>(a, keys, &queries, block, blocks),
    }

    let mut scale = [0f32; Q];
    for q in 0..Q {
        scale[q] = softmax::<S>(a.scores.add(q * a.score_stride), first * LANES, starts[q], lengths[q], a.cap);
    }
    let first = first * LANES;

    let vectors = a.value_width / LANES;
    let mut v = 0;
    if Q == 1 {
        while v + 4 <= vectors {
            weighted::<S, Q, 4>(a, values + v * LANES, first, &lengths, &scale, &outs, v);
            v += 4;
        }
    }
    while v + 2 <= vectors {
        weighted::<S, Q, 2>(a, values + v * LANES, first, &lengths, &scale, &outs, v);
        v += 2;
    }
    if v < vectors {
        weighted::<S, Q, 1>(a, values + v * LANES, first, &lengths, &scale, &outs, v);
    }
}

/// Query times key for `B` blocks from `block` on, as far as there are any.
#[inline(always)]
unsafe fn scores<S: Simd, const Q: usize, const B: usize>(
    a: &Attention<'_>,
    keys: usize,
    queries: &[*const f32; Q],
    block: usize,
    blocks: usize,
) {
    let mut pages = [std::ptr::null::<f32>(); B];
    for b in 0..B {
        pages[b] = a.blocks.get_unchecked((block + b).min(blocks - 1)).add(keys);
    }
    let mut sums = [[S::splat(0.0); B]; Q];
    for i in 0..a.key_width {
        let mut key = [S::splat(0.0); B];
        for b in 0..B {
            key[b] = S::load(pages[b].add(i * LANES));
        }
        for q in 0..Q {
            let query = S::splat(*queries[q].add(i));
            for b in 0..B {
                sums[q][b] = S::fma(query, key[b], sums[q][b]);
            }
        }
    }
    for q in 0..Q {
        for b in 0..B.min(blocks - block) {
            S::store(a.scores.add(q * a.score_stride + (block + b) * LANES), sums[q][b]);
        }
    }
}

/// Turns the scores of tokens `first..length` into weights `e^(score - max)`, those before `start` into 0; gives
/// `1 / their sum`. `first` begins a vector.
#[inline(always)]
unsafe fn softmax<S: Simd>(scores: *mut f32, first: usize, start: usize, length: usize, cap: f32) -> f32 {
    let none = S::splat(f32::NEG_INFINITY);
    if cap > 0.0 {
        let cap = S::splat(cap);
        for t in (first..length).step_by(LANES) {
            let score = S::load(scores.add(t));
            S::store(scores.add(t), S::mul(S::tanh(S::div(score, cap)), cap));
        }
    }
    for t in (first..start).step_by(LANES) {
        let score = S::load(scores.add(t));
        S::store(scores.add(t), S::first(none, start - t, score));
    }
    let whole = length / LANES * LANES;
    let mut max = none;
    for t in (first..whole).step_by(LANES) {
        max = S::max(max, S::load(scores.add(t)));
    }
    if whole < length {
        let tail = S::first(S::load(scores.add(whole)), length - whole, none);
        S::store(scores.add(whole), tail);
        max = S::max(max, tail);
    }
    let max = S::splat(S::maximum(max));
    let mut sum = S::splat(0.0);
    for t in (first..length).step_by(LANES) {
        let weight = S::exp(S::sub(S::load(scores.add(t)), max));
        sum = S::add(sum, weight);
        S::store(scores.add(t), weight);
    }
    1.0 / S::sum(sum)
}

/// Weighted sum of the values of tokens from `first` on for `V` vectors of the output, `at` being the first one.
#[inline(always)]
unsafe fn weighted<S: Simd, const Q: usize, const V: usize>(
    a: &Attention<'_>,
    values: usize,
    first: usize,
    lengths: &[usize; Q],
    scale: &[f32; Q],
    outs: &[*mut f32; Q],
    at: usize,
) {
    let value = |t: usize| a.blocks.get_unchecked(t / LANES).add(values + t % LANES * a.value_width);
    let mut even = [[S::splat(0.0); V]; Q];
    let mut odd = [[S::splat(0.0); V]; Q];
    // All queries see the tokens of the first one; what the later ones see beyond is added one by one.
    let common = lengths[0] / 2 * 2;
    let mut t = first;
    while t < common {
        let mut page = value(t);
        let end = common.min(t + LANES);
        while t < end {
            for v in 0..V {
                let x = S::load(page.add(v * LANES));
                let y = S::load(page.add(a.value_width + v * LANES));
                for q in 0..Q {
                    let weights = a.scores.add(q * a.score_stride + t);
                    even[q][v] = S::fma(S::splat(*weights), x, even[q][v]);
                    odd[q][v] = S::fma(S::splat(*weights.add(1)), y, odd[q][v]);
                }
            }
            page = page.add(2 * a.value_width);
            t += 2;
        }
    }
    for q in 0..Q {
        let weights = a.scores.add(q * a.score_stride);
        let mut t = common;
        while t < lengths[q] {
            let weight = S::splat(*weights.add(t));
            for v in 0..V {
                even[q][v] = S::fma(weight, S::load(value(t).add(v * LANES)), even[q][v]);
            }
            if t + 1 < lengths[q] {
                let weight = S::splat(*weights.add(t + 1));
                for v in 0..V {
                    odd[q][v] = S::fma(weight, S::load(value(t + 1).add(v * LANES)), odd[q][v]);
                }
            }
            t += 2;
        }
        for v in 0..V {
            let sum = S::mul(S::add(even[q][v], odd[q][v]), S::splat(scale[q]));
            S::store(outs[q].add((at + v) * LANES), sum);
        }
    }
}
