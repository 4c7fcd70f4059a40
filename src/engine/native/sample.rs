//! From a row of logits to a token: temperature, top-k, top-p, and one uniform number.
//!
//! In: logits `[vocab]`, and a uniform number in `[0, 1)`. Out: a token and its log-probability at temperature 1.
//!
//! The order is that of transformers: temperature, then top-k, then top-p (the smallest set of most likely
//! tokens whose probabilities reach p), then the rest is renormalised. The token is the first one at which the
//! running sum of probabilities passes the uniform number: in the order of ids, or of probability (then id) when
//! tokens were cut off.

use super::decoder::Decoder;
use super::memory::{Lines, padded};
use super::pointwise::{Exponentials, PART};

/// How to choose a token.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// 0 takes the most likely token (the lowest id among equals).
    pub temperature: f64,
    /// Only this many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 for all.
    pub top_p: f64,
}

/// The working memory of one thread.
#[derive(Debug)]
pub struct Sampler {
    weights: Lines,
    parts: Vec<f64>,
    order: Vec<u32>,
}

impl Sampler {
    /// For a vocabulary of this size.
    pub fn new(vocab: usize) -> Self {
        Sampler {
            weights: Lines::zeroed(vocab),
            parts: vec![0.0; padded(vocab).div_ceil(PART)],
            order: Vec::with_capacity(vocab),
        }
    }

    /// The largest logit and `ln(sum of e^logit)`; `None` if a logit is NaN or infinite.
    ///
    /// `logits` is a row with its padding, which is overwritten.
    pub fn normalizer(&mut self, decoder: &Decoder, logits: &mut [f32]) -> Option<(f32, f64)> {
        logits[decoder.shape().vocab..].fill(f32::NEG_INFINITY);
        // SAFETY: a row of logits is whole vectors.
        let max = unsafe { (decoder.kernels().maximum)(logits.as_ptr(), logits.len()) };
        let sum = self.exponentials(decoder, logits, max, 1.0);
        let normalizer = f64::from(max) + sum.ln();
        normalizer.is_finite().then_some((max, normalizer))
    }

    fn exponentials(&mut self, decoder: &Decoder, logits: &[f32], max: f32, scale: f32) -> f64 {
        let out = self.weights.as_mut_slice();
        assert!(out.len() >= logits.len() && self.parts.len() >= logits.len().div_ceil(PART));
        let job = Exponentials {
            x: logits.as_ptr(),
            out: out.as_mut_ptr(),
            parts: self.parts.as_mut_ptr(),
            len: logits.len(),
            max,
            scale,
        };
        // SAFETY: just checked.
        unsafe { (decoder.kernels().exponentials)(&job) };
        self.parts.iter().sum()
    }

    /// Chooses a token; gives it with its log-probability at temperature 1. `None` as in
    /// [`Sampler::normalizer`].
    pub fn sample(
        &mut self,
        decoder: &Decoder,
        logits: &mut [f32],
        choice: &Choice,
        uniform: f64,
    ) -> Option<(u32, f32)> {
        let (max, normalizer) = self.normalizer(decoder, logits)?;
        let token = if choice.temperature == 0.0 {
            logits.iter().position(|&x| x == max)?
        } else {
            let sum = match choice.temperature {
                1.0 => self.parts.iter().sum(),
                t => self.exponentials(decoder, logits, max, (1.0 / t) as f32),
            };
            let vocab = decoder.shape().vocab;
            let cut = choice.top_p < 1.0 || (choice.top_k > 0 && choice.top_k < vocab);
            if cut { self.among_likely(vocab, choice, sum, uniform) } else { self.among_all(vocab, sum, uniform) }
        };
        let logprob = f64::from(*logits.get(token)?) - normalizer;
        Some((token as u32, logprob as f32))
    }

    fn among_all(&self, vocab: usize, sum: f64, uniform: f64) -> usize {
        let mut left = uniform * sum;
        for (part, weights) in self.weights.as_slice()[..vocab].chunks(PART).enumerate() {
            if left >= self.parts[part] && (part + 1) * PART < vocab {
                left -= self.parts[part];
                continue;
            }
            for (i, &weight) in weights.iter().enumerate() {
                left -= f64::from(weight);
                if left < 0.0 {
                    return part * PART + i;
                }
            }
        }
        // Rounding may leave a little at the end: the last token that can be drawn.
        self.weights.as_slice()[..vocab].iter().rposition(|&w| w > 0.0).unwrap_or(0)
    }

    fn among_likely(&mut self, vocab: usize, choice: &Choice, sum: f64, uniform: f64) -> usize {
        let weights = &self.weights.as_slice()[..vocab];
        let weight = |id: u32| weights[id as usize];
        let likelier = |a: &u32, b: &u32| weight(*b).total_cmp(&weight(*a)).then(a.cmp(b));
        let most = if choice.top_k == 0 { vocab } else { choice.top_k.min(vocab) };
        self.order.clear();
        self.order.extend(0..vocab as u32);
        let order = self.order.as_mut_slice();
        if most < vocab {
            order.select_nth_unstable_by(most - 1, likelier);
        }
        // Top-p is a share of what top-k left.
        let all = if most < vocab { order[..most].iter().map(|&id| f64::from(weight(id))).sum() } else { sum };
        // Sorting everything is slow for a large vocabulary, and a few tokens nearly always reach top-p.
        let mut sorted = if choice.top_p < 1.0 { most.min(64) } else { most };
        let (mut kept, mut total);
        loop {
            if sorted < most {
                order[..most].select_nth_unstable_by(sorted - 1, likelier);
            }
            order[..sorted].sort_unstable_by(likelier);
            (kept, total) = (0, 0.0);
            while kept < sorted && (kept == 0 || choice.top_p >= 1.0 || total < choice.top_p * all) {
                total += f64::from(weight(order[kept]));
                kept += 1;
            }
            if sorted == most || total >= choice.top_p * all {
                break;
            }
            sorted = most.min(sorted * 8);
        }
        let mut left = uniform * total;
        for &id in &order[..kept] {
            left -= f64::from(weight(id));
            if left < 0.0 {
                return id as usize;
            }
        }
        order[kept - 1] as usize
    }
}
