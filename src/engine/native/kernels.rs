//! The kernels compiled for each instruction set, and the choice among them at run time.
//!
//! A kernel body is generic and always inlined; the entry points below are the only compiled copies, each with
//! the processor features of its instruction set.

use super::attention::{self, Attention};
use super::gemm::{self, Gemm};
use super::pointwise::{self, Exponentials, Gated, RmsNorm, Rotary, SoftCap};
use super::simd::Portable;
use super::stored::{Bf16, Element, F16, F32, Int8, Stored};
#[cfg(target_arch = "x86_64")]
use super::x86;

/// Which instructions the kernels use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// 512-bit vectors.
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// What the compiler makes of plain Rust.
    Portable,
}

impl Instructions {
    /// The sets that this processor has, fastest first.
    pub fn available() -> Vec<Instructions> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            if avx2 && is_x86_feature_detected!("avx512f") {
                found.push(Instructions::Avx512);
            }
            if avx2 {
                found.push(Instructions::Avx2);
            }
        }
        found.push(Instructions::Portable);
        found
    }

    /// The kernels, or `None` if this processor lacks the instructions.
    pub(super) fn kernels(self) -> Option<&'static Kernels> {
        if !Instructions::available().contains(&self) {
            return None;
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => Some(&AVX512),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => Some(&AVX2),
            #[cfg(not(target_arch = "x86_64"))]
            Instructions::Avx512 | Instructions::Avx2 => None,
            Instructions::Portable => Some(&PORTABLE),
        }
    }
}

/// One compiled copy of every kernel.
///
/// # Safety
/// Calling one needs the processor features it was compiled for ([`Instructions::kernels`] checks that), and
/// arguments whose pointers cover the rows, strides and widths they state, padded to whole vectors.
#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) gemm: unsafe fn(&Gemm),
    pub(super) attention: unsafe fn(&Attention<'_>),
    pub(super) rms_norm: unsafe fn(&RmsNorm),
    pub(super) rotary: unsafe fn(&Rotary),
    pub(super) swiglu: unsafe fn(&Gated),
    pub(super) geglu: unsafe fn(&Gated),
    pub(super) soft_cap: unsafe fn(&SoftCap),
    pub(super) maximum: unsafe fn(*const f32, usize) -> f32,
    pub(super) exponentials: unsafe fn(&Exponentials),
}

/// `tiles` are (rows, panels) of the matrix product, from large to one row; `attention` is (queries, blocks) of
/// a tile, then the blocks of a single query. Both fill the set's registers without spilling.
macro_rules! kernels {
    ($(#[$cfg:meta])* $name:ident = $simd:ty, $(feature $feature:literal,)?
     tiles $(($rows:literal, $panels:literal))+, attention $q:literal $b:literal $c:literal) => {
        $(#[$cfg])*
        static $name: Kernels = {
            $(#[target_feature(enable = $feature)])?
            unsafe fn gemm(g: &Gemm) {
                match g.stored {
                    Stored::F32 => product::<F32>(g),
                    Stored::Bf16 => product::<Bf16>(g),
                    Stored::F16 => product::<F16>(g),
                    Stored::Int8 => product::<Int8>(g),
                }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn product<E: Element>(g: &Gemm) {
                gemm::blocks::<$simd, E>(g, |block| unsafe { tiled::<E>(g, block) }, |block| unsafe { tiled::<F32>(g, block) });
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn tiled<E: Element>(g: &Gemm, block: &gemm::Block) {
                let mut row = 0;
                $(row = gemm::tiles::<$simd, E, $rows, $panels>(g, block, row);)+
                debug_assert_eq!(row, g.rows);
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn attend(a: &Attention<'_>) {
                attention::attention::<$simd, $q, $b, $c>(a)
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn rms_norm(a: &RmsNorm) {
                pointwise::rms_norm::<$simd>(a)
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn rotary(a: &Rotary) {
                pointwise::rotary::<$simd>(a)
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn swiglu(a: &Gated) {
                pointwise::swiglu::<$simd>(a)
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn geglu(a: &Gated) {
                pointwise::geglu::<$simd>(a)
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn soft_cap(a: &SoftCap) {
                pointwise::soft_cap::<$simd>(a)
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn maximum(x: *const f32, len: usize) -> f32 {
                pointwise::maximum::<$simd>(x, len)
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn exponentials(a: &Exponentials) {
                pointwise::exponentials::<$simd>(a)
            }
            Kernels { gemm, attention: attend, rms_norm, rotary, swiglu, geglu, soft_cap, maximum, exponentials }
        };
    };
}

kernels!(#[cfg(target_arch = "x86_64")] AVX512 = x86::Avx512, feature "avx2,fma,f16c,avx512f",
    tiles (12, 2) (8, 2) (4, 4) (2, 8) (1, 8), attention 4 4 8);
kernels!(#[cfg(target_arch = "x86_64")] AVX2 = x86::Avx2, feature "avx2,fma,f16c",
    tiles (6, 1) (4, 1) (2, 2) (1, 4), attention 2 2 4);
kernels!(PORTABLE = Portable, tiles (2, 1) (1, 2), attention 1 2 2);
