//! Random checkpoints for the engine's tests, and a slow plain decoder in f64 to compare with.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::executor::block_on;
use salmon::draw::{Key, key};
use salmon::engine::{Engine, EngineOptions, Inference, Output, Request, Sampling, Task};
use salmon::model::{Head, ModelConfig, Tokenizer};
use serde_json::json;
use tch::Tensor;

/// Sizes of a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) vocab: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) context: usize,
    pub(crate) tied: bool,
}

/// The pocket world's shape.
pub(crate) const POCKET: Sizes = Sizes {
    vocab: 260,
    hidden: 64,
    intermediate: 192,
    layers: 4,
    heads: 2,
    kv_heads: 2,
    head_dim: 32,
    context: 256,
    tied: true,
};

/// Grouped queries; nothing is a multiple of a vector.
pub(crate) const ODD: Sizes = Sizes {
    vocab: 97,
    hidden: 42,
    intermediate: 101,
    layers: 2,
    heads: 6,
    kv_heads: 2,
    head_dim: 10,
    context: 130,
    tied: false,
};

#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    pub(crate) config: ModelConfig,
    pub(crate) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Checkpoint {
    pub(crate) fn random(s: Sizes, seed: u64) -> Self {
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, shape: &[usize]| {
            let draws = key(seed, &[&name]);
            // Logits of about 1 either way: an embedding is read as it is, everything else is summed over.
            let fan_in = shape[shape.len() - 1] as f64;
            let scale = if name == "model.embed_tokens.weight" { 0.15 } else { 1.2 / fan_in.sqrt() };
            let value = |i| match shape.len() {
                1 => 1.0 + 0.2 * draws.normal(i),
                _ => scale * draws.normal(i),
            };
            let values = (0..shape.iter().product::<usize>() as u64).map(|i| value(i) as f32).collect();
            tensors.insert(name, (shape.to_vec(), values));
        };
        add("model.embed_tokens.weight".into(), &[s.vocab, s.hidden]);
        for i in 0..s.layers {
            let (q, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
            for (name, shape) in [
                ("input_layernorm", vec![s.hidden]),
                ("self_attn.q_proj", vec![q, s.hidden]),
                ("self_attn.k_proj", vec![kv, s.hidden]),
                ("self_attn.v_proj", vec![kv, s.hidden]),
                ("self_attn.o_proj", vec![s.hidden, q]),
                ("post_attention_layernorm", vec![s.hidden]),
                ("mlp.gate_proj", vec![s.intermediate, s.hidden]),
                ("mlp.up_proj", vec![s.intermediate, s.hidden]),
                ("mlp.down_proj", vec![s.hidden, s.intermediate]),
            ] {
                add(format!("model.layers.{i}.{name}.weight"), &shape);
            }
        }
        add("model.norm.weight".into(), &[s.hidden]);
        if !s.tied {
            add("lm_head.weight".into(), &[s.vocab, s.hidden]);
        }
        add("score.weight".into(), &[1, s.hidden]);
        Checkpoint { config: config(s), tensors }
    }

    pub(crate) fn weights(&self) -> BTreeMap<String, Tensor> {
        let tensor = |shape: &[usize], values: &[f32]| {
            Tensor::from_slice(values).view(shape.iter().map(|&n| n as i64).collect::<Vec<_>>().as_slice())
        };
        self.tensors.iter().map(|(name, (shape, values))| (name.clone(), tensor(shape, values))).collect()
    }

    pub(crate) fn engine(&self, head: Head, options: EngineOptions) -> Engine {
        Engine::new(&self.config, self.weights(), words(self.config.vocab_size), head, options).unwrap()
    }

    fn get(&self, name: &str) -> Vec<f64> {
        self.tensors[&format!("{name}.weight")].1.iter().map(|&x| f64::from(x)).collect()
    }

    /// The final hidden state at every position.
    pub(crate) fn reference_hidden(&self, ids: &[u32]) -> Vec<Vec<f64>> {
        let c = &self.config;
        let (hidden, dim) = (c.hidden_size, c.head_dim);
        let embedding = self.get("model.embed_tokens");
        let mut x: Vec<Vec<f64>> = ids.iter().map(|&id| embedding[id as usize * hidden..][..hidden].to_vec()).collect();
        for i in 0..c.num_hidden_layers {
            let get = |name: &str| self.get(&format!("model.layers.{i}.{name}"));
            let normed = norm(&x, &get("input_layernorm"), c.rms_norm_eps);
            let mut q = product(&normed, &get("self_attn.q_proj"));
            let mut k = product(&normed, &get("self_attn.k_proj"));
            let v = product(&normed, &get("self_attn.v_proj"));
            for (position, row) in q.iter_mut().chain(k.iter_mut()).enumerate() {
                rotate(row, position % ids.len(), dim, c.rope_theta);
            }
            let group = c.num_attention_heads / c.num_key_value_heads;
            let mut attended = vec![vec![0.0; c.num_attention_heads * dim]; ids.len()];
            for t in 0..ids.len() {
                for head in 0..c.num_attention_heads {
                    let (mine, theirs) = (head * dim, head / group * dim);
                    let dot = |u: usize| (0..dim).map(|j| q[t][mine + j] * k[u][theirs + j]).sum::<f64>();
                    let scores: Vec<f64> = (0..=t).map(|u| dot(u) / (dim as f64).sqrt()).collect();
                    let total = log_sum_exp(&scores);
                    for (u, score) in scores.iter().enumerate() {
                        for j in 0..dim {
                            attended[t][mine + j] += (score - total).exp() * v[u][theirs + j];
                        }
                    }
                }
            }
            add(&mut x, &product(&attended, &get("self_attn.o_proj")));
            let normed = norm(&x, &get("post_attention_layernorm"), c.rms_norm_eps);
            let mut gate = product(&normed, &get("mlp.gate_proj"));
            let up = product(&normed, &get("mlp.up_proj"));
            for (g, u) in gate.iter_mut().flatten().zip(up.iter().flatten()) {
                *g *= u / (1.0 + (-*g).exp());
            }
            add(&mut x, &product(&gate, &get("mlp.down_proj")));
        }
        norm(&x, &self.get("model.norm"), c.rms_norm_eps)
    }

    /// The logits after every position.
    pub(crate) fn reference_logits(&self, ids: &[u32]) -> Vec<Vec<f64>> {
        let name = if self.config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
        product(&self.reference_hidden(ids), &self.get(name))
    }

    /// The linear head's score after the last position.
    pub(crate) fn reference_score(&self, ids: &[u32]) -> f64 {
        product(&self.reference_hidden(ids), &self.get("score"))[ids.len() - 1][0]
    }
}

pub(crate) fn config(s: Sizes) -> ModelConfig {
    let json = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": s.vocab, "hidden_size": s.hidden,
        "intermediate_size": s.intermediate, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "head_dim": s.head_dim, "rms_norm_eps": 1e-5, "rope_theta": 5000.0,
        "max_position_embeddings": s.context, "tie_word_embeddings": s.tied,
    });
    ModelConfig::from_json(json.as_object().unwrap().clone(), "config.json").unwrap()
}

