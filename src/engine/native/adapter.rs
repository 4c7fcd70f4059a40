//! Low-rank differences to a decoder's projections, chosen row by row.
//!
//! ```text
//! rows x [n, k] ─┬─ W ──────────────────────────> out [n, columns]
//!                └─ runs of rows with one adapter ─ A ─> [.., r] ─ scale B ─> added to these rows of out
//! ```
//! In: pairs `A [r, k]`, `B [columns, r]` per layer and projection. Out: [`Adapter`], packed in the layout of the
//! decoder's own weights. A row's result depends on its own adapter only, and has the same bits in any batch.

use super::decoder::Decoder;
use super::layer::{Layer, spread_heads, value_row};
use super::memory::{Packed, padded};

/// One projection's difference as an adapter file stores it, row-major f32.
#[derive(Debug, Clone, Copy)]
pub struct PairTensors<'a> {
    /// `[r, inputs]`.
    pub a: &'a [f32],
    /// `[outputs, r]`.
    pub b: &'a [f32],
    /// Rank.
    pub r: usize,
    /// What `B A` is multiplied by.
    pub scale: f32,
}

/// The differences of one layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct LayerPairs<'a> {
    /// To the queries.
    pub query: Option<PairTensors<'a>>,
    /// To the keys.
    pub key: Option<PairTensors<'a>>,
    /// To the values.
    pub value: Option<PairTensors<'a>>,
    /// To the output projection.
    pub output: Option<PairTensors<'a>>,
    /// To the gate.
    pub gate: Option<PairTensors<'a>>,
    /// To the up projection.
    pub up: Option<PairTensors<'a>>,
    /// To the down projection.
    pub down: Option<PairTensors<'a>>,
}

impl<'a> LayerPairs<'a> {
    fn all(&self) -> [Option<PairTensors<'a>>; 7] {
        [self.query, self.key, self.value, self.output, self.gate, self.up, self.down]
    }
}

/// A packed difference.
#[derive(Debug)]
pub(super) struct Pair {
    /// `[k] -> [r]`.
    pub(super) a: Packed,
    /// `[r] -> [columns]`, scaled.
    pub(super) b: Packed,
    /// The first column of the product that it is added to.
    pub(super) column: usize,
}

/// The packed differences of one layer, by the product that they are added to.
#[derive(Debug)]
pub(super) struct Pairs {
    pub(super) qkv: Vec<Pair>,
    pub(super) output: Vec<Pair>,
    pub(super) gate_up: Vec<Pair>,
    pub(super) down: Vec<Pair>,
}

/// What makes one model of a decoder's weights into another: low-rank differences, and a head of its own.
#[derive(Debug)]
pub struct Adapter {
    pub(super) layers: Vec<Pairs>,
    /// The linear reward head.
    pub(super) score: Option<Packed>,
    /// The largest rank.
    pub(super) rank: usize,
}

impl Decoder {
    /// Packs an adapter for this decoder. `score` is `[1, hidden]`.
    ///
    /// The tensors must have the sizes that the shape and their ranks say; the caller has checked them.
    pub fn adapter(&self, layers: &[LayerPairs<'_>], score: Option<&[f32]>) -> Adapter {
        let rank = layers.iter().flat_map(LayerPairs::all).flatten().map(|pair| pair.r).max().unwrap_or(0);
        let score = score.map(|w| Packed::new(self.shape().hidden, 1, |_| Some(w)));
        Adapter {
            layers: layers.iter().zip(self.layers()).map(|(pairs, layer)| self.pairs(layer, pairs)).collect(),
            score,
            rank,
        }
    }

    fn pairs(&self, layer: &Layer, l: &LayerPairs<'_>) -> Pairs {
        let s = *self.shape();
        let (half, value_width) = (s.half(), s.value_width());
        let (hidden, dim) = (s.hidden, s.head_dim);
        let (queries, keys) = (s.heads * 2 * half, s.kv_heads * 2 * half);
        let rotated = |t: &Option<PairTensors<'_>>, heads: usize, column: usize| {
            pack(t, hidden, heads * 2 * half, column, |column| layer.head.row(column))
        };
        let plain =
            |t: &Option<PairTensors<'_>>, k: usize, columns: usize, column: usize| pack(t, k, columns, column, Some);
        let value = pack(&l.value, hidden, s.kv_heads * value_width, queries + keys, |column| {
            value_row(dim, value_width, column)
        });
        let spread = l.output.as_ref().map(|t| (spread_heads(t.a, s.heads, dim, value_width), t));
        let output = spread.as_ref().map(|(a, t)| PairTensors { a, ..**t });
        let inner = padded(s.intermediate);
        let some = |pairs: [Option<Pair>; 3]| pairs.into_iter().flatten().collect();
        Pairs {
            qkv: some([rotated(&l.query, s.heads, 0), rotated(&l.key, s.kv_heads, queries), value]),
            output: some([plain(&output, s.heads * value_width, hidden, 0), None, None]),
            gate_up: some([
                plain(&l.gate, hidden, s.intermediate, 0),
                plain(&l.up, hidden, s.intermediate, inner),
                None,
            ]),
            down: some([plain(&l.down, s.intermediate, hidden, 0), None, None]),
        }
    }
}

/// `row(column)` is the row of `B` that a column of the product takes.
fn pack(
    pair: &Option<PairTensors<'_>>,
    k: usize,
    columns: usize,
    column: usize,
    row: impl Fn(usize) -> Option<usize> + Sync,
) -> Option<Pair> {
    let PairTensors { a, b, r, scale } = pair.as_ref()?;
    let scaled: Vec<f32> = b.iter().map(|x| x * scale).collect();
    Some(Pair {
        a: Packed::new(k, *r, |column| a.get(column * k..(column + 1) * k)),
        b: Packed::new(*r, columns, |column| row(column).and_then(|row| scaled.get(row * r..(row + 1) * r))),
        column,
    })
}

/// Consecutive rows of a step that share an adapter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) rows: usize,
    pub(super) adapter: Option<&'a Adapter>,
}

/// The runs of `(rows, adapter)` pieces; none at all where no row has an adapter.
pub(super) fn runs<'a>(pieces: impl Iterator<Item = (usize, Option<&'a Adapter>)>) -> Vec<Run<'a>> {
    let mut out: Vec<Run<'a>> = Vec::new();
    for (rows, adapter) in pieces {
        let same = |run: &Run<'a>| match (run.adapter, adapter) {
            (Some(a), Some(b)) => std::ptr::eq(a, b),
            (None, None) => true,
            _ => false,
        };
        match out.last_mut() {
            Some(run) if same(run) => run.rows += rows,
            _ => out.push(Run { rows, adapter }),
        }
    }
    if out.iter().all(|run| run.adapter.is_none()) {
        out.clear();
    }
    out
}
