//! Kernels that work row by row: RMS norm, rotary embedding, gated units, soft caps, and the exponentials behind a
//! softmax.

use std::ops::Range;

use super::simd::{LANES, Simd};

/// `out = x / sqrt(mean(x^2) + eps) * weight` over `width` elements, or that added to `out`; padding stays zero.
#[derive(Clone, Copy)]
pub(super) struct RmsNorm {
    pub(super) x: *const f32,
    pub(super) weight: *const f32,
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    /// Elements of a row, which may lie anywhere in the first `span`; the others of these are zero.
    pub(super) width: usize,
    pub(super) span: usize,
    pub(super) rows: usize,
    pub(super) eps: f32,
    /// Add to `out` instead of setting it.
    pub(super) add: bool,
}

// SAFETY: threads get disjoint rows.
unsafe impl Sync for RmsNorm {}

impl RmsNorm {
    /// The same for some of its rows.
    ///
    /// # Safety
    /// There are as many rows.
    pub(super) unsafe fn part(&self, rows: Range<usize>) -> RmsNorm {
        let (at, rows) = (rows.start * self.stride, rows.len());
        RmsNorm { x: self.x.add(at), out: self.out.add(at), rows, ..*self }
    }
}

#[inline(always)]
pub(super) unsafe fn rms_norm<S: Simd>(a: &RmsNorm) {
    for row in 0..a.rows {
        let (x, out) = (a.x.add(row * a.stride), a.out.add(row * a.stride));
        let mut sum = S::splat(0.0);
        for i in (0..a.span).step_by(LANES) {
            let x = S::load(x.add(i));
            sum = S::fma(x, x, sum);
        }
        let scale = S::splat(1.0 / (S::sum(sum) / a.width as f32 + a.eps).sqrt());
        for i in (0..a.span).step_by(LANES) {
            let x = S::mul(S::load(x.add(i)), scale);
            let y = S::mul(x, S::load(a.weight.add(i)));
            S::store(out.add(i), if a.add { S::add(S::load(out.add(i)), y) } else { y });
        }
    }
}

/// Rotates the heads of one row in place: each head is two halves of `half` f32, and
/// `(a, b) -> (a cos - b sin, b cos + a sin)` times `scale`.
#[derive(Clone, Copy)]
pub(super) struct Rotary {
    pub(super) x: *mut f32,
    pub(super) heads: usize,
    pub(super) half: usize,
    pub(super) cos: *const f32,
    pub(super) sin: *const f32,
    pub(super) scale: f32,
}

#[inline(always)]
pub(super) unsafe fn rotary<S: Simd>(r: &Rotary) {
    let scale = S::splat(r.scale);
    for j in (0..r.half).step_by(LANES) {
        let (cos, sin) = (S::mul(S::load(r.cos.add(j)), scale), S::mul(S::load(r.sin.add(j)), scale));
        for head in 0..r.heads {
            let p = r.x.add(head * 2 * r.half + j);
            let (a, b) = (S::load(p), S::load(p.add(r.half)));
            S::store(p, S::sub(S::mul(a, cos), S::mul(b, sin)));
            S::store(p.add(r.half), S::fma(a, sin, S::mul(b, cos)));
        }
    }
}

/// `gate = activation(gate) * up` in place; a row is `width` gates, then `width` ups.
#[derive(Clone, Copy)]
pub(super) struct Gated {
    pub(super) x: *mut f32,
    pub(super) stride: usize,
    pub(super) width: usize,
    pub(super) rows: usize,
}

// SAFETY: threads get disjoint rows.
unsafe impl Sync for Gated {}

impl Gated {
    /// The same for some of its rows.
    ///
    /// # Safety
    /// There are as many rows.
    pub(super) unsafe fn part(&self, rows: Range<usize>) -> Gated {
        Gated { x: self.x.add(rows.start * self.stride), rows: rows.len(), ..*self }
    }
}

