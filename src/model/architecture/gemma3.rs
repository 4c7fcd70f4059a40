//! Gemma 3, text (arXiv 2503.19786): as Gemma 2, with norms on queries and keys in place of soft caps, and sliding
//! layers whose rotary embedding has a base of its own. `attn_logit_softcapping` has no effect in transformers either.

use super::gemma::{self, DEFAULTS};
use super::gemma2::attention_scalar;
use super::{Architecture, Defaults, Family, Fields, Rope};
use crate::Result;

pub(super) static FAMILY: Family = Family {
    model_type: "gemma3_text",
    causal: "Gemma3ForCausalLM",
    classifier: "Gemma3TextForSequenceClassification",
    defaults: Defaults { rope_theta: 1_000_000.0, max_position_embeddings: 131_072, ..DEFAULTS },
    describe,
};

fn describe(fields: &Fields<'_>, plain: Architecture) -> Result<Architecture> {
    let plain = gemma::base(fields, plain)?;
    let window = fields.size_or("sliding_window", 4096)?;
    let pattern = ["sliding_window_pattern", "_sliding_window_pattern"];
    let pattern = match pattern.into_iter().find(|name| fields.has(name)) {
        Some(name) => fields.size(name)?,
        None => 6,
    };
    let mut plain = plain.with_window(fields, window, |l| (l + 1) % pattern != 0)?;
    for layer in &mut plain.layers {
        layer.rope = Some(usize::from(layer.sliding));
    }
    let head_dim = fields.maybe_size("head_dim")?.or(DEFAULTS.head_dim).unwrap_or(256);
    plain.ropes.push(Rope::local(fields, "sliding_attention", head_dim)?);
    Ok(Architecture {
        // Unlike elsewhere, the field is the context after scaling.
        context: fields.maybe_size("max_position_embeddings")?.unwrap_or(FAMILY.defaults.max_position_embeddings),
        qk_norm: true,
        post_norms: true,
        attention_scalar: attention_scalar(fields)?,
        logit_softcap: fields.number("final_logit_softcapping")?,
        ..plain
    })
}
