//! NF4, the 4-bit NormalFloat of QLoRA (arXiv 2305.14314, section 3), laid out and rounded as bitsandbytes does.
//!
//! In: a weight of any type, read row by row in blocks of 64 numbers. Out: for each number the nearest of 16 levels
//! of its block's largest magnitude, two to a byte (the first one in the upper half). With double quantisation the
//! magnitudes, less their mean, are held in 8 bits of bitsandbytes' dynamic map, in groups of 256.

use tch::{Device, Kind, Tensor};

/// Numbers that share one scale.
pub(super) const BLOCK: i64 = 64;
/// Scales that share one scale of their own.
pub(super) const GROUP: i64 = 256;
/// Numbers that are rounded at a time, which bounds the temporary memory.
const PIECE: i64 = 1 << 22;

/// Quantiles of a normal distribution with an exact zero, scaled to -1..=1 (the constants of the QLoRA paper's
/// appendix E).
const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Lookup tables on one device, shared by all matrices there.
pub(crate) struct Tables {
    /// The two levels of a byte, `[256, 2]` f32.
    pairs: Tensor,
    /// Where rounding goes from one level to the next, `[15]` f32.
    between_levels: Tensor,
    /// The dynamic map of the scales, `[256]` f32, rising.
    dynamic: Tensor,
    /// Where rounding goes from one of its values to the next, `[255]` f32.
    between_dynamic: Tensor,
}

impl Tables {
    pub(super) fn new(device: Device) -> Self {
        let levels = Tensor::from_slice(&LEVELS);
        let pairs: Vec<f32> = (0..256).flat_map(|byte| [LEVELS[byte >> 4], LEVELS[byte & 15]]).collect();
        let dynamic = dynamic_map();
        Tables {
            pairs: Tensor::from_slice(&pairs).view([256, 2]).to_device(device),
            between_levels: midpoints(&levels).to_device(device),
            between_dynamic: midpoints(&dynamic).to_device(device),
            dynamic: dynamic.to_device(device),
        }
    }
}

fn midpoints(rising: &Tensor) -> Tensor {
    let n = rising.size()[0] - 1;
    (rising.narrow(0, 0, n) + rising.narrow(0, 1, n)) / 2.0
}

/// bitsandbytes' `create_dynamic_map` with a sign, 7 exponent bits and 8 bits in all: for every power of ten from
/// 1e-6 to 1 twice as many steps as for the one before.
fn dynamic_map() -> Tensor {
    let on_cpu = (Kind::Float, Device::Cpu);
    let mut parts = vec![Tensor::from_slice(&[0f32, 1.0])];
    for exponent in 0..7 {
        let means = midpoints(&Tensor::linspace(0.1, 1.0, (1 << exponent) + 1, on_cpu));
        let values = means * 10f64.powi(exponent - 6);
        parts.push(-&values);
        parts.push(values);
    }
    Tensor::cat(&parts, 0).sort(0, false).0
}

/// A quantised weight `[out, in]`.
pub(crate) struct Nf4 {
    shape: [i64; 2],
    /// Two numbers to a byte, `[blocks * 32]` u8; numbers behind the last one are zero.
    codes: Tensor,
    scales: Scales,
    /// [`Tables::pairs`].
    pairs: Tensor,
}

/// The largest magnitude of every block.
enum Scales {
    /// `[blocks]` f32.
    Plain(Tensor),
    /// `dynamic[codes] * scales + offset`.
    Double {
        /// `[blocks]` u8.
        codes: Tensor,
        /// `[groups]` f32.
        scales: Tensor,
        /// 0-d f32, the mean of the magnitudes.
        offset: Tensor,
        /// [`Tables::dynamic`].
        dynamic: Tensor,
    },
}

