//! A decoder over flat, ragged rows: prefill and decode are the same call.
//!
//! ```text
//! spans [(tokens, position, blocks)] ─> rows [n, hidden] ─ layers ─> wanted rows [m, hidden] ─> logits | score
//!                                                      └> keys and values into the blocks
//! ```
//! A row is a token at a position of a sequence; there is no padding. Keys and values lie in blocks of sixteen
//! tokens that the caller owns. In the last layer only the wanted rows go past the keys and values.

use super::adapter::Adapter;
use super::angles::Angles;
use super::attention::MAX_QUERIES;
use super::forward::Plan;
use super::gemm::Gemm;
use super::kernels::{Instructions, Kernels};
use super::layer::{Layer, Parts};
use super::memory::{Lines, Matrix, Packed, padded};
use super::pointwise::SoftCap;
use super::shape::Shape;
use super::simd::LANES;
use super::team::Team;

/// f32 for logits at a time: 32 MiB, so that a step reads the unembedding once even with a large vocabulary.
const LOGITS: usize = 8 << 20;

/// Packed weights, shared by all worker threads.
#[derive(Debug)]
pub struct Decoder {
    kernels: &'static Kernels,
    shape: Shape,
    /// Half a head, padded: queries and keys are stored as two such halves.
    pub(super) half: usize,
    /// A head of values, padded.
    pub(super) value_width: usize,
    parts: Parts,
    /// Of every rotary embedding, then that of a layer without positions.
    pub(super) angles: Vec<Angles>,
}

/// Consecutive tokens of one sequence, to be computed in one step.
#[derive(Debug)]
pub struct Span<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// Position of the first one.
    pub start: usize,
    /// The sequence's blocks from position 0 to the last token, each of [`Decoder::block_len`] f32. Those that
    /// `tokens` fall into are written, so no other sequence may use them meanwhile; the others are read.
    pub blocks: &'a [*mut f32],
    /// How many of the last tokens need a hidden state.
    pub wanted: usize,
    /// What the sequence's model adds to the weights.
    pub adapter: Option<&'a Adapter>,
}

/// The activations of one worker: up to `rows` rows in a step.
#[derive(Debug)]
pub struct Scratch {
    pub(super) x: Matrix,
    pub(super) hidden: Matrix,
    pub(super) qkv: Matrix,
    pub(super) attended: Matrix,
    pub(super) gate_up: Matrix,
    /// [`MAX_QUERIES`] for each member of the team.
    pub(super) scores: Matrix,
    logits: Matrix,
    panel: Lines,
    /// Rows between the two factors of an adapter; as wide as the largest rank so far.
    pub(super) low: Matrix,
}

// SAFETY: the blocks' pointers are only read; what they point to is shared as `Span::blocks` says.
unsafe impl Sync for Span<'_> {}

