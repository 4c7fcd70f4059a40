//! What a model is, in numbers: its sizes, and what it computes differently from others.

use super::memory::padded;

/// The shape and constants of a model.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, even.
    pub head_dim: usize,
    /// Epsilon of the RMS norms.
    pub eps: f32,
    /// Positions at most.
    pub context: usize,
    /// Added to the weight of every norm.
    pub norm_offset: f32,
    /// The function between gate and product.
    pub activation: Activation,
    /// Embeddings are multiplied by it.
    pub embedding_scale: f32,
    /// Query times key is divided by its root.
    pub attention_scalar: f32,
    /// Attention scores become `cap * tanh(score / cap)`; 0 leaves them as they are.
    pub attention_cap: f32,
    /// Logits become `cap * tanh(logit / cap)`; 0 leaves them as they are.
    pub logit_cap: f32,
}

impl Shape {
    /// Half a head, padded: queries and keys are stored as two such halves.
    pub(super) fn half(&self) -> usize {
        padded(self.head_dim / 2)
    }

    /// A head of values, padded.
    pub(super) fn value_width(&self) -> usize {
        padded(self.head_dim)
    }
}

/// The function between gate and product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
}
