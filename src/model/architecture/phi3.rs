//! Phi-3, Phi-3.5 and Phi-4 (arXiv 2404.14219, 2412.08905): query, key and value in one tensor, gate and up in
//! another; optionally a sliding window in every layer, and heads of which only a part is rotated.

use super::{Architecture, Defaults, Family, Fields};
use crate::Result;

pub(super) static FAMILY: Family = Family {
    model_type: "phi3",
    causal: "Phi3ForCausalLM",
    classifier: "Phi3ForSequenceClassification",
    defaults: Defaults { rms_norm_eps: 1e-5, max_position_embeddings: 4096, ..Defaults::LLAMA },
    describe,
};

fn describe(fields: &Fields<'_>, plain: Architecture) -> Result<Architecture> {
    let plain = plain.with_window(fields, fields.maybe_size("sliding_window")?, |_| true)?;
    Ok(Architecture { fused: true, ..plain })
}