impl Decoder {
    /// A decoder of packed weights, which must have the sizes that `shape` says; the caller has checked them. `None`
    /// if this processor lacks the instructions.
    pub fn new(shape: Shape, parts: Parts, instructions: Instructions) -> Option<Self> {
        let kernels = instructions.kernels()?;
        let (half, value_width, dim) = (shape.half(), shape.value_width(), shape.head_dim);
        let angles = parts.ropes.iter().map(|rope| Angles::new(rope, shape.context, dim, half));
        let angles = angles.chain([Angles::still(dim, half)]).collect();
        Some(Decoder { kernels, shape, half, value_width, parts, angles })
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn layers(&self) -> &[Layer] {
        &self.parts.layers
    }

    /// f32 in a block: keys and values of [`LANES`] tokens in all layers.
    pub fn block_len(&self) -> usize {
        self.parts.layers.len() * self.layer_len()
    }

    pub(super) fn layer_len(&self) -> usize {
        self.shape.kv_heads * LANES * (2 * self.half + self.value_width)
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> usize {
        let parts = &self.parts;
        let layers = parts.layers.iter().map(Layer::bytes).sum::<usize>();
        layers + parts.unembedding.bytes() + parts.embedding.as_ref().map_or(0, Packed::bytes)
    }

    /// Activations for steps of up to `rows` rows by a team of `members`.
    pub fn scratch(&self, rows: usize, members: usize) -> Scratch {
        let s = &self.shape;
        let logit_rows = (LOGITS / padded(s.vocab)).clamp(12, 96).min(rows.max(1));
        Scratch {
            x: Matrix::new(rows, s.hidden),
            hidden: Matrix::new(rows, s.hidden),
            qkv: Matrix::new(rows, (s.heads + s.kv_heads) * 2 * self.half + s.kv_heads * self.value_width),
            attended: Matrix::new(rows, s.heads * self.value_width),
            gate_up: Matrix::new(rows, 2 * padded(s.intermediate)),
            scores: Matrix::new(MAX_QUERIES * members, s.context),
            logits: Matrix::new(logit_rows, s.vocab),
            panel: Lines::zeroed(LANES),
            low: Matrix::new(0, 0),
        }
    }

    /// Computes all spans: writes their keys and values, and leaves the final hidden states of the wanted rows,
    /// in order, in `scratch`; gives their number.
    ///
    /// # Panics
    /// If there are more rows or members than the scratch has, or a token, position or block list does not fit the shape.
    pub fn step(&self, team: &mut Team, scratch: &mut Scratch, spans: &[Span<'_>]) -> usize {
        assert!(team.members() * MAX_QUERIES <= scratch.scores.rows);
        let mut rows = 0;
        for span in spans {
            let end = span.start + span.tokens.len();
            assert!(end <= self.shape.context && end <= span.blocks.len() * LANES && span.wanted <= span.tokens.len());
            assert!(rows + span.tokens.len() <= scratch.x.rows);
            for &token in span.tokens {
                self.embed(token, scratch.x.row_mut(rows));
                rows += 1;
            }
        }
        let plan = Plan::new(spans);
        if scratch.low.rows < rows || scratch.low.stride < padded(plan.rank()) {
            scratch.low = Matrix::new(scratch.x.rows, plan.rank());
        }
        for index in 0..self.parts.layers.len() {
            rows = self.layer(team, scratch, &plan, index);
        }
        self.norm(team, scratch, &self.parts.norm, rows);
        rows
    }

    /// The row of a token in the residual stream.
    fn embed(&self, token: u32, row: &mut [f32]) {
        let hidden = self.shape.hidden;
        row[hidden..padded(hidden)].fill(0.0);
        let row = &mut row[..hidden];
        self.parts.embedding.as_ref().unwrap_or(&self.parts.unembedding).row(token as usize, row);
        if self.shape.embedding_scale != 1.0 {
            row.iter_mut().for_each(|x| *x *= self.shape.embedding_scale);
        }
    }

    /// Rows of logits that [`Decoder::logits`] can compute in one call.
    pub fn logit_rows(scratch: &Scratch) -> usize {
        scratch.logits.rows
    }

    /// Computes the logits of wanted rows `first..first + rows`; read them with [`Decoder::logit_row`].
    pub fn logits(&self, team: &mut Team, scratch: &mut Scratch, first: usize, rows: usize) {
        self.gemm(team, &self.parts.unembedding, &scratch.hidden, first, rows, &mut scratch.logits, false);
        let (stride, width) = (scratch.logits.stride, padded(self.shape.vocab));
        self.cap(SoftCap { x: scratch.logits.ptr_mut(0), stride, width, rows, cap: self.shape.logit_cap });
    }

    fn cap(&self, cap: SoftCap) {
        if cap.cap > 0.0 {
            // SAFETY: the callers give whole rows of logits.
            unsafe { (self.kernels.soft_cap)(&cap) }
        }
    }

    /// Row `i` of the last [`Decoder::logits`] call, and the padding after it.
    pub fn logit_row<'a>(&self, scratch: &'a mut Scratch, i: usize) -> &'a mut [f32] {
        &mut scratch.logits.row_mut(i)[..padded(self.shape.vocab)]
    }

    /// The logit of one token for wanted row `row`, with the same bits as in the full row of logits.
    pub fn logit(&self, scratch: &mut Scratch, row: usize, token: u32) -> f32 {
        let token = token as usize;
        self.one_panel(&self.parts.unembedding, scratch, row, token / LANES);
        let x = scratch.panel.as_mut_slice().as_mut_ptr();
        self.cap(SoftCap { x, stride: LANES, width: LANES, rows: 1, cap: self.shape.logit_cap });
        scratch.panel.as_slice()[token % LANES]
    }

    /// The score that the linear head of `adapter`, else of the decoder, gives wanted row `row`; `None` without such a
    /// head.
    pub fn score(&self, scratch: &mut Scratch, row: usize, adapter: Option<&Adapter>) -> Option<f32> {
        let score = adapter.map_or(self.parts.score.as_ref(), |adapter| adapter.score.as_ref())?;
        self.one_panel(score, scratch, row, 0);
        Some(scratch.panel.as_slice()[0])
    }

    /// One panel of one row, into `scratch.panel`.
    fn one_panel(&self, weights: &Packed, scratch: &mut Scratch, row: usize, panel: usize) {
        assert!(panel < weights.panels && row < scratch.hidden.rows);
        let out = scratch.panel.as_mut_slice().as_mut_ptr();
        let product = weights.product((scratch.hidden.ptr(row), 0), 1, (out, 0), false);
        // SAFETY: the panel and the row exist; `panel` has room for one panel, which begins the output here.
        unsafe { (self.kernels.gemm)(&Gemm { out, ..product.part(panel..panel + 1) }) }
    }

    pub(super) fn kernels(&self) -> &'static Kernels {
        self.kernels
    }
}
