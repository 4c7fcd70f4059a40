//! Weights as a checkpoint stores them, and one layer of them packed for the kernels.
//!
//! In: row-major `[outputs, inputs]` f32. Out: panels whose columns are laid out as the kernels want them: a head of
//! queries or keys as two padded halves, a head of values padded, gates before ups.

use super::decoder::Shape;
use super::memory::{Lines, Packed, padded};
use std::borrow::Cow;

/// The packed weights of a model, made one tensor at a time.
#[derive(Debug)]
pub struct Parts {
    /// [`Parts::rows`] of `[vocab, hidden]`; `None` where the unembedding is the embedding.
    pub embedding: Option<Lines>,
    /// One per layer.
    pub layers: Vec<Layer>,
    /// [`Parts::vector`] of `[hidden]`, the final norm.
    pub norm: Lines,
    /// [`Parts::matrix`] of `[vocab, hidden]`.
    pub unembedding: Packed,
    /// [`Parts::matrix`] of `[1, hidden]`, the linear reward head, if there is one.
    pub score: Option<Packed>,
    /// `[head_dim / 2]` rotary frequencies, in radians per position.
    pub frequencies: Vec<f32>,
}

impl Parts {
    /// Rows of `[rows, width]`, each from a cache line on.
    pub fn rows(weights: &[f32], width: usize) -> Lines {
        let stride = padded(width);
        let mut lines = Lines::zeroed(weights.len() / width * stride);
        for (to, from) in lines.as_mut_slice().chunks_mut(stride).zip(weights.chunks(width)) {
            to[..width].copy_from_slice(from);
        }
        lines
    }

    /// A vector.
    pub fn vector(weights: &[f32]) -> Lines {
        line(weights)
    }

    /// A matrix `[outputs, inputs]`.
    pub fn matrix(weights: &[f32], outputs: usize, inputs: usize) -> Packed {
        Packed::new(inputs, outputs, |i| weights.get(i * inputs..(i + 1) * inputs))
    }
}

/// The weights of one layer as a checkpoint stores them: row-major `[outputs, inputs]`, f32.
#[derive(Debug)]
pub struct LayerTensors<'a> {
    /// `[hidden]`, the norm before attention.
    pub attention_norm: &'a [f32],
    /// `[heads * head_dim, hidden]`.
    pub query: &'a [f32],
    /// `[kv_heads * head_dim, hidden]`.
    pub key: &'a [f32],
    /// `[kv_heads * head_dim, hidden]`.
    pub value: &'a [f32],
    /// `[hidden, heads * head_dim]`.
    pub output: &'a [f32],
    /// `[hidden]`, the norm before the feed-forward layer.
    pub mlp_norm: &'a [f32],
    /// `[intermediate, hidden]`.
    pub gate: &'a [f32],
    /// `[intermediate, hidden]`.
    pub up: &'a [f32],
    /// `[hidden, intermediate]`.
    pub down: &'a [f32],
}

/// One layer, packed.
#[derive(Debug)]
pub struct Layer {
    pub(super) attention_norm: Lines,
    pub(super) qkv: Packed,
    pub(super) output: Packed,
    pub(super) mlp_norm: Lines,
    pub(super) gate_up: Packed,
    pub(super) down: Packed,
}

impl Layer {
    /// Packs the weights of a layer, which must have the sizes that `shape` says.
    pub fn new<'a>(shape: &Shape, t: &LayerTensors<'a>) -> Self {
        let (half, value_width) = (shape.half(), shape.value_width());
        let (hidden, dim) = (shape.hidden, shape.head_dim);
        let query_columns = shape.heads * 2 * half;
        let key_columns = shape.kv_heads * 2 * half;
        let rotated = |w: &'a [f32], column: usize| heads_row(w, hidden, dim, half, column);
        let width = padded(shape.intermediate);
        Layer {
            attention_norm: line(t.attention_norm),
            qkv: Packed::new(hidden, query_columns + key_columns + shape.kv_heads * value_width, |column| {
                if column < query_columns {
                    return rotated(t.query, column);
                }
                if column < query_columns + key_columns {
                    return rotated(t.key, column - query_columns);
                }
                value_row(t.value, hidden, dim, value_width, column - query_columns - key_columns)
            }),
            output: {
                let weights = spread_heads(t.output, shape.heads, dim, value_width);
                let k = shape.heads * value_width;
                Packed::new(k, hidden, |column| weights.get(column * k..(column + 1) * k))
            },
            mlp_norm: line(t.mlp_norm),
            gate_up: Packed::new(hidden, 2 * width, |column| {
                let (w, row) = if column < width { (t.gate, column) } else { (t.up, column - width) };
                w.get(row * hidden..(row + 1) * hidden)
            }),
            down: Packed::new(shape.intermediate, hidden, |column| {
                t.down.get(column * shape.intermediate..(column + 1) * shape.intermediate)
            }),
        }
    }
}

/// The row of `w [heads * dim, k]` for a column of queries or keys: a head is two halves, each padded to whole vectors.
pub(super) fn heads_row(w: &[f32], k: usize, dim: usize, half: usize, column: usize) -> Option<&[f32]> {
    let (head, side, j) = (column / (2 * half), column / half % 2, column % half);
    let row = head * dim + side * (dim / 2) + j;
    if j < dim / 2 { w.get(row * k..(row + 1) * k) } else { None }
}

/// The row of `w [heads * dim, k]` for a column of values: a head is padded to whole vectors.
pub(super) fn value_row(w: &[f32], k: usize, dim: usize, width: usize, column: usize) -> Option<&[f32]> {
    let (head, j) = (column / width, column % width);
    let row = head * dim + j;
    if j < dim { w.get(row * k..(row + 1) * k) } else { None }
}

/// A vector of weights, padded with zeros.
pub(super) fn line(w: &[f32]) -> Lines {
    let mut line = Lines::zeroed(w.len());
    line.as_mut_slice()[..w.len()].copy_from_slice(w);
    line
}

/// `[rows, heads * dim]` with each head widened to `width` inputs by zeros.
pub(super) fn spread_heads(w: &[f32], heads: usize, dim: usize, width: usize) -> Cow<'_, [f32]> {
    if dim == width || heads == 0 {
        return Cow::Borrowed(w);
    }
    let mut out = vec![0.0; w.len() / dim * width];
    for (to, from) in out.chunks_exact_mut(width).zip(w.chunks_exact(dim)) {
        to[..dim].copy_from_slice(from);
    }
    Cow::Owned(out)
}