impl Nf4 {
    /// Quantises `weight` `[out, in]`.
    pub(super) fn of(weight: &Tensor, tables: &Tables, double: bool) -> Self {
        let _frozen = tch::no_grad_guard();
        let (codes, scales): (Vec<Tensor>, Vec<Tensor>) = weight
            .reshape([-1])
            .split(PIECE, 0)
            .iter()
            .map(|piece| {
                let blocks_nb = padded(&piece.to_kind(Kind::Float), BLOCK);
                let (scaled_nb, largest) = scaled(&blocks_nb);
                let codes = scaled_nb.bucketize(&tables.between_levels, true, false).view([-1, 2]);
                let pair = |side| codes.select(1, side);
                ((pair(0) * 16 + pair(1)).to_kind(Kind::Uint8), largest)
            })
            .unzip();
        let (codes, largest) = (Tensor::cat(&codes, 0), Tensor::cat(&scales, 0));
        let scales = if double { Scales::double(&largest, tables) } else { Scales::Plain(largest) };
        let size = weight.size();
        Nf4 { shape: [size[0], size[1]], codes, scales, pairs: tables.pairs.shallow_clone() }
    }

    /// The weights as they are computed with, `[out, in]` f32.
    pub(super) fn dense(&self) -> Tensor {
        let _frozen = tch::no_grad_guard();
        let mut values = look_up(&self.pairs, &self.codes).view([-1, BLOCK]);
        let _ = values.g_mul_(&self.scales.dense().unsqueeze(1));
        values.view([-1]).narrow(0, 0, self.shape[0] * self.shape[1]).view(self.shape)
    }

    /// The same tensors once more.
    pub(super) fn shared(&self) -> Nf4 {
        let scales = match &self.scales {
            Scales::Plain(scales) => Scales::Plain(scales.shallow_clone()),
            Scales::Double { codes, scales, offset, dynamic } => Scales::Double {
                codes: codes.shallow_clone(),
                scales: scales.shallow_clone(),
                offset: offset.shallow_clone(),
                dynamic: dynamic.shallow_clone(),
            },
        };
        let (codes, pairs) = (self.codes.shallow_clone(), self.pairs.shallow_clone());
        Nf4 { shape: self.shape, codes, scales, pairs }
    }
}

impl Scales {
    fn double(largest: &Tensor, tables: &Tables) -> Self {
        let offset = largest.mean(Kind::Float);
        let (scaled, scales) = scaled(&padded(&(largest - &offset), GROUP));
        let codes = scaled.bucketize(&tables.between_dynamic, true, false).to_kind(Kind::Uint8);
        let codes = codes.view([-1]).narrow(0, 0, largest.size()[0]).copy();
        Scales::Double { codes, scales, offset, dynamic: tables.dynamic.shallow_clone() }
    }

    /// `[blocks]` f32.
    fn dense(&self) -> Tensor {
        match self {
            Scales::Plain(scales) => scales.shallow_clone(),
            Scales::Double { codes, scales, offset, dynamic } => {
                let groups_ng = padded(&look_up(&dynamic.unsqueeze(1), codes).squeeze_dim(1), GROUP);
                (groups_ng * scales.unsqueeze(1)).view([-1]).narrow(0, 0, codes.size()[0]) + offset
            }
        }
    }
}

/// A flat tensor as rows of `width`, filled up with zeros.
fn padded(flat: &Tensor, width: i64) -> Tensor {
    let missing = (width - flat.size()[0] % width) % width;
    if missing == 0 { flat.view([-1, width]) } else { flat.constant_pad_nd([0, missing]).view([-1, width]) }
}

/// Rows divided by their largest magnitude, and these magnitudes `[rows]`. A row of zeros stays.
fn scaled(rows: &Tensor) -> (Tensor, Tensor) {
    let largest = rows.abs().amax([1i64].as_slice(), false);
    let factor = largest.reciprocal().masked_fill(&largest.eq(0.0), 0.0);
    (rows * factor.unsqueeze(1), largest)
}

/// The rows of `table` that the bytes of `codes` name.
fn look_up(table: &Tensor, codes: &Tensor) -> Tensor {
    Tensor::embedding(table, &codes.to_kind(Kind::Int), -1, false, false)
}
