//! Weights as a checkpoint stores them, and one layer of them packed for the kernels.
//!
//! In: row-major `[outputs, inputs]` f32. Out: panels whose columns are laid out as the kernels want them: a head of
//! queries or keys as two padded halves, a head of values padded, gates before ups.

use super::memory::{Lines, Packed, padded};
use super::shape::Shape;
use std::borrow::Cow;

/// The packed weights of a model, made one tensor at a time.
#[derive(Debug)]
pub struct Parts {
    /// [`Parts::matrix`] of `[vocab, hidden]`; `None` where the unembedding is the embedding.
    pub embedding: Option<Packed>,
    /// One per layer.
    pub layers: Vec<Layer>,
    /// [`Parts::vector`] of `[hidden]`, the final norm.
    pub norm: Lines,
    /// [`Parts::matrix`] of `[vocab, hidden]`.
    pub unembedding: Packed,
    /// [`Parts::matrix`] of `[1, hidden]`, the linear reward head, if there is one.
    pub score: Option<Packed>,
    /// The rotary embeddings that layers choose from.
    pub ropes: Vec<Rope>,
}

impl Parts {
    /// The weights of a norm, with the shape's offset.
    pub fn norm(shape: &Shape, weights: &[f32]) -> Lines {
        line(weights, shape.norm_offset)
    }

    /// A matrix `[outputs, inputs]`.
    pub fn matrix(weights: &[f32], outputs: usize, inputs: usize) -> Packed {
        Packed::new(inputs, outputs, |i| weights.get(i * inputs..(i + 1) * inputs))
    }
}

/// A rotary embedding: element `i` of a head is paired with element `i + dims / 2`.
#[derive(Debug)]
pub struct Rope {
    /// Elements of a head that are rotated, even; the rest keep their values.
    pub dims: usize,
    /// Radians per position, `[rows, dims / 2]`: a row for every position, or one for all.
    pub frequencies: Vec<f32>,
    /// Cosines and sines are multiplied by it.
    pub scale: f32,
}

/// A linear map.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// `[outputs, inputs]`.
    pub weight: &'a [f32],
    /// `[outputs]`.
    pub bias: Option<&'a [f32]>,
}

/// The weights of one layer as a checkpoint stores them: row-major `[outputs, inputs]`, f32.
#[derive(Debug)]
pub struct LayerTensors<'a> {
    /// `[hidden]`, the norm before attention.
    pub attention_norm: &'a [f32],
    /// `[heads * head_dim, hidden]`.
    pub query: Linear<'a>,
    /// `[kv_heads * head_dim, hidden]`.
    pub key: Linear<'a>,
    /// `[kv_heads * head_dim, hidden]`.
    pub value: Linear<'a>,
    /// `[head_dim]` each, the norms of the heads of queries and of keys.
    pub qk_norms: Option<[&'a [f32]; 2]>,
    /// `[hidden, heads * head_dim]`.
    pub output: Linear<'a>,
    /// `[hidden]`, the norm before the feed-forward layer.
    pub mlp_norm: &'a [f32],
    /// `[intermediate, hidden]`.
    pub gate: Linear<'a>,
    /// `[intermediate, hidden]`.
    pub up: Linear<'a>,
    /// `[hidden, intermediate]`.
    pub down: Linear<'a>,
    /// `[hidden]` each, the norms of what attention and the feed-forward layer add.
    pub post_norms: Option<[&'a [f32]; 2]>,
    /// How many positions, its own included, a position sees; `None` for all.
    pub window: Option<usize>,
    /// Which of the rotary embeddings it has; `None` for no positions.
    pub rope: Option<usize>,
}

/// One layer, packed.
#[derive(Debug)]
pub struct Layer {
    /// The layout of its queries and keys.
    pub(super) head: Head,
    pub(super) attention_norm: Lines,
    pub(super) qkv: Packed,
    pub(super) qk_norms: Option<[Lines; 2]>,
    pub(super) output: Packed,
    pub(super) mlp_norm: Lines,
    pub(super) gate_up: Packed,
    pub(super) down: Packed,
    pub(super) post_norms: Option<[Lines; 2]>,
    pub(super) window: usize,
    /// Which of the decoder's tables of angles.
    pub(super) angles: usize,
}

/// How the elements of a head of queries or keys lie in the packed columns: two halves, each padded to whole vectors,
/// the pairs that are rotated first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) dim: usize,
    /// Elements that are rotated.
    pub(super) rotated: usize,
    /// Columns of a half.
    pub(super) half: usize,
}

