//! The layers of a decoder, over all rows of a step.
//!
//! In: rows of the residual stream `[n, hidden]` in the scratch. Out: the rows that the step's spans want, after the last
//! layer; keys and values of all rows in their blocks.
//!
//! Each phase of a layer is cut into parts that the threads of a team take: panels of a product, rows, heads of a span. No
//! part writes what another one reads or writes, and none depends on how many there are.

use std::ops::Range;

use super::adapter::{Adapter, Pair, Pairs, Run, runs};
use super::attention::{Attention, MAX_QUERIES};
use super::decoder::{Decoder, Scratch, Span};
use super::gemm::Gemm;
use super::layer::Layer;
use super::memory::{Lines, Matrix, Packed, padded};
use super::pointwise::{Gated, RmsNorm, Rotary};
use super::shape::Activation;
use super::simd::LANES;
use super::team::Team;

/// Rows of a part: of a norm, of keys and values to be stored, of gated units, of queries.
const NORM_ROWS: usize = 16;
const STORED_ROWS: usize = 8;
const GATED_ROWS: usize = 4;
const QUERY_ROWS: usize = 32;
/// Panels of a part at least, and parts of a product for each thread.
const PANELS: usize = 4;
const PRODUCTS: usize = 6;

/// What the layers of a step have in common.
pub(super) struct Plan<'a, 's> {
    spans: &'s [Span<'a>],
    /// For each row its span, and its place in there.
    rows: Vec<(usize, usize)>,
    /// The attention of all rows, and of the wanted ones.
    units: [Vec<Unit>; 2],
    runs: [Vec<Run<'a>>; 2],
}

/// Rows of a span whose attention is computed together.
struct Unit {
    span: usize,
    /// The first one within the span.
    first: usize,
    rows: usize,
    /// Where the first one is among all rows, and among the rows of the output.
    from: usize,
    to: usize,
}

impl<'a, 's> Plan<'a, 's> {
    pub(super) fn new(spans: &'s [Span<'a>]) -> Self {
        let rows = spans.iter().enumerate().flat_map(|(s, span)| (0..span.tokens.len()).map(move |i| (s, i)));
        let units = |skip: fn(&Span<'_>) -> usize| {
            let (mut units, mut from, mut to) = (Vec::with_capacity(spans.len()), 0, 0);
            for (s, span) in spans.iter().enumerate() {
                let len = span.tokens.len();
                for first in (skip(span)..len).step_by(QUERY_ROWS) {
                    let rows = QUERY_ROWS.min(len - first);
                    units.push(Unit { span: s, first, rows, from: from + first, to });
                    to += rows;
                }
                from += len;
            }
            units
        };
        Plan {
            spans,
            rows: rows.collect(),
            units: [units(|_| 0), units(|span| span.tokens.len() - span.wanted)],
            runs: [
                runs(spans.iter().map(|span| (span.tokens.len(), span.adapter))),
                runs(spans.iter().map(|span| (span.wanted, span.adapter))),
            ],
        }
    }

    /// The largest rank of the adapters.
    pub(super) fn rank(&self) -> usize {
        self.runs[0].iter().filter_map(|run| run.adapter).map(|adapter| adapter.rank).max().unwrap_or(0)
    }
}

/// The halves of a layer.
#[derive(Clone, Copy)]
enum Half {
    Attention,
    FeedForward,
}

/// Which of a layer's pairs belong to a product.
type Which = fn(&Pairs) -> &[Pair];

impl Decoder {
    /// One layer; the last one goes on with the wanted rows only. Gives the number of rows it ends with.
    pub(super) fn layer(&self, team: &mut Team, scratch: &mut Scratch, plan: &Plan<'_, '_>, index: usize) -> usize {
        let layer = &self.layers()[index];
        let rows = plan.rows.len();
        self.norm(team, scratch, &layer.attention_norm, rows);
        self.gemm(team, &layer.qkv, &scratch.hidden, 0, rows, &mut scratch.qkv, false);
        let which: Which = |pairs| &pairs.qkv;
        self.adapt(team, &plan.runs[0], (index, which), &scratch.hidden, &mut scratch.low, &mut scratch.qkv);
        let qkv = scratch.qkv.shared();
        team.run(rows.div_ceil(STORED_ROWS), &|part, _| {
            for row in part_of(rows, STORED_ROWS, part) {
                let (span, i) = plan.rows[row];
                let span = &plan.spans[span];
                // SAFETY: no other part has this row.
                self.remember(unsafe { qkv.row_mut(row) }, span, span.start + i, index, layer);
            }
        });
        let last = index + 1 == self.layers().len();
        let units = &plan.units[usize::from(last)];
        self.attend(team, scratch, plan.spans, units, index);
        let kept = units.last().map_or(0, |unit| unit.to + unit.rows);
        if last {
            units.iter().for_each(|u| (0..u.rows).for_each(|i| scratch.x.copy_row(u.from + i, u.to + i)));
        }
        let runs = &plan.runs[usize::from(last)];
        self.add(team, scratch, runs, index, Half::Attention, kept);
        self.norm(team, scratch, &layer.mlp_norm, kept);
        self.gemm(team, &layer.gate_up, &scratch.hidden, 0, kept, &mut scratch.gate_up, false);
        let which: Which = |pairs| &pairs.gate_up;
        self.adapt(team, runs, (index, which), &scratch.hidden, &mut scratch.low, &mut scratch.gate_up);
        self.gate(team, scratch, kept);
        self.add(team, scratch, runs, index, Half::FeedForward, kept);
        kept
    }

