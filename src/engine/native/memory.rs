//! Cache-line aligned memory, and weights packed for the matrix product.
//!
//! In: row-major f32 weights `[n, k]` as a checkpoint stores them. Out: [`Packed`] panels of sixteen columns,
//! `[panels][k][16]`, so that one step over `k` reads one cache line per panel. Unused columns are zero, which
//! lets every kernel work on whole vectors.

use super::simd::LANES;
use std::ops::Range;

/// One cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// A zeroed run of f32 that starts on a cache line and whose length is a multiple of [`LANES`].
#[derive(Debug)]
pub struct Lines(Vec<Line>);

impl Lines {
    /// Room for at least `len` f32, all 0.
    pub fn zeroed(len: usize) -> Self {
        Lines(vec![Line([0.0; LANES]); len.div_ceil(LANES)])
    }

    /// All values.
    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: `Line` is `repr(C)` with exactly LANES f32 and no padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * LANES) }
    }

    /// All values, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        let len = self.0.len() * LANES;
        // SAFETY: `Line` is `repr(C)` with exactly LANES f32 and no padding.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }
}

/// A multiple of [`LANES`] that holds `n`.
pub(super) fn padded(n: usize) -> usize {
    n.div_ceil(LANES) * LANES
}

/// Activations: rows of `width` f32, each starting on a cache line, the padding always finite.
#[derive(Debug)]
pub(super) struct Matrix {
    lines: Lines,
    /// f32 from one row to the next.
    pub(super) stride: usize,
    pub(super) rows: usize,
}

impl Matrix {
    pub(super) fn new(rows: usize, width: usize) -> Self {
        let mut stride = padded(width);
        // Rows that lie whole pages apart would fight for the same cache sets.
        if stride.is_multiple_of(1024) && stride > 0 {
            stride += LANES;
        }
        Matrix { lines: Lines::zeroed(rows * stride), stride, rows }
    }

    pub(super) fn row_mut(&mut self, i: usize) -> &mut [f32] {
        let stride = self.stride;
        &mut self.lines.as_mut_slice()[i * stride..(i + 1) * stride]
    }

    /// The rows from `i` on, for a kernel.
    pub(super) fn ptr(&self, i: usize) -> *const f32 {
        self.lines.as_slice()[i * self.stride..].as_ptr()
    }

    pub(super) fn ptr_mut(&mut self, i: usize) -> *mut f32 {
        let stride = self.stride;
        self.lines.as_mut_slice()[i * stride..].as_mut_ptr()
    }

    pub(super) fn copy_row(&mut self, from: usize, to: usize) {
        let stride = self.stride;
        self.lines.as_mut_slice().copy_within(from * stride..(from + 1) * stride, to * stride);
    }
}

/// A weight matrix in panels: `data[panel][i][lane]` is the weight from input `i` to output `16 panel + lane`.
#[derive(Debug)]
pub struct Packed {
    data: Lines,
    /// Inputs.
    pub(super) k: usize,
    pub(super) panels: usize,
    /// One per column, where the outputs have a bias.
    pub(super) bias: Option<Lines>,
}

impl Packed {
    /// Packs `columns` outputs of `k` inputs each; `source(column)` is the output's weight row, or `None` for
    /// a column of padding. Large matrices are packed by several threads.
    pub(super) fn new<'a>(k: usize, columns: usize, source: impl Fn(usize) -> Option<&'a [f32]> + Sync) -> Self {
        let panels = columns.div_ceil(LANES);
        let mut data = Lines::zeroed(panels * k * LANES);
        let size = k * LANES;
        let pack = |panels: Range<usize>, out: &mut [f32]| {
            for (panel, out) in panels.zip(out.chunks_exact_mut(size)) {
                for lane in 0..LANES {
                    let column = panel * LANES + lane;
                    let row = if column < columns { source(column) } else { None };
                    for (i, &w) in row.unwrap_or(&[]).iter().enumerate() {
                        out[i * LANES + lane] = w;
                    }
                }
            }
        };
        let threads = match panels * size {
            0..1_000_000 => 1,
            _ => std::thread::available_parallelism().map_or(1, usize::from),
        };
        if threads == 1 || size == 0 {
            pack(0..panels, data.as_mut_slice());
        } else {
            let share = panels.div_ceil(threads);
            std::thread::scope(|scope| {
                for (part, out) in data.as_mut_slice().chunks_mut(share * size).enumerate() {
                    let pack = &pack;
                    scope.spawn(move || pack(part * share..panels.min((part + 1) * share), out));
                }
            });
        }
        Packed { data, k, panels, bias: None }
    }

    /// The same weights with a bias: `source(column)` is that of an output, 0 for a column of padding.
    pub(super) fn with_bias(mut self, source: impl Fn(usize) -> Option<f32>) -> Self {
        let mut bias = Lines::zeroed(self.panels * LANES);
        bias.as_mut_slice().iter_mut().enumerate().for_each(|(column, to)| *to = source(column).unwrap_or(0.0));
        self.bias = Some(bias);
        self
    }

    /// The weight row of an output, which is one lane of its panel.
    pub(super) fn row(&self, column: usize, out: &mut [f32]) {
        let start = column / LANES * self.k * LANES + column % LANES;
        let weights = self.data.as_slice()[start..].iter().step_by(LANES);
        out.iter_mut().zip(weights).for_each(|(to, from)| *to = *from);
    }

    /// The weights of `panel` and the panels after it.
    pub(super) fn ptr(&self, panel: usize) -> *const f32 {
        self.data.as_slice()[panel * self.k * LANES..].as_ptr()
    }
}
