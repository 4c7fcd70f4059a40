//! A model that nobody trained: a Hugging Face LLaMA folder with random weights and a byte-level BPE.
//!
//! In: texts to learn the vocabulary from, sizes, a seed. Out: `config.json`, `model.safetensors` and
//! `tokenizer.json`, the same bytes for the same input. The tests use it and so does `examples/random_llama.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use salmon::draw::key;
use salmon::model::{ModelConfig, Network};
use salmon::{Error, Result};
use serde_json::json;
use tch::Tensor;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

/// The sizes of a model.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Entries of the vocabulary at most; 256 bytes and three special tokens are always in it.
    pub vocab: usize,
    /// Width of the residual stream, a multiple of 8: there are four heads, in two groups.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// The context, in tokens.
    pub context: usize,
}

/// Writes the folder.
pub fn write(folder: &Path, texts: &[String], shape: Shape, seed: u64) -> Result<()> {
    let (tokenizer, vocab) = tokenizer(texts, shape.vocab)?;
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab,
        "hidden_size": shape.hidden, "intermediate_size": 3 * shape.hidden, "num_hidden_layers": shape.layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "float32"
    });
    let config = config.as_object().cloned().unwrap_or_default();
    let tensors = weights(vocab, shape, seed);
    let files = BTreeMap::from([("tokenizer.json".to_string(), tokenizer.into_bytes())]);
    Network::from_tensors(ModelConfig::from_json(config, "random model")?, tensors, files)?.save(folder)?;
    Ok(())
}

/// `tokenizer.json` and how many entries it has.
fn tokenizer(texts: &[String], vocab: usize) -> Result<(String, usize)> {
    let bad = |e: tokenizers::Error| Error::model("random model", "the tokenizer cannot be trained").because(e);
    let special = ["<pad>", "<s>", "</s>"].map(|text| AddedToken::from(text, true)).to_vec();
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocab)
        .special_tokens(special)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = TokenizerBuilder::<BPE, NFC, ByteLevel, ByteLevel, ByteLevel>::new()
        .with_model(BPE::default())
        .with_normalizer(None)
        .with_pre_tokenizer(Some(bytes))
        .with_post_processor(Some(bytes))
        .with_decoder(Some(bytes))
        .build()
        .map_err(bad)?;
    tokenizer.train(&mut trainer, texts.iter()).map_err(bad)?;
    let vocab = tokenizer.get_vocab_size(true);
    Ok((tokenizer.to_string(false).map_err(bad)?, vocab))
}

/// Normal weights, scaled so that activations keep their size and some tokens are likelier than others.
fn weights(vocab: usize, shape: Shape, seed: u64) -> BTreeMap<String, Tensor> {
    let (hidden, inner) = (shape.hidden, 3 * shape.hidden);
    let mut matrices = vec![
        ("model.embed_tokens.weight".to_string(), vocab, hidden, 1.0),
        ("lm_head.weight".to_string(), vocab, hidden, 2.0 / (hidden as f64).sqrt()),
    ];
    let mut norms = vec!["model.norm.weight".to_string()];
    for layer in 0..shape.layers {
        let at = |name: &str| format!("model.layers.{layer}.{name}.weight");
        // Sharp attention: what the model says depends on a few places of its prompt, not on all of them alike.
        let projections = [
            ("self_attn.q_proj", hidden, hidden, 2.0),
            ("self_attn.k_proj", hidden / 2, hidden, 2.0),
            ("self_attn.v_proj", hidden / 2, hidden, 1.0),
            ("self_attn.o_proj", hidden, hidden, 2.0),
            ("mlp.gate_proj", inner, hidden, 1.0),
            ("mlp.up_proj", inner, hidden, 1.0),
            ("mlp.down_proj", hidden, inner, 1.0),
        ];
        let scaled = |gain: f64, input: usize| gain / (input as f64).sqrt();
        matrices.extend(projections.map(|(name, out, input, gain)| (at(name), out, input, scaled(gain, input))));
        norms.extend(["input_layernorm", "post_attention_layernorm"].map(at));
    }
    let mut tensors = BTreeMap::new();
    for (name, out, input, scale) in matrices {
        let stream = key(seed, &[&name]);
        let values: Vec<f32> = (0..(out * input) as u64).map(|i| (scale * stream.normal(i)) as f32).collect();
        tensors.insert(name, Tensor::from_slice(&values).view([out as i64, input as i64]));
    }
    for name in norms {
        tensors.insert(name, Tensor::from_slice(&vec![1f32; hidden]));
    }
    tensors
}
