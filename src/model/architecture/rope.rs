//! Rotary position embeddings: how fast each pair of a head's elements turns with the position.
//!
//! In: `rope_theta`, `partial_rotary_factor` and `rope_scaling` (since transformers 5: `rope_parameters`) of a
//! `config.json`. Out: a [`Rope`], which gives frequencies in radians per position, and how long a sequence may be.
//!
//! Formulas: RoPE (arXiv 2104.09864); `linear` (arXiv 2306.15595); `dynamic` NTK; `yarn` (arXiv 2309.00071); `llama3`
//! (arXiv 2407.21783); `longrope` (arXiv 2402.13753). Rounded to f32 where transformers rounds.

use std::f64::consts::PI;

use super::Fields;
use crate::Result;

/// One rotary embedding: element `i` of a head is paired with element `i + dims / 2`, for `i` in `0..dims / 2`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    /// The base of the frequencies, before any scaling.
    pub(crate) theta: f64,
    /// Elements of a head that are rotated, even; the rest keep their values.
    pub(crate) dims: usize,
    /// Cosines and sines are multiplied by it.
    pub(crate) attention_factor: f64,
    /// Radians per position, `[dims / 2]`.
    frequencies: Vec<f32>,
    dynamic: Option<Dynamic>,
}

/// NTK scaling that grows with the sequence.
#[derive(Debug, Clone, PartialEq)]
struct Dynamic {
    factor: f64,
    /// The context before scaling.
    original: usize,
}

const TYPES: &str = "default, linear, dynamic, yarn, llama3 and longrope";

impl Rope {
    /// The rotary embedding that a file describes, and the context that follows from it. `layer_type` chooses among
    /// several of `rope_parameters`; `longest` is `max_position_embeddings`.
    pub(super) fn read(
        fields: &Fields<'_>,
        layer_type: &str,
        theta: f64,
        head_dim: usize,
        longest: usize,
    ) -> Result<(Self, usize)> {
        let scaling = scaling(fields, layer_type)?;
        let nested = |name: &str| scaling.as_ref().map_or(Ok(None), |scaling| scaling.number(name));
        let theta = nested("rope_theta")?.or(fields.number("rope_theta")?).unwrap_or(theta);
        let share = nested("partial_rotary_factor")?.or(fields.number("partial_rotary_factor")?).unwrap_or(1.0);
        let dims = (head_dim as f64 * share) as usize;
        if share > 1.0 || dims < 2 || !dims.is_multiple_of(2) {
            let problem = format!("{share} of a head of {head_dim} is not an even number of elements");
            return Err(fields.wrong("partial_rotary_factor", problem));
        }
        let plain = Rope::plain(theta, dims);
        let Some(scaling) = scaling else { return Ok((plain, longest)) };
        let kind = scaling.get("rope_type").or(scaling.get("type"));
        match kind.map_or(Some("default"), |kind| kind.as_str()) {
            Some("default") => Ok((plain, longest)),
            Some("linear") => {
                let factor = factor(&scaling)?;
                Ok((plain.map(|_, frequency| frequency / factor as f32), scaled(longest, factor)))
            }
            Some("dynamic") => {
                let factor = factor(&scaling)?;
                if dims < 4 {
                    return Err(scaling.wrong("rope_type", "dynamic needs heads of four rotated elements or more"));
                }
                let dynamic = Some(Dynamic { factor, original: longest });
                Ok((Rope { dynamic, ..plain }, scaled(longest, factor)))
            }
            Some("yarn") => plain.yarn(&scaling, longest),
            Some("llama3") => Ok((plain.llama3(&scaling)?, longest)),
            Some("longrope" | "su") => plain.longrope(fields, &scaling, longest),
            _ => {
                let kind = kind.cloned().unwrap_or_default();
                Err(scaling.wrong("rope_type", format!("{kind} is not supported; this version reads {TYPES}")))
            }
        }
    }

    /// The unscaled embedding of Gemma 3's sliding layers.
    pub(super) fn local(fields: &Fields<'_>, layer_type: &str, head_dim: usize) -> Result<Self> {
        let named = match fields.object("rope_parameters")? {
            Some(all) => all.object(layer_type)?,
            None => None,
        };
        let theta = match named {
            Some(own) => own.number("rope_theta")?,
            None => fields.number("rope_local_base_freq")?,
        };
        Ok(Rope::plain(theta.unwrap_or(10_000.0), head_dim))
    }

    fn plain(theta: f64, dims: usize) -> Self {
        Rope { theta, dims, attention_factor: 1.0, frequencies: frequencies(theta, dims), dynamic: None }
    }

    /// The frequencies of `positions` positions: `[1, dims / 2]` where all have the same, else `[positions, dims / 2]`.
    ///
    /// A scaling that depends on the length of the sequence takes the length up to each position, so that a position's
    /// keys are the same whatever follows; that is also what generating token by token gives in transformers.
    pub(crate) fn frequencies(&self, positions: usize) -> Vec<f32> {
        match &self.dynamic {
            Some(dynamic) if positions > dynamic.original => {
                (0..positions).flat_map(|position| self.stretched(dynamic, position + 1)).collect()
            }
            _ => self.frequencies.clone(),
        }
    }

