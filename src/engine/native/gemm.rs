//! Matrix product of activation rows with packed weights.
//!
//! In: `x [rows, k]` and [`Packed`](super::memory::Packed) panels. Out: `out [rows, 16 * panels]`, set or added to.
//!
//! Every element is `out = fma(x[i], w[i], out)` for `i = 0, 1, .. k-1`, starting from 0 or from the old value.
//! How rows and panels are cut into register tiles, and `k` into blocks, changes which element is worked on
//! when, never that order: a row's result does not depend on the rows beside it.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::simd::{LANES, Simd};
use super::stored::{Element, F32, Stored};

/// Inputs worked on at a time: two panels of weights of this length stay in the first-level cache.
const BLOCK: usize = 256;
/// Panels worked on at a time: their block of weights stays in the second-level cache.
const GROUP: usize = 8;
/// From this many rows on, 16-bit weights are made f32 once for all rows instead of once for each tile.
const WIDENED: usize = 4;

/// One product. Pointers are to the first row and to the first panel.
#[derive(Clone, Copy)]
pub(super) struct Gemm {
    pub(super) weights: *const u8,
    pub(super) stored: Stored,
    /// Of the columns.
    pub(super) scales: *const f32,
    pub(super) k: usize,
    pub(super) panels: usize,
    pub(super) x: *const f32,
    pub(super) x_stride: usize,
    pub(super) rows: usize,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
    /// Add to `out` instead of setting it.
    pub(super) add: bool,
}

// SAFETY: threads get products of disjoint panels, so no two of them write the same place.
unsafe impl Sync for Gemm {}

impl Gemm {
    /// The product for some of its panels.
    ///
    /// # Safety
    /// There are as many panels.
    pub(super) unsafe fn part(&self, panels: Range<usize>) -> Gemm {
        Gemm {
            weights: self.weights.add(panels.start * self.k * LANES * self.stored.bytes()),
            scales: self.scales.add(panels.start * LANES),
            panels: panels.len(),
            out: self.out.add(panels.start * LANES),
            ..*self
        }
    }
}

/// One block of a product: panels, inputs, the weights of both, and whether its sums go on from what `out` holds.
pub(super) struct Block {
    panels: Range<usize>,
    k: Range<usize>,
    weights: *const u8,
    /// Of the columns of its first panel on.
    scales: *const f32,
    /// Bytes from one panel to the next.
    panel_bytes: usize,
    from_out: bool,
}

/// All blocks of a product, in an order that gives every element its inputs in turn: `stored` computes one with weights as
/// they rest, `widened` one with f32 weights.
#[inline(always)]
pub(super) unsafe fn blocks<S: Simd, E: Element>(g: &Gemm, stored: impl Fn(&Block), widened: impl Fn(&Block)) {
    let bytes = E::STORED.bytes();
    let mut wide = MaybeUninit::<[f32; GROUP * BLOCK * LANES]>::uninit();
    for first in (0..g.panels).step_by(GROUP) {
        for start in (0..g.k).step_by(BLOCK) {
            let block = Block {
                panels: first..g.panels.min(first + GROUP),
                k: start..g.k.min(start + BLOCK),
                weights: g.weights.add((first * g.k + start) * LANES * bytes),
                scales: g.scales.add(first * LANES),
                panel_bytes: g.k * LANES * bytes,
                from_out: g.add || start > 0,
            };
            if E::STORED == Stored::F32 || g.rows < WIDENED {
                stored(&block);
            } else {
                widened(&widen::<S, E>(block, wide.as_mut_ptr().cast()));
            }
        }
    }
}

/// The same block with f32 weights, in `wide`.
#[inline(always)]
unsafe fn widen<S: Simd, E: Element>(block: Block, wide: *mut f32) -> Block {
    let vectors = block.k.len();
    for panel in 0..block.panels.len() {
        let from = block.weights.add(panel * block.panel_bytes);
        let scale = S::load(block.scales.add(panel * LANES));
        for i in 0..vectors {
            let v = E::load::<S>(from.add(i * LANES * E::STORED.bytes()), scale);
            S::store(wide.add((panel * vectors + i) * LANES), v);
        }
    }
    Block { weights: wide.cast(), panel_bytes: vectors * LANES * F32::STORED.bytes(), ..block }
}

/// As many tiles of `R` rows by `P` panels as fit from `row` on; gives the first row that is left.
#[inline(always)]
pub(super) unsafe fn tiles<S: Simd, E: Element, const R: usize, const P: usize>(
    g: &Gemm,
    block: &Block,
    row: usize,
) -> usize {
    let end = row + (g.rows - row) / R * R;
    let mut panel = block.panels.start;
    while row < end && panel < block.panels.end {
        let all = panel + P <= block.panels.end;
        for row in (row..end).step_by(R) {
            if all { tile::<S, E, R, P>(g, block, panel, row) } else { tile::<S, E, R, 1>(g, block, panel, row) }
        }
        panel += if all { P } else { 1 };
    }
    end
}

#[inline(always)]
unsafe fn tile<S: Simd, E: Element, const R: usize, const P: usize>(g: &Gemm, block: &Block, panel: usize, row: usize) {
    let first = panel - block.panels.start;
    let weights = block.weights.add(first * block.panel_bytes);
    let mut scales = [S::splat(1.0); P];
    if E::STORED == Stored::Int8 {
        for p in 0..P {
            scales[p] = S::load(block.scales.add((first + p) * LANES));
        }
    }
    let x = g.x.add(row * g.x_stride + block.k.start);
    let out = g.out.add(row * g.out_stride + panel * LANES);
    let mut sums = [[S::splat(0.0); P]; R];
    if block.from_out {
        for r in 0..R {
            for p in 0..P {
                sums[r][p] = S::load(out.add(r * g.out_stride + p * LANES));
            }
        }
    }
    for i in 0..block.k.len() {
        let mut w = [S::splat(0.0); P];
        for p in 0..P {
            w[p] = E::load::<S>(weights.add(p * block.panel_bytes + i * LANES * E::STORED.bytes()), scales[p]);
        }
        for r in 0..R {
            let x = S::splat(*x.add(r * g.x_stride + i));
            for p in 0..P {
                sums[r][p] = S::fma(x, w[p], sums[r][p]);
            }
        }
    }
    for r in 0..R {
        for p in 0..P {
            S::store(out.add(r * g.out_stride + p * LANES), sums[r][p]);
        }
    }
}