/// A tokenizer whose tokens are the words `w0`, `w1`, ..
pub(crate) fn words(vocab: usize) -> Arc<Tokenizer> {
    spelled(&(0..vocab).map(|i| format!("w{i} ")).collect::<Vec<_>>())
}

/// A tokenizer with these token texts, joined without anything between them.
pub(crate) fn spelled(texts: &[String]) -> Arc<Tokenizer> {
    let vocab: BTreeMap<&str, usize> = texts.iter().enumerate().map(|(i, text)| (text.as_str(), i)).collect();
    let json = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Fuse"}, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": texts[0]},
    });
    Arc::new(Tokenizer::from_bytes(json.to_string().as_bytes(), "tokenizer.json").unwrap())
}

/// `len` tokens of a fixed random text.
pub(crate) fn text(name: &str, len: usize, vocab: usize) -> Vec<u32> {
    let draws = key(11, &[name]);
    (0..len as u64).map(|i| draws.below(i, vocab as u64) as u32).collect()
}

pub(crate) fn greedy(max_tokens: usize) -> Arc<Sampling> {
    Arc::new(Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, max_tokens, stop: Vec::new() })
}

pub(crate) fn generate(prompt: Vec<u32>, sampling: &Arc<Sampling>, key: Key) -> Request {
    Request { prompt, task: Task::Generate { sampling: Arc::clone(sampling), key } }
}

pub(crate) fn run(engine: &Engine, requests: Vec<Request>) -> Vec<Output> {
    block_on(engine.submit(requests)).unwrap()
}

/// All logits after a prompt.
pub(crate) fn all_logits(engine: &Engine, vocab: usize, prompt: &[u32]) -> Vec<f32> {
    let task = Task::Choice { tokens: (0..vocab as u32).collect() };
    match run(engine, vec![Request { prompt: prompt.to_vec(), task }]).remove(0) {
        Output::Logits(logits) => logits,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn log_sum_exp(x: &[f64]) -> f64 {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

fn norm(x: &[Vec<f64>], weight: &[f64], eps: f64) -> Vec<Vec<f64>> {
    let one = |row: &Vec<f64>| {
        let scale = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + eps).sqrt();
        row.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
    };
    x.iter().map(one).collect()
}

fn product(x: &[Vec<f64>], weight: &[f64]) -> Vec<Vec<f64>> {
    let one = |row: &Vec<f64>| weight.chunks(row.len()).map(|w| row.iter().zip(w).map(|(x, w)| x * w).sum()).collect();
    x.iter().map(one).collect()
}

fn add(x: &mut [Vec<f64>], y: &[Vec<f64>]) {
    for (x, y) in x.iter_mut().flatten().zip(y.iter().flatten()) {
        *x += y;
    }
}

/// Rotary embedding of every head of a row: element `j` is paired with `j + dim / 2`.
fn rotate(row: &mut [f64], position: usize, dim: usize, theta: f64) {
    for head in row.chunks_mut(dim) {
        for j in 0..dim / 2 {
            let angle = position as f64 / theta.powf(2.0 * j as f64 / dim as f64);
            let (a, b) = (head[j], head[j + dim / 2]);
            head[j] = a * angle.cos() - b * angle.sin();
            head[j + dim / 2] = b * angle.cos() + a * angle.sin();
        }
    }
}
