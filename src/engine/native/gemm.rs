//! Matrix product of activation rows with packed weights.
//!
//! In: `x [rows, k]` and [`Packed`](super::memory::Packed) panels. Out: `out [rows, 16 * panels]`, set or added to.
//!
//! Every element is `out = fma(x[i], w[i], out)` for `i = 0, 1, .. k-1`, starting from 0 or from the old value.
//! How rows and panels are cut into register tiles, and `k` into blocks, changes which element is worked on
//! when, never that order: a row's result does not depend on the rows beside it.

use super::simd::{LANES, Simd};
use std::ops::Range;

/// Inputs worked on at a time: two panels of weights of this length stay in the first-level cache.
const BLOCK: usize = 256;
/// Panels worked on at a time: their block of weights stays in the second-level cache.
const GROUP: usize = 8;

/// One product. Pointers are to the first row and to the first panel.
#[derive(Clone, Copy)]
pub(super) struct Gemm {
    pub(super) weights: *const f32,
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

/// One block of a product: panels, inputs, and whether its sums go on from what `out` holds.
pub(super) struct Block {
    pub(super) panels: Range<usize>,
    pub(super) k: Range<usize>,
    pub(super) from_out: bool,
}

/// The blocks of a product, in an order that gives every element its inputs in turn.
pub(super) fn blocks(g: &Gemm) -> impl Iterator<Item = Block> {
    let Gemm { panels, k, add, .. } = *g;
    (0..panels).step_by(GROUP).flat_map(move |first| {
        (0..k).step_by(BLOCK).map(move |start| Block {
            panels: first..panels.min(first + GROUP),
            k: start..k.min(start + BLOCK),
            from_out: add || start > 0,
        })
    })
}

/// As many tiles of `R` rows by `P` panels as fit from `row` on; gives the first row that is left.
#[inline(always)]
pub(super) unsafe fn tiles<S: Simd, const R: usize, const P: usize>(g: &Gemm, block: &Block, row: usize) -> usize {
    let end = row + (g.rows - row) / R * R;
    let mut panel = block.panels.start;
    while row < end && panel + P <= block.panels.end {
        let mut r = row;
        while r < end {
            tile::<S, R, P>(g, block, panel, r);
            r += R;
        }
        panel += P;
    }
    while row < end && panel < block.panels.end {
        let mut r = row;
        while r < end {
            tile::<S, R, 1>(g, block, panel, r);
            r += R;
        }
        panel += 1;
    }
    end
}

#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const P: usize>(g: &Gemm, block: &Block, panel: usize, row: usize) {
    let weights = g.weights.add(panel * g.k * LANES);
    let x = g.x.add(row * g.x_stride);
    let out = g.out.add(row * g.out_stride + panel * LANES);
    let mut sums = [[S::splat(0.0); P]; R];
    if block.from_out {
        for r in 0..R {
            for p in 0..P {
                sums[r][p] = S::load(out.add(r * g.out_stride + p * LANES));
            }
        }
    }
    let mut i = block.k.start;
    while i < block.k.end {
        let mut w = [S::splat(0.0); P];
        for p in 0..P {
            w[p] = S::load(weights.add((p * g.k + i) * LANES));
        }
        for r in 0..R {
            let x = S::splat(*x.add(r * g.x_stride + i));
            for p in 0..P {
                sums[r][p] = S::fma(x, w[p], sums[r][p]);
            }
        }
        i += 1;
    }
    for r in 0..R {
        for p in 0..P {
            S::store(out.add(r * g.out_stride + p * LANES), sums[r][p]);
        }
    }
}
