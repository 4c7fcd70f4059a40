//! SmolLM3: LLaMA with layers that have no rotary embedding (NoPE, arXiv 2501.18795); optionally a sliding window in
//! those.

use serde_json::Value;

use super::{Architecture, Bias, Defaults, Family, Fields};
use crate::Result;

pub(super) static FAMILY: Family = Family {
    model_type: "smollm3",
    causal: "SmolLM3ForCausalLM",
    classifier: "SmolLM3ForSequenceClassification",
    defaults: Defaults {
        tie_word_embeddings: true,
        rope_theta: 2_000_000.0,
        max_position_embeddings: 32_768,
        ..Defaults::LLAMA
    },
    describe,
};

fn describe(fields: &Fields<'_>, plain: Architecture) -> Result<Architecture> {
    let mut plain = plain.with_attention_bias(fields)?;
    // The list says where rotary embeddings are, in spite of its name.
    let rotated = |value: &Value| match value.as_u64()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    };
    let listed = fields.per_layer("no_rope_layers", plain.layers.len(), rotated, "0 and 1")?;
    let interval = fields.maybe_size("no_rope_layer_interval")?.unwrap_or(4);
    for (l, layer) in plain.layers.iter_mut().enumerate() {
        let rotated = listed.as_ref().map_or((l + 1) % interval != 0, |listed| listed[l]);
        layer.rope = rotated.then_some(0);
    }
    let window = match fields.flag("use_sliding_window", false)? {
        true => fields.maybe_size("sliding_window")?,
        false => None,
    };
    let without: Vec<bool> = plain.layers.iter().map(|layer| layer.rope.is_none()).collect();
    let plain = plain.with_window(fields, window, |l| without[l])?;
    Ok(Architecture { bias: Bias { mlp: fields.flag("mlp_bias", false)?, ..plain.bias }, ..plain })
}
