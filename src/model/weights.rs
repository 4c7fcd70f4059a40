//! The tensors of a model: their names, their shapes, and where each is used.
//!
//! In: a source of tensors by name. Out: [`Weights`], whose members the forward pass reads.

use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::matrix::{Matrix, QuantizationConfig, Quantizer};
use crate::Result;

/// One linear map of a layer.
#[derive(Debug)]
pub(crate) struct Projection {
    /// The last part of its path.
    pub(crate) name: &'static str,
    /// `self_attn` or `mlp`.
    block: &'static str,
}

const fn attention(name: &'static str) -> Projection {
    Projection { name, block: "self_attn" }
}

const fn mlp(name: &'static str) -> Projection {
    Projection { name, block: "mlp" }
}

static SEPARATE: [Projection; 7] = [
    attention("q_proj"),
    attention("k_proj"),
    attention("v_proj"),
    attention("o_proj"),
    mlp("gate_proj"),
    mlp("up_proj"),
    mlp("down_proj"),
];

static FUSED: [Projection; 4] = [attention("qkv_proj"), attention("o_proj"), mlp("gate_up_proj"), mlp("down_proj")];

/// The projections of any architecture.
pub(crate) const PROJECTIONS: [&str; 9] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj"];

/// The projections of a layer, in the order of [`Layer::projections`].
pub(crate) fn projections(config: &ModelConfig) -> &'static [Projection] {
    if config.architecture.fused { &FUSED } else { &SEPARATE }
}

/// The module path of a projection of layer `l`, for example `model.layers.0.self_attn.q_proj`.
pub(crate) fn module(l: usize, projection: &Projection) -> String {
    format!("model.layers.{l}.{}.{}", projection.block, projection.name)
}

/// `[out, in]` of a projection.
pub(crate) fn projection_shape(config: &ModelConfig, projection: &Projection) -> [i64; 2] {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let [out, input] = match projection.name {
        "q_proj" => [queries, hidden],
        "k_proj" | "v_proj" => [keys, hidden],
        "qkv_proj" => [queries + 2 * keys, hidden],
        "o_proj" => [hidden, queries],
        "down_proj" => [hidden, inner],
        "gate_up_proj" => [2 * inner, hidden],
        _ => [inner, hidden],
    };
    [out as i64, input as i64]
}

/// Whether a projection adds a bias.
fn has_bias(config: &ModelConfig, projection: &Projection) -> bool {
    let bias = config.architecture.bias;
    match (projection.block, projection.name) {
        ("self_attn", "o_proj") => bias.output,
        ("self_attn", _) => bias.qkv,
        _ => bias.mlp,
    }
}

/// The weight of a projection, and its bias if it has one.
pub(crate) struct Linear {
    kind: &'static Projection,
    /// `[out, in]`.
    pub(crate) weight: Matrix,
    /// `[out]`.
    pub(crate) bias: Option<Tensor>,
}

/// One transformer layer.
pub(crate) struct Layer {
    /// RMSNorm before attention, `[hidden]`.
    pub(crate) input_norm: Tensor,
    /// RMSNorm before the feed-forward part, `[hidden]`.
    pub(crate) mlp_norm: Tensor,
    /// RMSNorms of what attention and the feed-forward part add, `[hidden]` each, where the architecture has them.
    pub(crate) post_norms: Option<[Tensor; 2]>,
    /// RMSNorms of the heads of queries and of keys, `[head_dim]` each, where the architecture has them.
    pub(crate) qk_norms: Option<[Tensor; 2]>,
    /// In the order of [`projections`].
    pub(crate) projections: Vec<Linear>,
}

/// All weights of the backbone.
pub(crate) struct Weights {
    /// `[vocab, hidden]`.
    pub(crate) embedding: Tensor,
    /// The layers in order.
    pub(crate) layers: Vec<Layer>,
    /// The last RMSNorm, `[hidden]`.
    pub(crate) norm: Tensor,
    /// The unembedding `[vocab, hidden]` where it is not the embedding.
    pub(crate) lm_head: Option<Tensor>,
}

