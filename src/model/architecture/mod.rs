//! The architectures that can be read, and the one description that both forward passes follow.
//!
//! In: the fields of a `config.json`. Out: an [`Architecture`], or an error that names the architecture or the field
//! and what is supported.
//!
//! ```text
//! x = embedding_scale * embedding[id]
//! per layer   y = norm(x)    x += post_norm?(output(attention(query(y), key(y), value(y))))
//!             y = norm(x)    x += post_norm?(down(activation(gate(y)) * up(y)))
//! attention   q, k = rope?(norm?(q)), rope?(norm?(k))
//!             softmax(softcap?(q k' / sqrt(attention_scalar))) v, over the last sliding_window? positions
//! logits      softcap?(unembedding(norm(x)))
//! norm        (norm_offset + weight) * x / sqrt(mean(x^2) + eps)
//! ```
//! One file per family turns its fields into that, starting from what a plain LLaMA would be. To add a family: its
//! file, its line in [`FAMILIES`], a checkpoint in `scripts/fixtures/architectures.py`.

mod gemma;
mod gemma2;
mod gemma3;
mod llama;
mod mistral;
mod phi3;
mod qwen2;
mod qwen3;
mod rope;
mod smollm3;

use serde_json::Value;

use super::fields::Fields;
use crate::Result;
pub(crate) use rope::Rope;

/// Every family, in the order in which errors name them.
static FAMILIES: [&Family; 9] = [
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &smollm3::FAMILY,
    &phi3::FAMILY,
    &gemma::FAMILY,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
];

/// One architecture of transformers: its names, the defaults of its configuration class, and how to read the rest.
#[derive(Debug)]
pub(crate) struct Family {
    /// `model_type` in `config.json`.
    pub(crate) model_type: &'static str,
    /// Its name in `architectures`.
    pub(crate) causal: &'static str,
    /// The name of its sequence classifier.
    pub(crate) classifier: &'static str,
    pub(crate) defaults: Defaults,
    /// Turns the architecture that a plain LLaMA of these sizes would be into this family's.
    describe: fn(&Fields<'_>, Architecture) -> Result<Architecture>,
}

/// What transformers takes for a field that `config.json` lacks.
#[derive(Debug)]
pub(crate) struct Defaults {
    pub(crate) tie_word_embeddings: bool,
    pub(crate) rms_norm_eps: f64,
    pub(crate) rope_theta: f64,
    /// `None`: the hidden size over the heads.
    pub(crate) head_dim: Option<usize>,
    pub(crate) max_position_embeddings: usize,
    pub(crate) activation: Activation,
}

impl Defaults {
    const LLAMA: Defaults = Defaults {
        tie_word_embeddings: false,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        head_dim: None,
        max_position_embeddings: 2048,
        activation: Activation::Silu,
    };
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.causal == other.causal
    }
}

/// What a model computes, beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Architecture {
    pub(crate) family: &'static Family,
    /// The longest sequence, in tokens.
    pub(crate) context: usize,
    /// Whether query, key and value are one tensor (`qkv_proj`), and gate and up another (`gate_up_proj`).
    pub(crate) fused: bool,
    pub(crate) bias: Bias,
    /// Whether every head of queries and of keys goes through an RMSNorm before its rotation.
    pub(crate) qk_norm: bool,
    /// Whether what attention and the feed-forward part add to `x` goes through an RMSNorm of its own.
    pub(crate) post_norms: bool,
    /// Added to the weight of every norm.
    pub(crate) norm_offset: f64,
    pub(crate) activation: Activation,
    /// Embeddings are multiplied by it.
    pub(crate) embedding_scale: f64,
    /// Query times key is divided by its root.
    pub(crate) attention_scalar: f64,
    /// Attention scores become `cap * tanh(score / cap)`.
    pub(crate) attention_softcap: Option<f64>,
    /// Logits become `cap * tanh(logit / cap)`.
    pub(crate) logit_softcap: Option<f64>,
    /// How many positions, its own included, a position sees in a sliding layer.
    pub(crate) sliding_window: Option<usize>,
    /// The rotary embeddings that the layers choose from.
    pub(crate) ropes: Vec<Rope>,
    /// One per layer.
    pub(crate) layers: Vec<LayerKind>,
}

/// Which projections add a bias.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Bias {
    /// Query, key and value.
    pub(crate) qkv: bool,
    /// The output of attention.
    pub(crate) output: bool,
    /// Gate, up and down.
    pub(crate) mlp: bool,
}

/// In what layers differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LayerKind {
    /// Whether it sees the sliding window only.
    pub(crate) sliding: bool,
    /// Which of [`Architecture::ropes`] it has; `None` for a layer without positions (NoPE).
    pub(crate) rope: Option<usize>,
}

/// The function between gate and product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
}

/// The sizes that a description depends on.
pub(super) struct Sizes {
    pub(super) layers: usize,
    pub(super) head_dim: usize,
}

