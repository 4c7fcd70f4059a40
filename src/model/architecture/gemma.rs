//! Gemma (arXiv 2403.08295): norm weights count from 1, embeddings are scaled, GELU.

use super::{Activation, Architecture, Defaults, Family, Fields, activation};
use crate::Result;

pub(super) static FAMILY: Family = Family {
    model_type: "gemma",
    causal: "GemmaForCausalLM",
    classifier: "GemmaForSequenceClassification",
    defaults: DEFAULTS,
    describe,
};

pub(super) const DEFAULTS: Defaults = Defaults {
    tie_word_embeddings: true,
    head_dim: Some(256),
    max_position_embeddings: 8192,
    activation: Activation::GeluTanh,
    ..Defaults::LLAMA
};

fn describe(fields: &Fields<'_>, plain: Architecture) -> Result<Architecture> {
    base(fields, plain)
}

/// What all generations of Gemma share.
pub(super) fn base(fields: &Fields<'_>, plain: Architecture) -> Result<Architecture> {
    let plain = plain.with_attention_bias(fields)?;
    Ok(Architecture {
        norm_offset: 1.0,
        // Early files have `hidden_act` beside it; it is not the one that counts.
        activation: activation(fields, "hidden_activation", Activation::GeluTanh)?,
        embedding_scale: (fields.size("hidden_size")? as f64).sqrt(),
        ..plain
    })
}