pub(crate) const LM_HEAD: &str = "lm_head.weight";

/// The norms before attention and before the feed-forward part. `post_attention_layernorm` is what it says only where
/// there are norms after both.
pub(crate) fn norm_names(post_norms: bool) -> [&'static str; 2] {
    ["input_layernorm", if post_norms { "pre_feedforward_layernorm" } else { "post_attention_layernorm" }]
}

/// The norms after attention and after the feed-forward part.
pub(crate) const POST_NORMS: [&str; 2] = ["post_attention_layernorm", "post_feedforward_layernorm"];

/// The norms of the heads of queries and of keys.
pub(crate) const QK_NORMS: [&str; 2] = ["self_attn.q_norm", "self_attn.k_norm"];

/// The full name of a norm of layer `l`.
fn norm_name(l: usize, name: &str) -> String {
    format!("model.layers.{l}.{name}.weight")
}

impl Layer {
    /// Asks `take` for the tensors of layer `l` by name and shape.
    pub(crate) fn plain(
        config: &ModelConfig,
        l: usize,
        take: &mut impl FnMut(&str, &[i64]) -> Result<Tensor>,
    ) -> Result<Self> {
        Layer::build(config, l, &Quantizer::new(QuantizationConfig::default(), Device::Cpu), take)
    }

    fn build(
        config: &ModelConfig,
        l: usize,
        quantizer: &Quantizer,
        take: &mut impl FnMut(&str, &[i64]) -> Result<Tensor>,
    ) -> Result<Self> {
        let (hidden, architecture) = (config.hidden_size, &config.architecture);
        let mut pair = |names: [&str; 2], width: usize| -> Result<[Tensor; 2]> {
            let [first, second] = names.map(|name| take(&norm_name(l, name), &[width as i64]));
            Ok([first?, second?])
        };
        let [input_norm, mlp_norm] = pair(norm_names(architecture.post_norms), hidden)?;
        let post_norms = if architecture.post_norms { Some(pair(POST_NORMS, hidden)?) } else { None };
        let qk_norms = if architecture.qk_norm { Some(pair(QK_NORMS, config.head_dim)?) } else { None };
        let mut linear = |kind| {
            let (path, shape) = (module(l, kind), projection_shape(config, kind));
            let weight = quantizer.matrix(take(&format!("{path}.weight"), &shape)?);
            let bias = has_bias(config, kind);
            let bias = if bias { Some(take(&format!("{path}.bias"), &shape[..1])?) } else { None };
            Ok(Linear { kind, weight, bias })
        };
        let projections = projections(config).iter().map(&mut linear).collect::<Result<_>>()?;
        Ok(Layer { input_norm, mlp_norm, post_norms, qk_norms, projections })
    }

    /// Every weight of layer `l` with its name, in a fixed order; no copies.
    fn named(&self, l: usize) -> Vec<(String, Matrix)> {
        let [input, mlp] = norm_names(self.post_norms.is_some());
        let norm = |name: &str, tensor: &Tensor| (norm_name(l, name), Matrix::Dense(tensor.shallow_clone()));
        let mut out = vec![norm(input, &self.input_norm), norm(mlp, &self.mlp_norm)];
        for (names, tensors) in [(POST_NORMS, &self.post_norms), (QK_NORMS, &self.qk_norms)] {
            out.extend(names.into_iter().zip(tensors.iter().flatten()).map(|(name, tensor)| norm(name, tensor)));
        }
        for linear in &self.projections {
            let path = module(l, linear.kind);
            out.push((format!("{path}.weight"), linear.weight.map(Tensor::shallow_clone)));
            let bias = linear.bias.as_ref().map(|bias| Matrix::Dense(bias.shallow_clone()));
            out.extend(bias.map(|bias| (format!("{path}.bias"), bias)));
        }
        out
    }