    /// The frequencies of a sequence of `length` tokens.
    fn stretched(&self, dynamic: &Dynamic, length: usize) -> Vec<f32> {
        let (dims, factor) = (self.dims as f64, dynamic.factor);
        let length = length.max(dynamic.original) as f64;
        let stretch = factor * length / dynamic.original as f64 - (factor - 1.0);
        frequencies(self.theta * stretch.powf(dims / (dims - 2.0)), self.dims)
    }

    fn map(mut self, f: impl Fn(usize, f32) -> f32) -> Self {
        self.frequencies.iter_mut().enumerate().for_each(|(i, frequency)| *frequency = f(i, *frequency));
        self
    }

    fn yarn(self, scaling: &Fields<'_>, longest: usize) -> Result<(Self, usize)> {
        let factor = factor(scaling)?;
        let original = scaling.maybe_size("original_max_position_embeddings")?.unwrap_or(longest);
        let magnitude = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
        let attention_factor = match scaling.number("attention_factor")? {
            Some(given) => given,
            None => match (scaling.number("mscale")?, scaling.number("mscale_all_dim")?) {
                (Some(one), Some(all)) => magnitude(one) / magnitude(all),
                _ => magnitude(1.0),
            },
        };
        // The element that turns this often within the original context.
        let (dims, theta) = (self.dims as f64, self.theta);
        let element = |turns: f64| dims * (original as f64 / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (
            element(scaling.number("beta_fast")?.unwrap_or(32.0)),
            element(scaling.number("beta_slow")?.unwrap_or(1.0)),
        );
        if scaling.flag("truncate", true)? {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dims - 1.0));
        if low == high {
            high += 0.001;
        }
        let rope = self.map(|i, frequency| {
            let kept = 1.0 - ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            let stretched = 1.0 / (factor as f32 * (1.0 / frequency));
            stretched * (1.0 - kept) + frequency * kept
        });
        Ok((Rope { attention_factor, ..rope }, longest.max(scaled(original, factor))))
    }

    fn llama3(self, scaling: &Fields<'_>) -> Result<Self> {
        let factor = factor(scaling)?;
        let need =
            |name: &str| scaling.number(name)?.ok_or_else(|| scaling.wrong(name, "missing; rope_type llama3 needs it"));
        let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
        let original = need("original_max_position_embeddings")?;
        if high <= low {
            return Err(scaling.wrong("high_freq_factor", format!("{high} is not above low_freq_factor = {low}")));
        }
        Ok(self.map(|_, frequency| {
            let wavelength = (2.0 * PI) as f32 / frequency;
            if wavelength < (original / high) as f32 {
                return frequency;
            }
            if wavelength > (original / low) as f32 {
                return frequency / factor as f32;
            }
            let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
            (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
        }))
    }

    /// Within the original context only: beyond it transformers reads a sequence anew with other frequencies for all of
    /// its positions, so that a position's keys would depend on what follows.
    fn longrope(self, fields: &Fields<'_>, scaling: &Fields<'_>, longest: usize) -> Result<(Self, usize)> {
        const ORIGINAL: &str = "original_max_position_embeddings";
        let Some(original) = fields.maybe_size(ORIGINAL)?.or(scaling.maybe_size(ORIGINAL)?) else {
            return Err(fields.wrong(ORIGINAL, "missing; rope_type longrope needs it"));
        };
        let short = scaling.numbers("short_factor", self.frequencies.len())?;
        let factor = longest as f64 / original as f64;
        let attention_factor = match scaling.number("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
        };
        let rope = self.map(|i, frequency| 1.0 / (short[i] as f32 * (1.0 / frequency)));
        Ok((Rope { attention_factor, ..rope }, original.min(longest)))
    }
}

/// `1 / theta^(2i / dims)` for `i` in `0..dims / 2`.
fn frequencies(theta: f64, dims: usize) -> Vec<f32> {
    (0..dims / 2)
        .map(|i| {
            let exponent = (2 * i) as f32 / dims as f32;
            1.0 / theta.powf(f64::from(exponent)) as f32
        })
        .collect()
}

/// The object that says how positions are scaled, if there is one.
fn scaling<'a>(fields: &Fields<'a>, layer_type: &str) -> Result<Option<Fields<'a>>> {
    let Some(all) = fields.object("rope_parameters")? else { return fields.object("rope_scaling") };
    Ok(Some(all.object(layer_type)?.unwrap_or(all)))
}

/// `factor`, which must be there.
fn factor(scaling: &Fields<'_>) -> Result<f64> {
    match scaling.number("factor")? {
        Some(factor) if factor >= 1.0 => Ok(factor),
        Some(factor) => Err(scaling.wrong("factor", format!("{factor} is below 1"))),
        None => Err(scaling.wrong("factor", "missing; this rope_type needs it")),
    }
}

/// A context times a factor.
fn scaled(context: usize, factor: f64) -> usize {
    // The bound is that of every size.
    ((context as f64 * factor) as usize).min(i32::MAX as usize)
}
