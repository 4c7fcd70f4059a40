//! Cache-line aligned memory, and weights packed for the matrix product.
//!
//! In: row-major f32 weights `[n, k]`. Out: [`Packed`] panels of sixteen columns, `[panels][k][16]`, so that one step
//! over `k` reads one vector per panel. Unused columns are zero, which lets every kernel work on whole vectors.

use super::gemm::Gemm;
use super::simd::LANES;
use super::stored::{Stored, scale};

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

    pub(super) fn as_bytes(&self) -> &[u8] {
        let values = self.as_slice();
        // SAFETY: the same memory; every byte of an f32 may be read.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
    }

    pub(super) fn as_mut_bytes(&mut self) -> &mut [u8] {
        let values = self.as_mut_slice();
        // SAFETY: the same memory; any bytes are an f32.
        unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
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

    /// The rows, for threads that each write other ones.
    pub(super) fn shared(&mut self) -> Shared {
        Shared { rows: self.ptr_mut(0), stride: self.stride }
    }

    pub(super) fn copy_row(&mut self, from: usize, to: usize) {
        let stride = self.stride;
        self.lines.as_mut_slice().copy_within(from * stride..(from + 1) * stride, to * stride);
    }
}

/// Rows of a [`Matrix`], which must outlive it.
pub(super) struct Shared {
    rows: *mut f32,
    pub(super) stride: usize,
}

// SAFETY: who writes a row sees to it that nobody else uses it meanwhile.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// The matrix has this row.
    pub(super) unsafe fn row(&self, i: usize) -> *mut f32 {
        self.rows.add(i * self.stride)
    }

    /// # Safety
    /// The matrix has this row, and nobody else uses it meanwhile.
    #[expect(clippy::mut_from_ref, reason = "the rows of other threads are others")]
    pub(super) unsafe fn row_mut(&self, i: usize) -> &mut [f32] {
        std::slice::from_raw_parts_mut(self.row(i), self.stride)
    }
}

/// A weight matrix in panels: `data[panel][i][lane]` is the weight from input `i` to output `16 panel + lane`.
#[derive(Debug)]
pub struct Packed {
    data: Lines,
    pub(super) stored: Stored,
    /// One per column; whatever [`Stored`] does not need them for has ones.
    scales: Lines,
    /// Inputs.
    pub(super) k: usize,
    pub(super) panels: usize,
    /// One per column, where the outputs have a bias.
    pub(super) bias: Option<Lines>,
}

impl Packed {
    /// Packs `columns` outputs of `k` inputs each; `source(column)` is the output's weight row, or `None` for
    /// a column of padding. The weights rest in the smallest form that holds each of them exactly. Large matrices are
    /// packed by several threads.
    pub(super) fn new<'a>(k: usize, columns: usize, source: impl Fn(usize) -> Option<&'a [f32]> + Sync) -> Self {
        let panels = columns.div_ceil(LANES);
        let threads = match panels * k * LANES {
            0..1_000_000 => 1,
            _ => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let stored = Stored::of(columns, threads, &source);
        let scale_of = |column: usize| match (stored, if column < columns { source(column) } else { None }) {
            (Stored::Int8, Some(row)) => scale(row).unwrap_or(1.0),
            _ => 1.0,
        };
        let mut scales = Lines::zeroed(panels * LANES);
        scales.as_mut_slice().iter_mut().enumerate().for_each(|(column, to)| *to = scale_of(column));
        let mut data = Lines::zeroed((panels * k * LANES * stored.bytes()).div_ceil(size_of::<f32>()));
        let size = k * LANES * stored.bytes();
        let share = panels.div_ceil(threads).max(1);
        let zeros = vec![0.0; k];
        let pack = |first: usize, out: &mut [u8]| {
            for (panel, out) in out.chunks_exact_mut(size.max(1)).enumerate() {
                let rows: [&[f32]; LANES] = std::array::from_fn(|lane| {
                    let column = (first + panel) * LANES + lane;
                    let row = if column < columns { source(column) } else { None };
                    row.unwrap_or(&zeros)
                });
                let first = (first + panel) * LANES;
                stored.store(&rows, &std::array::from_fn(|lane| scales.as_slice()[first + lane]), out);
            }
        };
        let bytes = &mut data.as_mut_bytes()[..panels * size];
        if threads == 1 {
            pack(0, bytes);
        } else {
            std::thread::scope(|scope| {
                for (part, out) in bytes.chunks_mut((share * size).max(1)).enumerate() {
                    let pack = &pack;
                    scope.spawn(move || pack(part * share, out));
                }
            });
        }
        Packed { data, stored, scales, k, panels, bias: None }
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
        let data = &self.data.as_bytes()[start * self.stored.bytes()..];
        self.stored.gather(data, self.scales.as_slice()[column], out);
    }

    /// The product with `rows` rows of `x`, into `out`; both are a first row and the f32 from one row to the next.
    pub(super) fn product(
        &self,
        (x, x_stride): (*const f32, usize),
        rows: usize,
        (out, out_stride): (*mut f32, usize),
        add: bool,
    ) -> Gemm {
        let (weights, stored) = (self.data.as_bytes().as_ptr(), self.stored);
        let scales = self.scales.as_slice().as_ptr();
        Gemm { weights, stored, scales, k: self.k, panels: self.panels, x, x_stride, rows, out, out_stride, add }
    }

    /// Bytes of its weights.
    pub(super) fn bytes(&self) -> usize {
        self.panels * self.k * LANES * self.stored.bytes()
    }
}
