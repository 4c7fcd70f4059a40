//! Mistral (arXiv 2310.06825): a sliding window in every layer, unless `sliding_window` is null.

use super::{Architecture, Defaults, Family, Fields};
use crate::Result;

pub(super) static FAMILY: Family = Family {
    model_type: "mistral",
    causal: "MistralForCausalLM",
    classifier: "MistralForSequenceClassification",
    defaults: Defaults { max_position_embeddings: 131_072, ..Defaults::LLAMA },
    describe,
};

fn describe(fields: &Fields<'_>, plain: Architecture) -> Result<Architecture> {
    plain.with_window(fields, fields.size_or("sliding_window", 4096)?, |_| true)
}
