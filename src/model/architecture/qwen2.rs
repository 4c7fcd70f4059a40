//! Qwen2 and Qwen2.5 (arXiv 2407.10671, 2412.15115): biases on query, key and value; optionally a sliding window in
//! the upper layers.

use super::{Architecture, Bias, Defaults, Family, Fields};
use crate::Result;

pub(super) static FAMILY: Family = Family {
    model_type: "qwen2",
    causal: "Qwen2ForCausalLM",
    classifier: "Qwen2ForSequenceClassification",
    defaults: Defaults { max_position_embeddings: 32_768, ..Defaults::LLAMA },
    describe,
};

fn describe(fields: &Fields<'_>, plain: Architecture) -> Result<Architecture> {
    let plain = with_upper_window(fields, plain)?;
    Ok(Architecture { bias: Bias { qkv: true, ..Bias::default() }, ..plain })
}

/// With `use_sliding_window`, the layers from `max_window_layers` on see a window.
pub(super) fn with_upper_window(fields: &Fields<'_>, plain: Architecture) -> Result<Architecture> {
    let window = match fields.flag("use_sliding_window", false)? {
        true => fields.size_or("sliding_window", 4096)?,
        false => None,
    };
    // 0 is allowed: every layer.
    let full = match fields.get("max_window_layers") {
        None => 28,
        Some(value) => match value.as_u64() {
            Some(layers) => layers as usize,
            None => return Err(fields.wrong("max_window_layers", format!("{value} is not a whole number"))),
        },
    };
    plain.with_window(fields, window, |l| l >= full)
}
