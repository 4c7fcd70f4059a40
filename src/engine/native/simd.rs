//! Sixteen f32 lanes, the same operations on every instruction set.
//!
//! In and out: vectors of [`LANES`] f32. A kernel is written once over [`Simd`]; AVX-512, AVX2 and the plain
//! version below only say how one operation is done. All kernels use the same lanes in the same order, so two
//! instruction sets with fused multiply-add give the same bits.

use half::{bf16, f16};

/// Lanes of one vector; also the number of tokens in a block of keys and values, and of columns in a panel.
pub const LANES: usize = 16;

/// How one instruction set computes on [`LANES`] f32 lanes.
///
/// # Safety
/// Every method needs a processor with the implementing type's features; `load` and `store` need a pointer to
/// [`LANES`] valid f32. Implementations are `#[inline(always)]`, so that they compile with the features of the
/// kernel entry point which they end up in.
pub(super) trait Simd: Copy {
    type V: Copy;
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// [`LANES`] bfloat16.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// [`LANES`] float16.
    unsafe fn load_f16(p: *const u16) -> Self::V;
    /// [`LANES`] whole numbers of 8 bits.
    unsafe fn load_i8(p: *const i8) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the instruction set can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger lane; `b` when either is NaN, so a NaN in `b` is kept.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller lane; `b` when either is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// The first `n` lanes of `v`, then those of `rest`.
    unsafe fn first(v: Self::V, n: usize, rest: Self::V) -> Self::V;
    /// `v * 2^n` for `shifted = n + SHIFT` and `n` in -127 (which gives 0) to 127.
    unsafe fn scale(v: Self::V, shifted: Self::V) -> Self::V;

    /// The lanes as an array.
    #[inline(always)]
    unsafe fn lanes(v: Self::V) -> [f32; LANES] {
        let mut lanes = [0f32; LANES];
        Self::store(lanes.as_mut_ptr(), v);
        lanes
    }

    /// The sum of all lanes, by halves.
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        let mut a = Self::lanes(v);
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                a[i] += a[i + width];
            }
        }
        a[0]
    }

    /// The largest lane.
    #[inline(always)]
    unsafe fn maximum(v: Self::V) -> f32 {
        let mut a = Self::lanes(v);
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                if a[i + width] > a[i] {
                    a[i] = a[i + width];
                }
            }
        }
        a[0]
    }

    /// `e^x` to about one unit in the last place; exactly 0 from -88 down, at most `e^88`, NaN for NaN.
    ///
    /// Cody-Waite reduction by `ln 2` and the degree-6 polynomial of Cephes `expf`.
    #[inline(always)]
    unsafe fn exp(x: Self::V) -> Self::V {
        let x = Self::min(Self::splat(88.0), Self::max(Self::splat(-88.0), x));
        let shift = Self::splat(SHIFT);
        let shifted = Self::fma(x, Self::splat(std::f32::consts::LOG2_E), shift);
        let n = Self::sub(shifted, shift);
        let r = Self::fma(n, Self::splat(-0.693_359_4), x);
        let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
        let mut p = Self::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = Self::fma(p, r, Self::splat(c));
        }
        let p = Self::fma(p, Self::mul(r, r), Self::add(r, Self::splat(1.0)));
        Self::scale(p, shifted)
    }

    /// The hyperbolic tangent to a few units in the last place; exactly 1 or -1 from 8 on, NaN for NaN.
    ///
    /// The rational approximation (degrees 13 and 6) that Eigen uses for f32.
    #[inline(always)]
    unsafe fn tanh(x: Self::V) -> Self::V {
        let x = Self::min(Self::splat(TANH_END), Self::max(Self::splat(-TANH_END), x));
        let square = Self::mul(x, x);
        let mut p = Self::splat(-2.760_768_4e-16);
        for c in [2.000_188e-13, -8.604_672e-11, 5.122_297_3e-8, 1.485_722_35e-5, 6.372_619_5e-4, 4.893_524_6e-3] {
            p = Self::fma(p, square, Self::splat(c));
        }
        let mut q = Self::splat(1.198_258_4e-6);
        for c in [1.185_347_1e-4, 2.268_434_7e-3, 4.893_525e-3] {
            q = Self::fma(q, square, Self::splat(c));
        }
        Self::div(Self::mul(x, p), q)
    }
}

/// Where the approximation of the tangent reaches 1.
const TANH_END: f32 = 7.998_811_7;

/// Adding `1.5 * 2^23` rounds a small f32 to an integer that then sits in its lowest bits.
pub(super) const SHIFT: f32 = 12_582_912.0;

/// Plain Rust for every other processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut out = a;
    for i in 0..LANES {
        out[i] = f(a[i], b[i]);
    }
    out
}

impl Simd for Portable {
    type V = [f32; LANES];
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        p.cast::<Self::V>().read()
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        p.cast::<Self::V>().write(v)
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        p.cast::<[bf16; LANES]>().read_unaligned().map(bf16::to_f32)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::V {
        p.cast::<[f16; LANES]>().read_unaligned().map(f16::to_f32)
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::V {
        p.cast::<[i8; LANES]>().read().map(f32::from)
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let mut out = c;
        for i in 0..LANES {
            // Without the instruction `mul_add` is a slow library call.
            out[i] = if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                a[i].mul_add(b[i], c[i])
            } else {
                a[i] * b[i] + c[i]
            };
        }
        out
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn first(v: Self::V, n: usize, rest: Self::V) -> Self::V {
        let mut out = rest;
        for i in 0..LANES {
            if i < n {
                out[i] = v[i];
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn scale(v: Self::V, shifted: Self::V) -> Self::V {
        zip(v, shifted, |v, s| v * f32::from_bits((s.to_bits() << 23).wrapping_add(0x3f80_0000)))
    }
}
