//! Gemma 2 (arXiv 2408.00118): norms before and after both parts of a layer, soft caps on scores and logits, and a
//! sliding window in every other layer.

use super::gemma::{self, DEFAULTS};
use super::{Architecture, Family, Fields};
use crate::Result;

pub(super) static FAMILY: Family = Family {
    model_type: "gemma2",
    causal: "Gemma2ForCausalLM",
    classifier: "Gemma2ForSequenceClassification",
    defaults: DEFAULTS,
    describe,
};

fn describe(fields: &Fields<'_>, plain: Architecture) -> Result<Architecture> {
    let plain = gemma::base(fields, plain)?;
    let plain = plain.with_window(fields, fields.size_or("sliding_window", 4096)?, |l| l % 2 == 0)?;
    Ok(Architecture {
        post_norms: true,
        attention_scalar: attention_scalar(fields)?,
        attention_softcap: fields.number_or("attn_logit_softcapping", 50.0)?,
        logit_softcap: fields.number_or("final_logit_softcapping", 30.0)?,
        ..plain
    })
}

/// `query_pre_attn_scalar`.
pub(super) fn attention_scalar(fields: &Fields<'_>) -> Result<f64> {
    Ok(fields.number("query_pre_attn_scalar")?.unwrap_or(256.0))
}