    /// Adds what a half of a layer gives to the residual stream: the product of its last matrix, normed where it has a norm.
    fn add(&self, team: &mut Team, scratch: &mut Scratch, runs: &[Run<'_>], index: usize, half: Half, rows: usize) {
        let layer = &self.layers()[index];
        let norms = layer.post_norms.as_ref();
        let Scratch { x, hidden, attended, gate_up, low, .. } = scratch;
        let (from, weights, norm, which): (_, _, _, Which) = match half {
            Half::Attention => (attended, &layer.output, norms.map(|[norm, _]| norm), |pairs| &pairs.output),
            Half::FeedForward => (gate_up, &layer.down, norms.map(|[_, norm]| norm), |pairs| &pairs.down),
        };
        let to = if norm.is_some() { &mut *hidden } else { &mut *x };
        self.gemm(team, weights, from, 0, rows, to, norm.is_none());
        self.adapt(team, runs, (index, which), from, low, to);
        if let Some(norm) = norm {
            self.rms_norm(team, hidden, x, norm, rows, true);
        }
    }

    /// Attention of the units' rows, head by head.
    fn attend(&self, team: &mut Team, scratch: &mut Scratch, spans: &[Span<'_>], units: &[Unit], index: usize) {
        let (key_width, kv_heads) = (2 * self.half, self.shape().kv_heads);
        let (qkv, attended) = (scratch.qkv.shared(), scratch.attended.shared());
        let scores = scratch.scores.shared();
        team.run(units.len() * kv_heads, &|part, me| {
            let unit = &units[part / kv_heads];
            let span = &spans[unit.span];
            // SAFETY: a unit's rows exist, and no other part has them with this head; each member of the team has
            // rows of scores of its own. `step` checked positions and blocks; the scratch was made for this shape.
            unsafe {
                (self.kernels().attention)(&Attention {
                    queries: qkv.row(unit.from),
                    query_stride: qkv.stride,
                    out: attended.row(unit.to),
                    out_stride: attended.stride,
                    rows: unit.rows,
                    start: span.start + unit.first,
                    window: self.layers()[index].window,
                    cap: self.shape().attention_cap,
                    blocks: span.blocks,
                    layer: index * self.layer_len(),
                    kv_heads,
                    head: part % kv_heads,
                    group: self.shape().heads / kv_heads,
                    key_width,
                    value_width: self.value_width,
                    scores: scores.row(me * MAX_QUERIES),
                    score_stride: scores.stride,
                });
            }
        });
    }

    /// The activation between the two products of the feed-forward layer.
    fn gate(&self, team: &mut Team, scratch: &mut Scratch, rows: usize) {
        let (stride, width) = (scratch.gate_up.stride, padded(self.shape().intermediate));
        let gated = Gated { x: scratch.gate_up.ptr_mut(0), stride, width, rows };
        let kernel = match self.shape().activation {
            Activation::Silu => self.kernels().swiglu,
            Activation::GeluTanh => self.kernels().geglu,
        };
        team.run(rows.div_ceil(GATED_ROWS), &|part, _| {
            // SAFETY: the matrix has `rows` rows of `2 * width`.
            unsafe { kernel(&gated.part(part_of(rows, GATED_ROWS, part))) }
        });
    }

    /// Norms and rotates one row's queries and keys, scales its queries, and writes its keys and values into its block.
    fn remember(&self, row: &mut [f32], span: &Span<'_>, position: usize, index: usize, layer: &Layer) {
        let (s, key_width) = (self.shape(), 2 * self.half);
        let angles = &self.angles[layer.angles];
        let cos = angles.cos.as_slice()[position * angles.stride..].as_ptr();
        let sin = angles.sin.as_slice()[position * angles.stride..].as_ptr();
        let (queries, rest) = row.split_at_mut(s.heads * key_width);
        let (keys, values) = rest.split_at_mut(s.kv_heads * key_width);
        if let Some([query_norm, key_norm]) = &layer.qk_norms {
            for (x, heads, weight) in [(&mut *queries, s.heads, query_norm), (&mut *keys, s.kv_heads, key_norm)] {
                let norm = RmsNorm {
                    x: x.as_ptr(),
                    weight: weight.as_slice().as_ptr(),
                    out: x.as_mut_ptr(),
                    stride: key_width,
                    width: s.head_dim,
                    span: key_width,
                    rows: heads,
                    eps: s.eps,
                    add: false,
                };
                // SAFETY: the slice holds its heads, and the weight is as wide as one; in place, each vector of a head
                // is written after its last use.
                unsafe { (self.kernels().rms_norm)(&norm) }
            }
        }
        let scale = 1.0 / s.attention_scalar.sqrt();
        let rotate =
            |x: &mut [f32], heads, scale| Rotary { x: x.as_mut_ptr(), heads, half: self.half, cos, sin, scale };
        // SAFETY: both slices hold their heads; cos and sin have `half` values per position.
        unsafe {
            (self.kernels().rotary)(&rotate(queries, s.heads, scale));
            (self.kernels().rotary)(&rotate(keys, s.kv_heads, 1.0));
        }
        let slot = position % LANES;
        // SAFETY: `step` checked that the block exists; a block has `block_len` f32, and while a span is being computed
        // the blocks its tokens fall into are its own. Rows that are stored at the same time have other slots.
        unsafe {
            let block = span.blocks[position / LANES].add(index * self.layer_len());
            for (i, &key) in keys[..s.kv_heads * key_width].iter().enumerate() {
                *block.add(i * LANES + slot) = key;
            }
            let block = block.add(s.kv_heads * key_width * LANES);
            let width = self.value_width;
            for (head, value) in values.chunks_exact(width).take(s.kv_heads).enumerate() {
                let to = block.add((head * LANES + slot) * width);
                std::ptr::copy_nonoverlapping(value.as_ptr(), to, width);
            }
        }
    }

    /// `hidden = norm(x)`.
    pub(super) fn norm(&self, team: &mut Team, scratch: &mut Scratch, weight: &Lines, rows: usize) {
        self.rms_norm(team, &scratch.x, &mut scratch.hidden, weight, rows, false);
    }

    fn rms_norm(&self, team: &mut Team, x: &Matrix, out: &mut Matrix, weight: &Lines, rows: usize, add: bool) {
        assert!(rows <= x.rows && rows <= out.rows && x.stride == out.stride);
        let norm = RmsNorm {
            x: x.ptr(0),
            weight: weight.as_slice().as_ptr(),
            out: out.ptr_mut(0),
            stride: x.stride,
            width: self.shape().hidden,
            span: padded(self.shape().hidden),
            rows,
            eps: self.shape().eps,
            add,
        };
        team.run(rows.div_ceil(NORM_ROWS), &|part, _| {
            // SAFETY: just checked; the weight is as wide as a row.
            unsafe { (self.kernels().rms_norm)(&norm.part(part_of(rows, NORM_ROWS, part))) }
        });
    }

    /// Adds each run's differences to its rows of `out`, which is the product of `x` and the decoder's own weights.
    fn adapt(
        &self,
        team: &mut Team,
        runs: &[Run<'_>],
        (layer, which): (usize, Which),
        x: &Matrix,
        low: &mut Matrix,
        out: &mut Matrix,
    ) {
        let mut first = 0;
        for run in runs {
            let pairs = run.adapter.map_or(&[][..], |adapter: &Adapter| which(&adapter.layers[layer]));
            for pair in pairs {
                self.gemm(team, &pair.a, x, first, run.rows, low, false);
                assert!(first + run.rows <= out.rows && pair.column + pair.b.panels * LANES <= out.stride);
                // SAFETY: just checked; so is `low`, by the first product.
                let to = unsafe { out.ptr_mut(first).add(pair.column) };
                self.product(team, &pair.b.product((low.ptr(0), low.stride), run.rows, (to, out.stride), true));
            }
            first += run.rows;
        }
    }

    /// `out = x w` for `rows` rows of `x` from `first` on, or that added to `out`; with the bias that `weights` has.
    #[expect(clippy::too_many_arguments, reason = "the matrices of a product, which rows, and who computes it")]
    pub(super) fn gemm(
        &self,
        team: &mut Team,
        weights: &Packed,
        x: &Matrix,
        first: usize,
        rows: usize,
        out: &mut Matrix,
        add: bool,
    ) {
        assert!(first + rows <= x.rows && rows <= out.rows);
        let columns = weights.panels * LANES;
        assert!(weights.k <= x.stride && columns <= out.stride);
        if let Some(bias) = &weights.bias {
            for row in 0..rows {
                let row = &mut out.row_mut(row)[..columns];
                if add {
                    row.iter_mut().zip(bias.as_slice()).for_each(|(x, bias)| *x += bias);
                } else {
                    row.copy_from_slice(bias.as_slice());
                }
            }
        }
        let to = (out.ptr_mut(0), out.stride);
        self.product(team, &weights.product((x.ptr(first), x.stride), rows, to, add || weights.bias.is_some()));
    }

    /// A product whose pointers cover the rows and panels that it states, by parts of its panels.
    fn product(&self, team: &mut Team, gemm: &Gemm) {
        if gemm.rows == 0 {
            return;
        }
        let panels = gemm.panels.div_ceil(PRODUCTS * team.members()).next_multiple_of(PANELS);
        team.run(gemm.panels.div_ceil(panels.max(1)), &|part, _| {
            // SAFETY: the callers checked it.
            unsafe { (self.kernels().gemm)(&gemm.part(part_of(gemm.panels, panels, part))) }
        });
    }
}

/// Part `part` of `0..all`, each of `size`.
fn part_of(all: usize, size: usize, part: usize) -> Range<usize> {
    part * size..all.min((part + 1) * size)
}
