//! LLaMA 1, 2 and 3 (arXiv 2302.13971, 2307.09288, 2407.21783), and everything of the same layout such as SmolLM2.

use super::{Architecture, Bias, Defaults, Family, Fields};
use crate::Result;

pub(super) static FAMILY: Family = Family {
    model_type: "llama",
    causal: "LlamaForCausalLM",
    classifier: "LlamaForSequenceClassification",
    defaults: Defaults::LLAMA,
    describe,
};

fn describe(fields: &Fields<'_>, plain: Architecture) -> Result<Architecture> {
    let plain = plain.with_attention_bias(fields)?;
    Ok(Architecture { bias: Bias { mlp: fields.flag("mlp_bias", false)?, ..plain.bias }, ..plain })
}