impl Head {
    /// The element in a column of the head, if it is not padding.
    pub(super) fn element(&self, column: usize) -> Option<usize> {
        let (side, j) = (column / self.half, column % self.half);
        let pairs = self.rotated / 2;
        if j < pairs {
            return Some(side * pairs + j);
        }
        let rest = self.dim / 2 - pairs;
        (j - pairs < rest).then(|| self.rotated + side * rest + j - pairs)
    }

    /// The row of the weights in a column of all heads.
    pub(super) fn row(&self, column: usize) -> Option<usize> {
        let width = 2 * self.half;
        Some(column / width * self.dim + self.element(column % width)?)
    }
}

impl Layer {
    /// Packs the weights of a layer, which must have the sizes that `shape` says. `ropes` are those of [`Parts`].
    pub fn new<'a>(shape: &Shape, ropes: &[Rope], t: &LayerTensors<'a>) -> Self {
        let (hidden, dim, value_width) = (shape.hidden, shape.head_dim, shape.value_width());
        // After the tables of all rotary embeddings comes the one without positions.
        let angles = t.rope.unwrap_or(ropes.len());
        let head = Head { dim, rotated: ropes.get(angles).map_or(dim, |rope| rope.dims), half: shape.half() };
        let query_columns = shape.heads * 2 * head.half;
        let key_columns = shape.kv_heads * 2 * head.half;
        // The map and its row behind a column.
        let qkv = |column: usize| -> Option<(Linear<'a>, usize)> {
            if column < query_columns {
                return Some((t.query, head.row(column)?));
            }
            if column < query_columns + key_columns {
                return Some((t.key, head.row(column - query_columns)?));
            }
            Some((t.value, value_row(dim, value_width, column - query_columns - key_columns)?))
        };
        let width = padded(shape.intermediate);
        let gate_up = |column: usize| -> Option<(Linear<'a>, usize)> {
            let (linear, row) = if column < width { (t.gate, column) } else { (t.up, column - width) };
            (row < shape.intermediate).then_some((linear, row))
        };
        let pair = |pair: Option<[&[f32]; 2]>| pair.map(|pair| pair.map(|w| line(w, shape.norm_offset)));
        let columns = query_columns + key_columns + shape.kv_heads * value_width;
        Layer {
            head,
            attention_norm: line(t.attention_norm, shape.norm_offset),
            qkv: pack(hidden, columns, qkv),
            qk_norms: t.qk_norms.map(|norms| {
                norms.map(|w| {
                    let mut line = Lines::zeroed(2 * head.half);
                    for (column, to) in line.as_mut_slice().iter_mut().enumerate() {
                        let weight = head.element(column).and_then(|element| w.get(element));
                        *to = weight.map_or(0.0, |weight| weight + shape.norm_offset);
                    }
                    line
                })
            }),
            output: {
                let weights = spread_heads(t.output.weight, shape.heads, dim, value_width);
                let spread = Linear { weight: &weights, bias: t.output.bias };
                pack(shape.heads * value_width, hidden, |column| Some((spread, column)))
            },
            mlp_norm: line(t.mlp_norm, shape.norm_offset),
            gate_up: pack(hidden, 2 * width, gate_up),
            down: pack(shape.intermediate, hidden, |column| Some((t.down, column))),
            post_norms: pair(t.post_norms),
            window: t.window.unwrap_or(usize::MAX),
            angles,
        }
    }
}

impl Layer {
    /// Bytes of its matrices.
    pub(super) fn bytes(&self) -> usize {
        [&self.qkv, &self.output, &self.gate_up, &self.down].map(Packed::bytes).iter().sum()
    }
}

/// The row of the weights in a column of all values: a head is padded to whole vectors.
pub(super) fn value_row(dim: usize, width: usize, column: usize) -> Option<usize> {
    let (head, j) = (column / width, column % width);
    (j < dim).then_some(head * dim + j)
}

/// Packs columns of `k` inputs, given the map and its row behind each; `None` is padding.
fn pack<'a>(k: usize, columns: usize, source: impl Fn(usize) -> Option<(Linear<'a>, usize)> + Sync) -> Packed {
    let packed = Packed::new(k, columns, |column| {
        let (linear, row) = source(column)?;
        linear.weight.get(row * k..(row + 1) * k)
    });
    if (0..columns).all(|column| source(column).is_none_or(|(linear, _)| linear.bias.is_none())) {
        return packed;
    }
    packed.with_bias(|column| {
        let (linear, row) = if column < columns { source(column)? } else { return None };
        linear.bias?.get(row).copied()
    })
}

/// A vector of norm weights with `offset` added, padded with zeros.
fn line(w: &[f32], offset: f32) -> Lines {
    let mut line = Lines::zeroed(w.len());
    line.as_mut_slice().iter_mut().zip(w).for_each(|(to, w)| *to = w + offset);
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