/// The family that `architectures`, or else `model_type`, names.
pub(super) fn family(fields: &Fields<'_>) -> Result<&'static Family> {
    let names = |of: fn(&Family) -> &'static str| FAMILIES.map(of).join(", ");
    match fields.get("architectures") {
        Some(value) => {
            let name = value.get(0).and_then(Value::as_str);
            let known = FAMILIES.into_iter().find(|f| name == Some(f.causal) || name == Some(f.classifier));
            known.ok_or_else(|| {
                let causal = names(|family| family.causal);
                let problem = format!(
                    "{value} is not supported; this version reads {causal}, and the ForSequenceClassification of each"
                );
                fields.wrong("architectures", problem)
            })
        }
        None => {
            let name = fields.get("model_type").and_then(Value::as_str);
            let known = FAMILIES.into_iter().find(|family| name == Some(family.model_type));
            known.ok_or_else(|| {
                let name = name.unwrap_or("(missing)");
                let types = names(|family| family.model_type);
                fields.wrong("model_type", format!("{name:?} is not supported; this version reads {types}"))
            })
        }
    }
}

/// Reads the description.
pub(super) fn describe(fields: &Fields<'_>, family: &'static Family, sizes: &Sizes) -> Result<Architecture> {
    check_unsupported(fields)?;
    let longest = fields.maybe_size("max_position_embeddings")?.unwrap_or(family.defaults.max_position_embeddings);
    let (rope, context) = Rope::read(fields, "full_attention", family.defaults.rope_theta, sizes.head_dim, longest)?;
    let plain = Architecture {
        family,
        context,
        fused: false,
        bias: Bias::default(),
        qk_norm: false,
        post_norms: false,
        norm_offset: 0.0,
        activation: activation(fields, "hidden_act", family.defaults.activation)?,
        embedding_scale: 1.0,
        attention_scalar: sizes.head_dim as f64,
        attention_softcap: None,
        logit_softcap: None,
        sliding_window: None,
        ropes: vec![rope],
        layers: vec![LayerKind { sliding: false, rope: Some(0) }; sizes.layers],
    };
    (family.describe)(fields, plain)
}

/// The activation that a field names.
fn activation(fields: &Fields<'_>, name: &str, default: Activation) -> Result<Activation> {
    match fields.get(name).map(|value| (value, value.as_str())) {
        None => Ok(default),
        Some((_, Some("silu"))) => Ok(Activation::Silu),
        Some((_, Some("gelu_pytorch_tanh"))) => Ok(Activation::GeluTanh),
        Some((value, _)) => {
            Err(fields
                .wrong(name, format!("{value} is not supported; this version computes silu and gelu_pytorch_tanh")))
        }
    }
}

/// Fields of any family that would change the arithmetic, with the value that does not.
fn check_unsupported(fields: &Fields<'_>) -> Result<()> {
    if fields.get("quantization_config").is_some() {
        let problem = "quantised weights are not supported; use f32, bf16 or f16";
        return Err(fields.wrong("quantization_config", problem));
    }
    for (name, neutral) in [
        ("use_bidirectional_attention", Value::from(false)),
        ("attention_chunk_size", Value::Null),
        ("num_experts", Value::from(0)),
        ("num_local_experts", Value::from(0)),
    ] {
        if let Some(value) = fields.get(name).filter(|value| **value != neutral) {
            let problem = format!("{value} is not supported; this version computes dense, causal decoders only");
            return Err(fields.wrong(name, problem));
        }
    }
    Ok(())
}

impl Architecture {
    /// With biases for all four projections of attention where `attention_bias` says so.
    fn with_attention_bias(self, fields: &Fields<'_>) -> Result<Self> {
        let bias = fields.flag("attention_bias", false)?;
        Ok(Architecture { bias: Bias { qkv: bias, output: bias, ..self.bias }, ..self })
    }

    /// With a window for the layers that `layer_types` names, or else for those that `sliding` says.
    fn with_window(
        mut self,
        fields: &Fields<'_>,
        window: Option<usize>,
        sliding: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let kind = |value: &Value| match value.as_str()? {
            "full_attention" => Some(false),
            "sliding_attention" => Some(true),
            _ => None,
        };
        let allowed = "full_attention and sliding_attention";
        let named = fields.per_layer("layer_types", self.layers.len(), kind, allowed)?;
        for (l, layer) in self.layers.iter_mut().enumerate() {
            layer.sliding = match &named {
                Some(kinds) => kinds[l],
                None => window.is_some() && sliding(l),
            };
        }
        if window.is_none() && self.layers.iter().any(|layer| layer.sliding) {
            return Err(fields.wrong("sliding_window", "missing; layer_types has sliding_attention layers"));
        }
        self.sliding_window = window.filter(|_| self.layers.iter().any(|layer| layer.sliding));
        Ok(self)
    }

    /// The window of layer `l`.
    pub(crate) fn window(&self, l: usize) -> Option<usize> {
        self.sliding_window.filter(|_| self.layers.get(l).is_some_and(|layer| layer.sliding))
    }
}
