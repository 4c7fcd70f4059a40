//! How far each position turns the pairs of a head.
//!
//! In: a [`Rope`]. Out: tables of cosines and sines, laid out as a half of a packed head is.

use super::layer::Rope;
use super::memory::Lines;

/// Cosines and sines of the angles of each position.
#[derive(Debug)]
pub(super) struct Angles {
    pub(super) cos: Lines,
    pub(super) sin: Lines,
    /// f32 from one position to the next; 0 where all have the same angles.
    pub(super) stride: usize,
}

impl Angles {
    /// The angles of `positions` positions for heads of `dim` in halves of `half` columns.
    pub(super) fn new(rope: &Rope, positions: usize, dim: usize, half: usize) -> Self {
        let pairs = rope.dims / 2;
        let (mut cos, mut sin) = (Lines::zeroed(positions * half), Lines::zeroed(positions * half));
        for position in 0..positions {
            let (cos, sin) = (&mut cos.as_mut_slice()[position * half..], &mut sin.as_mut_slice()[position * half..]);
            let own = position * pairs;
            let own = if own < rope.frequencies.len() { own } else { rope.frequencies.len() - pairs };
            for (j, &frequency) in rope.frequencies[own..own + pairs].iter().enumerate() {
                // The angle is rounded to f32, as in every other implementation; its cosine is then exact.
                let angle = f64::from(position as f32 * frequency);
                cos[j] = angle.cos() as f32 * rope.scale;
                sin[j] = angle.sin() as f32 * rope.scale;
            }
            // What is not rotated keeps its value.
            cos[pairs..dim / 2].fill(1.0);
        }
        Angles { cos, sin, stride: half }
    }

    /// No position turns anything.
    pub(super) fn still(dim: usize, half: usize) -> Self {
        let none = Rope { dims: 0, frequencies: Vec::new(), scale: 1.0 };
        Angles { stride: 0, ..Angles::new(&none, 1, dim, half) }
    }
}
