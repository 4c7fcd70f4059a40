//! A decoder over flat, ragged rows: prefill and decode are the same call.
//!
//! ```text
//! spans [(tokens, position, blocks)] ─> rows [n, hidden] ─ layers ─> wanted rows [m, hidden] ─> logits | score
//!                                                      └> keys and values into the blocks
//! ```
//! A row is a token at a position of a sequence; there is no padding. Keys and values lie in blocks of sixteen
//! tokens that the caller owns. In the last layer only the wanted rows go past the keys and values.

use super::adapter::{Adapter, Pair, Pairs, Run, runs};
use super::angles::Angles;
use super::attention::{Attention, MAX_QUERIES};
use super::gemm::Gemm;
use super::kernels::{Instructions, Kernels};
use super::layer::{Layer, Parts};
use super::memory::{Lines, Matrix, Packed, padded};
use super::pointwise::{Gated, RmsNorm, Rotary, SoftCap};
use super::shape::{Activation, Shape};
use super::simd::LANES;

/// Packed weights, shared by all worker threads.
#[derive(Debug)]
pub struct Decoder {
    kernels: &'static Kernels,
    shape: Shape,
    /// Half a head, padded: queries and keys are stored as two such halves.
    half: usize,
    /// A head of values, padded.
    value_width: usize,
    parts: Parts,
    /// Of every rotary embedding, then that of a layer without positions.
    angles: Vec<Angles>,
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
    x: Matrix,
    hidden: Matrix,
    qkv: Matrix,
    attended: Matrix,
    gate_up: Matrix,
    scores: Matrix,
    logits: Matrix,
    panel: Lines,
    /// Rows between the two factors of an adapter; as wide as the largest rank so far.
    low: Matrix,
}

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

    fn layer_len(&self) -> usize {
        self.shape.kv_heads * LANES * (2 * self.half + self.value_width)
    }

    /// Activations for steps of up to `rows` rows.
    pub fn scratch(&self, rows: usize) -> Scratch {
        let s = &self.shape;
        // Logits of a bounded number of rows at a time: 4 MiB, or one register tile of rows.
        let logit_rows = (1_048_576 / padded(s.vocab)).clamp(12, 96).min(rows.max(1));
        Scratch {
            x: Matrix::new(rows, s.hidden),
            hidden: Matrix::new(rows, s.hidden),
            qkv: Matrix::new(rows, (s.heads + s.kv_heads) * 2 * self.half + s.kv_heads * self.value_width),
            attended: Matrix::new(rows, s.heads * self.value_width),
            gate_up: Matrix::new(rows, 2 * padded(s.intermediate)),
            scores: Matrix::new(MAX_QUERIES, s.context),
            logits: Matrix::new(logit_rows, s.vocab),
            panel: Lines::zeroed(LANES),
            low: Matrix::new(0, 0),
        }
    }

    /// Computes all spans: writes their keys and values, and leaves the final hidden states of the wanted rows,
    /// in order, in `scratch`; gives their number.
    ///
    /// # Panics
    /// If there are more rows than the scratch has, or a token, position or block list does not fit the shape.
    pub fn step(&self, scratch: &mut Scratch, spans: &[Span<'_>]) -> usize {
        let mut rows = 0;
        for span in spans {
            let end = span.start + span.tokens.len();
            assert!(end <= self.shape.context && end <= span.blocks.len() * LANES && span.wanted <= span.tokens.len());
            assert!(rows + span.tokens.len() <= scratch.x.rows);
            let width = padded(self.shape.hidden);
            for &token in span.tokens {
                let row = &mut scratch.x.row_mut(rows)[..width];
                match &self.parts.embedding {
                    Some(embedding) => {
                        let at = token as usize * width;
                        row.copy_from_slice(&embedding.as_slice()[at..at + width]);
                    }
                    None => {
                        row[self.shape.hidden..].fill(0.0);
                        self.parts.unembedding.row(token as usize, &mut row[..self.shape.hidden]);
                    }
                }
                if self.shape.embedding_scale != 1.0 {
                    row.iter_mut().for_each(|x| *x *= self.shape.embedding_scale);
                }
                rows += 1;
            }
        }
        let all = runs(spans.iter().map(|span| (span.tokens.len(), span.adapter)));
        let wanted = runs(spans.iter().map(|span| (span.wanted, span.adapter)));
        let rank = all.iter().filter_map(|run| run.adapter).map(|adapter| adapter.rank).max().unwrap_or(0);
        if scratch.low.rows < rows || scratch.low.stride < padded(rank) {
            scratch.low = Matrix::new(scratch.x.rows, rank);
        }
        for (i, layer) in self.parts.layers.iter().enumerate() {
            let kept = if i + 1 == self.parts.layers.len() { &wanted } else { &all };
            rows = self.layer(scratch, spans, rows, i, layer, [&all, kept]);
        }
        self.norm(scratch, &self.parts.norm, rows);
        rows
    }

    /// One layer over all rows; the last one goes on with the wanted rows only and gives their number.
    fn layer<'a>(
        &self,
        scratch: &mut Scratch,
        spans: &[Span<'_>],
        rows: usize,
        index: usize,
        layer: &Layer,
        [all, wanted]: [&[Run<'a>]; 2],
    ) -> usize {
        self.norm(scratch, &layer.attention_norm, rows);
        self.gemm(&layer.qkv, &scratch.hidden, 0, rows, &mut scratch.qkv, false);
        self.adapt(
            all,
            move |adapter: &'a Adapter| &adapter.layers[index].qkv[..],
            &scratch.hidden,
            &mut scratch.low,
            &mut scratch.qkv,
        );
        let last = index + 1 == self.parts.layers.len();
        let (mut first, mut kept) = (0, 0);
        for span in spans {
            let len = span.tokens.len();
            for i in 0..len {
                self.remember(scratch.qkv.row_mut(first + i), span, span.start + i, index, layer);
            }
            let skip = if last { len - span.wanted } else { 0 };
            let attention = Attention {
                queries: scratch.qkv.ptr(first + skip),
                query_stride: scratch.qkv.stride,
                out: scratch.attended.ptr_mut(kept),
                out_stride: scratch.attended.stride,
                rows: len - skip,
                start: span.start + skip,
                window: layer.window,
                cap: self.shape.attention_cap,
                blocks: span.blocks,
                layer: index * self.layer_len(),
                kv_heads: self.shape.kv_heads,
                group: self.shape.heads / self.shape.kv_heads,
                key_width: 2 * self.half,
                value_width: self.value_width,
                scores: scratch.scores.ptr_mut(0),
                score_stride: scratch.scores.stride,
            };
            // SAFETY: `step` checked rows, positions and blocks; the scratch was made for this shape.
            unsafe { (self.kernels.attention)(&attention) };
            if last {
                for i in skip..len {
                    scratch.x.copy_row(first + i, kept + i - skip);
                }
            }
            first += len;
            kept += len - skip;
        }
        if kept == 0 {
            return 0;
        }
        let pairs = |of: fn(&Pairs) -> &[Pair]| move |adapter: &'a Adapter| of(&adapter.layers[index]);
        match &layer.post_norms {
            None => {
                self.gemm(&layer.output, &scratch.attended, 0, kept, &mut scratch.x, true);
                self.adapt(wanted, pairs(|p| &p.output), &scratch.attended, &mut scratch.low, &mut scratch.x);
            }
            Some([weight, _]) => {
                self.gemm(&layer.output, &scratch.attended, 0, kept, &mut scratch.hidden, false);
                self.adapt(wanted, pairs(|p| &p.output), &scratch.attended, &mut scratch.low, &mut scratch.hidden);
                self.add_normed(scratch, weight, kept);
            }
        }
        self.norm(scratch, &layer.mlp_norm, kept);
        self.gemm(&layer.gate_up, &scratch.hidden, 0, kept, &mut scratch.gate_up, false);
        self.adapt(wanted, pairs(|p| &p.gate_up), &scratch.hidden, &mut scratch.low, &mut scratch.gate_up);
        let (stride, width) = (scratch.gate_up.stride, padded(self.shape.intermediate));
        let gated = Gated { x: scratch.gate_up.ptr_mut(0), stride, width, rows: kept };
        // SAFETY: the matrix has `kept` rows of `2 * width`.
        unsafe {
            match self.shape.activation {
                Activation::Silu => (self.kernels.swiglu)(&gated),
                Activation::GeluTanh => (self.kernels.geglu)(&gated),
            }
        }
        match &layer.post_norms {
            None => {
                self.gemm(&layer.down, &scratch.gate_up, 0, kept, &mut scratch.x, true);
                self.adapt(wanted, pairs(|p| &p.down), &scratch.gate_up, &mut scratch.low, &mut scratch.x);
            }
            Some([_, weight]) => {
                self.gemm(&layer.down, &scratch.gate_up, 0, kept, &mut scratch.hidden, false);
                self.adapt(wanted, pairs(|p| &p.down), &scratch.gate_up, &mut scratch.low, &mut scratch.hidden);
                self.add_normed(scratch, weight, kept);
            }
        }
        kept
    }

    /// Norms and rotates one row's queries and keys, scales its queries, and writes its keys and values into its block.
    fn remember(&self, row: &mut [f32], span: &Span<'_>, position: usize, index: usize, layer: &Layer) {
        let (s, key_width) = (&self.shape, 2 * self.half);
        let angles = &self.angles[layer.angles];
        let cos = angles.cos.as_slice()[position * angles.stride..].as_ptr();
        let sin = angles.sin.as_slice()[position * angles.stride..].as_ptr();
        let (queries, rest) = row.split_at_mut(s.heads * key_width);
        let (keys, values) = rest.split_at_mut(s.kv_heads * key_width);
        if let Some([query_norm, key_norm]) = &layer.qk_norms {
            for (x, heads, weight) in [(&mut *queries, s.heads, query_norm), (&mut *keys, s.kv_heads, key_norm)] {
                let norm = RmsNorm {
                    x: x.as_ptr(),
                    weight: weight.as_slice().as_ptr(),
                    out: x.as_mut_ptr(),
                    stride: key_width,
                    width: s.head_dim,
                    span: key_width,
                    rows: heads,
                    eps: s.eps,
                    add: false,
                };
                // SAFETY: the slice holds its heads, and the weight is as wide as one; in place, each vector of a head
                // is written after its last use.
                unsafe { (self.kernels.rms_norm)(&norm) }
            }
        }
        let scale = 1.0 / s.attention_scalar.sqrt();
        let rotate =
            |x: &mut [f32], heads, scale| Rotary { x: x.as_mut_ptr(), heads, half: self.half, cos, sin, scale };
        // SAFETY: both slices hold their heads; cos and sin have `half` values per position.
        unsafe {
            (self.kernels.rotary)(&rotate(queries, s.heads, scale));
            (self.kernels.rotary)(&rotate(keys, s.kv_heads, 1.0));
        }
        let slot = position % LANES;
        // SAFETY: `step` checked that the block exists; a block has `block_len` f32, and while a span is being
        // computed the blocks its tokens fall into are its own.
        let block = unsafe {
            let start = span.blocks[position / LANES].add(index * self.layer_len());
            std::slice::from_raw_parts_mut(start, self.layer_len())
        };
        let (block_keys, block_values) = block.split_at_mut(s.kv_heads * key_width * LANES);
        for (to, &key) in block_keys.chunks_exact_mut(LANES).zip(&keys[..s.kv_heads * key_width]) {
            to[slot] = key;
        }
        let width = self.value_width;
        for (to, value) in block_values.chunks_exact_mut(LANES * width).zip(values.chunks_exact(width)) {
            to[slot * width..(slot + 1) * width].copy_from_slice(value);
        }
    }

    /// `hidden = norm(x)`.
    fn norm(&self, scratch: &mut Scratch, weight: &Lines, rows: usize) {
        self.rms_norm(&scratch.x, &mut scratch.hidden, weight, rows, false);
    }

    /// `x += norm(hidden)`.
    fn add_normed(&self, scratch: &mut Scratch, weight: &Lines, rows: usize) {
        self.rms_norm(&scratch.hidden, &mut scratch.x, weight, rows, true);
    }

    fn rms_norm(&self, x: &Matrix, out: &mut Matrix, weight: &Lines, rows: usize, add: bool) {
        assert!(rows <= x.rows && rows <= out.rows && x.stride == out.stride);
        let norm = RmsNorm {
            x: x.ptr(0),
            weight: weight.as_slice().as_ptr(),
            out: out.ptr_mut(0),
            stride: x.stride,
            width: self.shape.hidden,
            span: padded(self.shape.hidden),
            rows,
            eps: self.shape.eps,
            add,
        };
        // SAFETY: just checked; the weight is as wide as a row.
        unsafe { (self.kernels.rms_norm)(&norm) }
    }

    /// Adds each run's differences to its rows of `out`, which is the product of `x` and the decoder's own weights.
    fn adapt<'a>(
        &self,
        runs: &[Run<'a>],
        pairs: impl Fn(&'a Adapter) -> &'a [Pair],
        x: &Matrix,
        low: &mut Matrix,
        out: &mut Matrix,
    ) {
        let mut first = 0;
        for run in runs {
            for pair in run.adapter.map(&pairs).unwrap_or_default() {
                self.gemm(&pair.a, x, first, run.rows, low, false);
                assert!(first + run.rows <= out.rows && pair.column + pair.b.panels * LANES <= out.stride);
                let gemm = Gemm {
                    weights: pair.b.ptr(0),
                    k: pair.b.k,
                    panels: pair.b.panels,
                    x: low.ptr(0),
                    x_stride: low.stride,
                    rows: run.rows,
                    // SAFETY: just checked; so is `low`, by the first product.
                    out: unsafe { out.ptr_mut(first).add(pair.column) },
                    out_stride: out.stride,
                    add: true,
                };
                // SAFETY: as above.
                unsafe { (self.kernels.gemm)(&gemm) }
            }
            first += run.rows;
        }
    }

    fn gemm(&self, weights: &Packed, x: &Matrix, first: usize, rows: usize, out: &mut Matrix, add: bool) {
        assert!(first + rows <= x.rows && rows <= out.rows);
        let columns = weights.panels * LANES;
        assert!(weights.k <= x.stride && columns <= out.stride);
        if let Some(bias) = &weights.bias {
            for row in 0..rows {
                let row = &mut out.row_mut(row)[..columns];
                if add {
                    row.iter_mut().zip(bias.as_slice()).for_each(|(x, bias)| *x += bias);
                } else {
                    row.copy_from_slice(bias.as_slice());
                }
            }
        }
        let gemm = Gemm {
            weights: weights.ptr(0),
            k: weights.k,
            panels: weights.panels,
            x: x.ptr(first),
            x_stride: x.stride,
            rows,
            out: out.ptr_mut(0),
            out_stride: out.stride,
            add: add || weights.bias.is_some(),
        };
        // SAFETY: just checked.
        unsafe { (self.kernels.gemm)(&gemm) }
    }

    /// Rows of logits that [`Decoder::logits`] can compute in one call.
    pub fn logit_rows(scratch: &Scratch) -> usize {
        scratch.logits.rows
    }

    /// Computes the logits of wanted rows `first..first + rows`; read them with [`Decoder::logit_row`].
    pub fn logits(&self, scratch: &mut Scratch, first: usize, rows: usize) {
        self.gemm(&self.parts.unembedding, &scratch.hidden, first, rows, &mut scratch.logits, false);
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
        let gemm = Gemm {
            weights: weights.ptr(panel),
            k: weights.k,
            panels: 1,
            x: scratch.hidden.ptr(row),
            x_stride: 0,
            rows: 1,
            out: scratch.panel.as_mut_slice().as_mut_ptr(),
            out_stride: 0,
            add: false,
        };
        // SAFETY: the panel and the row exist; `panel` has room for one panel.
        unsafe { (self.kernels.gemm)(&gemm) }
    }

    pub(super) fn kernels(&self) -> &'static Kernels {
        self.kernels
    }
}
