//! Qwen3 (arXiv 2505.09388): norms on queries and keys, a head size of its own, no biases unless asked for.

use super::qwen2::with_upper_window;
use super::{Architecture, Defaults, Family, Fields};
use crate::Result;

pub(super) static FAMILY: Family = Family {
    model_type: "qwen3",
    causal: "Qwen3ForCausalLM",
    classifier: "Qwen3ForSequenceClassification",
    defaults: Defaults { max_position_embeddings: 32_768, head_dim: Some(128), ..Defaults::LLAMA },
    describe,
};

fn describe(fields: &Fields<'_>, plain: Architecture) -> Result<Architecture> {
    let plain = with_upper_window(fields, plain)?.with_attention_bias(fields)?;
    Ok(Architecture { qk_norm: true, ..plain })
}
