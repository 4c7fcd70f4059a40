//! Random draws that depend on nothing but a seed and the row they are for.
//!
//! In: a seed and the names of the thing drawn for (stage, row, pass). Out: numbers that are the same
//! whichever thread, batch or attempt asks for them. There is no generator with a state to carry along:
//! draw `n` of a key is a pure function of `(key, n)`.

/// The key of one stream of draws. Build it with [`key`], extend it with [`Key::with`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// The key for a seed and a path of names, for example `key(7, &["responses", prompt_id, "42"])`.
///
/// The names are hashed with their lengths, so `["ab", "c"]` and `["a", "bc"]` differ.
pub fn key(seed: u64, names: &[&str]) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    for name in names {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
    }
    let bytes: [u8; 32] = hasher.finalize().into();
    let mut low = [0u8; 8];
    low.copy_from_slice(&bytes[..8]);
    Key(u64::from_le_bytes(low))
}

impl Key {
    /// A key from its raw bits, as [`Key::bits`] gave them.
    pub fn from_bits(bits: u64) -> Self {
        Key(bits)
    }

    /// The raw bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// A key of its own for part `n` of this one.
    pub fn with(self, n: u64) -> Key {
        Key(mix(self.0 ^ mix(n.wrapping_mul(0xD1B5_4A32_D192_ED03).wrapping_add(0x8CB9_2BA7_2F3D_8DD7))))
    }

    /// Draw `n`: 64 uniform bits.
    pub fn draw(self, n: u64) -> u64 {
        self.with(n).0
    }

    /// Draw `n` as a number in `[0, 1)` with 53 random bits.
    pub fn uniform(self, n: u64) -> f64 {
        (self.draw(n) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Draw `n` as an integer in `0..below` (`below` > 0), by Lemire's multiplication without the rejection:
    /// the bias is below `below / 2^64`.
    pub fn below(self, n: u64, below: u64) -> u64 {
        ((u128::from(self.draw(n)) * u128::from(below)) >> 64) as u64
    }

    /// Draw `n` from the standard normal distribution (Box-Muller on two sub-draws).
    pub fn normal(self, n: u64) -> f64 {
        let sub = self.with(n);
        let radius = (-2.0 * (1.0 - sub.uniform(0)).ln()).sqrt();
        radius * (std::f64::consts::TAU * sub.uniform(1)).cos()
    }

    /// `0..len` in a random order (Fisher-Yates).
    pub fn permutation(self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for i in (1..len).rev() {
            order.swap(i, self.below(i as u64, i as u64 + 1) as usize);
        }
        order
    }
}

/// The finaliser of MurmurHash3 / SplitMix64 (Stafford's variant 13), applied twice.
fn mix(mut x: u64) -> u64 {
    for _ in 0..2 {
        x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^= x >> 31;
    }
    x
}