    fn map(&self, f: &impl Fn(&Tensor) -> Tensor) -> Layer {
        let pair = |pair: &Option<[Tensor; 2]>| pair.as_ref().map(|pair| pair.each_ref().map(f));
        let linear = |linear: &Linear| Linear {
            kind: linear.kind,
            weight: linear.weight.map(f),
            bias: linear.bias.as_ref().map(f),
        };
        Layer {
            input_norm: f(&self.input_norm),
            mlp_norm: f(&self.mlp_norm),
            post_norms: pair(&self.post_norms),
            qk_norms: pair(&self.qk_norms),
            projections: self.projections.iter().map(linear).collect(),
        }
    }
}

impl Weights {
    /// Asks `take` for every tensor by name and shape. `untied`: whether there is an unembedding of its own.
    /// Projections are quantised one by one as they come.
    pub(crate) fn build(
        config: &ModelConfig,
        untied: bool,
        quantizer: &Quantizer,
        mut take: impl FnMut(&str, &[i64]) -> Result<Tensor>,
    ) -> Result<Self> {
        let (vocab, hidden) = (config.vocab_size as i64, config.hidden_size as i64);
        let embedding = take("model.embed_tokens.weight", &[vocab, hidden])?;
        let layers = (0..config.num_hidden_layers)
            .map(|l| Layer::build(config, l, quantizer, &mut take))
            .collect::<Result<_>>()?;
        let norm = take("model.norm.weight", &[hidden])?;
        let lm_head = if untied { Some(take(LM_HEAD, &[vocab, hidden])?) } else { None };
        Ok(Weights { embedding, layers, norm, lm_head })
    }

    /// Every tensor with its name, in a fixed order; quantised ones as f32 copies.
    pub(crate) fn named(&self) -> Vec<(String, Tensor)> {
        let mut out = vec![("model.embed_tokens.weight".to_string(), self.embedding.shallow_clone())];
        let tensor = |(name, matrix): (String, Matrix)| {
            let tensor = matrix.plain().map_or_else(|| matrix.dense(Kind::Float), Tensor::shallow_clone);
            (name, tensor)
        };
        out.extend(self.layers.iter().enumerate().flat_map(|(l, layer)| layer.named(l)).map(tensor));
        out.push(("model.norm.weight".to_string(), self.norm.shallow_clone()));
        out.extend(self.lm_head.as_ref().map(|tensor| (LM_HEAD.to_string(), tensor.shallow_clone())));
        out
    }

    /// The weight with this name; no copy.
    pub(crate) fn get(&self, name: &str) -> Option<Matrix> {
        let plain = |tensor: &Tensor| Matrix::Dense(tensor.shallow_clone());
        match name {
            "model.embed_tokens.weight" => return Some(plain(&self.embedding)),
            "model.norm.weight" => return Some(plain(&self.norm)),
            LM_HEAD => return self.lm_head.as_ref().map(plain),
            _ => {}
        }
        let l: usize = name.strip_prefix("model.layers.")?.split_once('.')?.0.parse().ok()?;
        self.layers.get(l)?.named(l).into_iter().find(|(own, _)| own == name).map(|(_, weight)| weight)
    }

    /// Whether any projection is quantised.
    pub(crate) fn is_quantized(&self) -> bool {
        self.layers.iter().flat_map(|layer| &layer.projections).any(|linear| linear.weight.plain().is_none())
    }

    /// The same weights with `f` applied to each that is not quantised.
    pub(crate) fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Weights {
        Weights {
            embedding: f(&self.embedding),
            layers: self.layers.iter().map(|layer| layer.map(&f)).collect(),
            norm: f(&self.norm),
            lm_head: self.lm_head.as_ref().map(&f),
        }
    }

    /// The tensor that turns hidden states into logits, if the checkpoint has one.
    pub(crate) fn unembedding(&self, tied: bool) -> Option<&Tensor> {
        if tied { Some(&self.embedding) } else { self.lm_head.as_ref() }
    }
}
