//! The forms in which weights rest in memory.
//!
//! In: f32 weights. Out: 8, 16 or 32 bits for each, from which the kernels get the same f32 again. A checkpoint of bfloat16
//! or float16 is computed with in f32 at the bits that an f32 copy of it would give, and half the memory is read; a base
//! that was quantised to 8 bits (a whole number times the scale of its output) is read as such.

use half::{bf16, f16};

use super::simd::{LANES, Simd};

/// The form of a matrix of weights: the smallest that holds each of them exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    F32,
    Bf16,
    F16,
    /// A whole number times the scale of its column.
    Int8,
}

/// The scale at which all weights of a row are whole numbers from -127 to 127 times it, exactly, with 127 for the largest.
pub(super) fn scale(row: &[f32]) -> Option<f32> {
    let largest = row.iter().fold(0f32, |most, x| most.max(x.abs()));
    if largest == 0.0 {
        return row.iter().all(|x| x.to_bits() == 0).then_some(1.0);
    }
    let near = largest / 127.0;
    // Rounding may have moved 127 times the scale, and so our quotient, by a unit in the last place.
    [near, near.next_up(), near.next_down()].into_iter().find(|&scale| row.iter().all(|&x| eighth(x, scale).is_some()))
}

/// `x / scale`, if that is a whole number of 8 bits from which `x` comes back.
fn eighth(x: f32, scale: f32) -> Option<i8> {
    let code = (x / scale).round();
    let back = f32::from(code as i8) * scale;
    (code.abs() <= 127.0 && back.to_bits() == x.to_bits()).then_some(code as i8)
}

impl Stored {
    /// The form for all rows that `source` has.
    pub(super) fn of<'a>(
        columns: usize,
        threads: usize,
        source: &(impl Fn(usize) -> Option<&'a [f32]> + Sync),
    ) -> Self {
        let share = columns.div_ceil(threads).max(1);
        let all = |fits: fn(&[f32]) -> bool| {
            let fits = |first: usize| {
                let columns = first..columns.min(first + share);
                columns.filter_map(source).all(fits)
            };
            if threads == 1 {
                return fits(0);
            }
            let fits = &fits;
            std::thread::scope(|scope| {
                let parts: Vec<_> = (0..columns).step_by(share).map(|at| scope.spawn(move || fits(at))).collect();
                parts.into_iter().all(|part| part.join().unwrap_or(false))
            })
        };
        if all(|row| scale(row).is_some()) {
            Stored::Int8
        } else if all(|row| row.iter().all(|x| x.to_bits() & 0xffff == 0)) {
            Stored::Bf16
        } else if all(|row| row.iter().all(|&x| f16::from_f32(x).to_f32().to_bits() == x.to_bits())) {
            Stored::F16
        } else {
            Stored::F32
        }
    }

    /// Bytes of one weight.
    pub(super) fn bytes(self) -> usize {
        match self {
            Stored::F32 => 4,
            Stored::Bf16 | Stored::F16 => 2,
            Stored::Int8 => 1,
        }
    }

    /// Writes a panel, `[k][LANES]`, of these rows of `k`, whose scales are `scales`.
    pub(super) fn store(self, rows: &[&[f32]; LANES], scales: &[f32; LANES], out: &mut [u8]) {
        match self {
            Stored::F32 => store(rows, out, |x, _| x.to_ne_bytes()),
            Stored::Bf16 => store(rows, out, |x, _| bf16::from_f32(x).to_ne_bytes()),
            Stored::F16 => store(rows, out, |x, _| f16::from_f32(x).to_ne_bytes()),
            Stored::Int8 => store(rows, out, |x, lane| [(x / scales[lane]).round() as i8 as u8]),
        }
    }

    /// Reads every [`LANES`]th weight from the start of `data`, which is a column of this scale.
    pub(super) fn gather(self, data: &[u8], scale: f32, out: &mut [f32]) {
        match self {
            Stored::F32 => gather(data, out, f32::from_ne_bytes),
            Stored::Bf16 => gather(data, out, |x| bf16::from_ne_bytes(x).to_f32()),
            Stored::F16 => gather(data, out, |x| f16::from_ne_bytes(x).to_f32()),
            Stored::Int8 => gather(data, out, |[x]: [u8; 1]| f32::from(x as i8) * scale),
        }
    }
}

fn store<const N: usize>(rows: &[&[f32]; LANES], out: &mut [u8], bytes: impl Fn(f32, usize) -> [u8; N]) {
    for (i, vector) in out.chunks_exact_mut(LANES * N).enumerate() {
        for (lane, (to, row)) in vector.chunks_exact_mut(N).zip(rows).enumerate() {
            to.copy_from_slice(&bytes(row[i], lane));
        }
    }
}

fn gather<const N: usize>(data: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (to, vector) in out.iter_mut().zip(data.chunks(LANES * N)) {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&vector[..N]);
        *to = value(bytes);
    }
}

/// A form as the kernels read it.
///
/// # Safety
/// As for [`Simd`]; `p` points to [`LANES`] weights, whose columns have the scales `scale`.
pub(super) trait Element {
    const STORED: Stored;
    unsafe fn load<S: Simd>(p: *const u8, scale: S::V) -> S::V;
}

/// [`Stored::F32`].
pub(super) struct F32;

impl Element for F32 {
    const STORED: Stored = Stored::F32;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8, _scale: S::V) -> S::V {
        S::load(p.cast())
    }
}

/// [`Stored::Bf16`].
pub(super) struct Bf16;

impl Element for Bf16 {
    const STORED: Stored = Stored::Bf16;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8, _scale: S::V) -> S::V {
        S::load_bf16(p.cast())
    }
}

/// [`Stored::F16`].
pub(super) struct F16;

impl Element for F16 {
    const STORED: Stored = Stored::F16;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8, _scale: S::V) -> S::V {
        S::load_f16(p.cast())
    }
}

/// [`Stored::Int8`].
pub(super) struct Int8;

impl Element for Int8 {
    const STORED: Stored = Stored::Int8;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8, scale: S::V) -> S::V {
        S::mul(S::load_i8(p.cast()), scale)
    }
}