/// Activation `gate / (1 + e^-gate)`.
#[inline(always)]
pub(super) unsafe fn swiglu<S: Simd>(a: &Gated) {
    let (zero, one) = (S::splat(0.0), S::splat(1.0));
    for row in 0..a.rows {
        let x = a.x.add(row * a.stride);
        for i in (0..a.width).step_by(LANES) {
            let (gate, up) = (S::load(x.add(i)), S::load(x.add(a.width + i)));
            let silu = S::div(gate, S::add(one, S::exp(S::sub(zero, gate))));
            S::store(x.add(i), S::mul(silu, up));
        }
    }
}

/// Activation `gate / 2 * (1 + tanh(sqrt(2 / pi) * (gate + 0.044715 gate^3)))`.
#[inline(always)]
pub(super) unsafe fn geglu<S: Simd>(a: &Gated) {
    let (half, one, cubic) = (S::splat(0.5), S::splat(1.0), S::splat(0.044_715));
    let scale = S::splat((2.0 / std::f64::consts::PI).sqrt() as f32);
    for row in 0..a.rows {
        let x = a.x.add(row * a.stride);
        for i in (0..a.width).step_by(LANES) {
            let (gate, up) = (S::load(x.add(i)), S::load(x.add(a.width + i)));
            let inner = S::mul(S::fma(S::mul(cubic, S::mul(gate, gate)), gate, gate), scale);
            let gelu = S::mul(S::mul(half, gate), S::add(one, S::tanh(inner)));
            S::store(x.add(i), S::mul(gelu, up));
        }
    }
}

/// `x = cap * tanh(x / cap)` for `rows` rows of `width`, a multiple of [`LANES`].
#[derive(Clone, Copy)]
pub(super) struct SoftCap {
    pub(super) x: *mut f32,
    pub(super) stride: usize,
    pub(super) width: usize,
    pub(super) rows: usize,
    pub(super) cap: f32,
}

#[inline(always)]
pub(super) unsafe fn soft_cap<S: Simd>(a: &SoftCap) {
    let cap = S::splat(a.cap);
    for row in 0..a.rows {
        let x = a.x.add(row * a.stride);
        for i in (0..a.width).step_by(LANES) {
            S::store(x.add(i), S::mul(S::tanh(S::div(S::load(x.add(i)), cap)), cap));
        }
    }
}

/// The largest of `len` values, `len` a multiple of [`LANES`].
#[inline(always)]
pub(super) unsafe fn maximum<S: Simd>(x: *const f32, len: usize) -> f32 {
    let mut max = S::splat(f32::NEG_INFINITY);
    for i in (0..len).step_by(LANES) {
        max = S::max(max, S::load(x.add(i)));
    }
    S::maximum(max)
}

/// Values that [`exponentials`] adds up at a time.
pub(super) const PART: usize = 8 * LANES;

/// `out = e^((x - max) * scale)`, and the sum of every [`PART`] of them in `parts`.
#[derive(Clone, Copy)]
pub(super) struct Exponentials {
    pub(super) x: *const f32,
    pub(super) out: *mut f32,
    pub(super) parts: *mut f64,
    pub(super) len: usize,
    pub(super) max: f32,
    pub(super) scale: f32,
}

#[inline(always)]
pub(super) unsafe fn exponentials<S: Simd>(a: &Exponentials) {
    let (max, scale) = (S::splat(a.max), S::splat(a.scale));
    for (part, start) in (0..a.len).step_by(PART).enumerate() {
        let mut sum = S::splat(0.0);
        for i in (start..a.len.min(start + PART)).step_by(LANES) {
            let e = S::exp(S::mul(S::sub(S::load(a.x.add(i)), max), scale));
            sum = S::add(sum, e);
            S::store(a.out.add(i), e);
        }
        *a.parts.add(part) = f64::from(S::sum(sum));
    }
}
