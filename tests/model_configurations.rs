//! `config.json` of every architecture: what follows from it, what is written back, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use salmon::draw::key;
use salmon::model::{Head, ModelConfig, Network};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::model_architectures::{each, folder, json_of, logits, open_with};

#[test]
fn what_is_saved_is_what_was_read() {
    each(|name, network, _| {
        let network =
            if name == "llama" { network } else { Network::open(&folder(name), Kind::BFloat16, Device::Cpu).unwrap() };
        let names = json_of(&folder(name).join("expected.json"));
        let place = tempfile::tempdir().unwrap();
        network.save(place.path()).unwrap();
        let before = Tensor::read_safetensors(folder(name).join("model.safetensors")).unwrap();
        let after: BTreeMap<String, Tensor> =
            Tensor::read_safetensors(place.path().join("model.safetensors")).unwrap().into_iter().collect();
        assert_eq!(before.len(), after.len(), "{name}");
        for (tensor, value) in &before {
            assert!(after[tensor].to_kind(Kind::Float).equal(&value.to_kind(Kind::Float)), "{name}: {tensor}");
        }
        let config = json_of(&place.path().join("config.json"));
        assert_eq!(config["architectures"], json!([names["causal"]]), "{name}");
        assert_eq!(config["model_type"], names["model_type"], "{name}");
        for (field, value) in json_of(&folder(name).join("config.json")).as_object().unwrap() {
            assert!(field.ends_with("dtype") || config[field] == *value, "{name}: {field}");
        }
        network.with_head(Head::Linear, key(1, &[])).unwrap().save(place.path()).unwrap();
        let config = json_of(&place.path().join("config.json"));
        assert_eq!(config["architectures"], json!([names["classifier"]]), "{name}");
    });
}

/// Fields as transformers 5 writes them.
#[test]
fn newer_configurations_mean_the_same() {
    let take = |config: &mut Value, name: &str| config.as_object_mut().unwrap().shift_remove(name).unwrap();
    each(|name, network, expected| {
        let again = open_with(name, |config| {
            let scaling = config.as_object_mut().unwrap().shift_remove("rope_scaling").unwrap_or(Value::Null);
            let mut rope = if scaling.is_null() { json!({"rope_type": "default"}) } else { scaling };
            rope["rope_theta"] = take(config, "rope_theta");
            config["rope_parameters"] = match name {
                "gemma3" => json!({
                    "full_attention": rope,
                    "sliding_attention": {"rope_type": "default", "rope_theta": take(config, "rope_local_base_freq")},
                }),
                _ => rope,
            };
        });
        let ids = &expected["ids"];
        assert!(logits(&again.unwrap(), ids).equal(&logits(&network, ids)), "{name}");
    });
}

#[test]
fn contexts_follow_from_the_scaling() {
    for (name, context) in [
        ("llama", 128),
        ("llama_linear", 128),
        ("llama_dynamic", 128),
        ("llama_yarn", 128),
        ("phi3_longrope", 96),
        ("gemma3", 128),
    ] {
        assert_eq!(ModelConfig::open(&folder(name)).unwrap().max_position_embeddings, context, "{name}");
    }
    let network = Network::open(&folder("phi3_longrope"), Kind::Float, Device::Cpu).unwrap();
    let error = network.hidden(&Tensor::ones([1, 97], (Kind::Int64, Device::Cpu))).unwrap_err().to_string();
    assert!(error.contains("97 tokens are more than the model's context of 96"), "{error}");
}

/// What the published folders say, as far as it decides anything here.
#[test]
fn published_configurations_are_read() {
    let read = |fields: Value| {
        let config = ModelConfig::from_json(fields.as_object().unwrap().clone(), "config.json").unwrap();
        (config.max_position_embeddings, config.head_dim, config.tie_word_embeddings)
    };
    let llama3 = json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 128256,
    });
    assert_eq!(read(llama3), (131072, 64, true));
    let mistral = json!({
        "architectures": ["MistralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
        "tie_word_embeddings": false, "vocab_size": 32000,
    });
    assert_eq!(read(mistral), (32768, 128, false));
    let qwen2 = json!({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 3584, "intermediate_size": 18944,
        "max_position_embeddings": 32768, "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 28,
        "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 131072, "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 152064,
        "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
    });
    assert_eq!(read(qwen2), (131072, 128, false));
    let qwen3 = json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
        "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
        "tie_word_embeddings": true, "use_sliding_window": false, "vocab_size": 151936,
    });
    assert_eq!(read(qwen3), (40960, 128, true));
    let phi = json!({
        "architectures": ["Phi3ForCausalLM"], "attention_bias": false, "embd_pdrop": 0.0, "hidden_act": "silu",
        "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 131072, "model_type": "phi3",
        "num_attention_heads": 24, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "original_max_position_embeddings": 4096, "partial_rotary_factor": 0.75, "rms_norm_eps": 1e-05,
        "rope_scaling": {"long_factor": vec![1.5; 48], "short_factor": vec![1.0; 48], "type": "longrope"},
        "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": true, "vocab_size": 200064,
    });
    assert_eq!(read(phi), (4096, 128, true));
    let gemma2 = json!({
        "architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid", "final_logit_softcapping": 30.0, "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304,
        "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 256000,
    });
    assert_eq!(read(gemma2), (8192, 256, true));
    let gemma3 = json!({
        "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attn_logit_softcapping": null,
        "final_logit_softcapping": null, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 1152, "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
        "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144,
    });
    assert_eq!(read(gemma3), (32768, 256, true));
}

#[test]
fn the_page_of_models_has_a_row_for_each() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/models.md")).unwrap();
    let error = open_with("llama", |config| config["architectures"] = json!(["OtherForCausalLM"])).unwrap_err();
    let error = error.to_string();
    let (_, list) = error.split_once("this version reads ").unwrap();
    let named: Vec<&str> = list.split(", ").filter(|name| name.ends_with("ForCausalLM")).collect();
    assert_eq!(named.len(), 9, "{error}");
    for name in named {
        assert!(page.contains(&format!("\n| `{name}` | `")), "docs/models.md has no row for {name}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    type Case = (&'static str, fn(&mut Value), &'static [&'static str]);
    let cases: &[Case] = &[
        (
            "llama",
            |v| v["architectures"] = json!(["MixtralForCausalLM"]),
            &[
                "architectures",
                "MixtralForCausalLM",
                "LlamaForCausalLM",
                "Qwen3ForCausalLM",
                "Phi3ForCausalLM",
                "Gemma3ForCausalLM",
                "ForSequenceClassification",
            ],
        ),
        (
            "gemma3",
            |v| v["architectures"] = json!(["Gemma3ForConditionalGeneration"]),
            &["Gemma3ForConditionalGeneration", "Gemma3ForCausalLM"],
        ),
        (
            "llama",
            |v| {
                v.as_object_mut().unwrap().shift_remove("architectures");
                v["model_type"] = json!("mamba");
            },
            &["model_type", "mamba", "llama", "qwen2", "gemma3_text"],
        ),
        (
            "llama_yarn",
            |v| v["rope_scaling"]["rope_type"] = json!("ntk"),
            &["rope_scaling.rope_type", "ntk", "linear, dynamic, yarn, llama3 and longrope"],
        ),
        ("llama_yarn", |v| v["rope_scaling"]["factor"] = json!(0.5), &["rope_scaling.factor", "0.5"]),
        ("llama_linear", |v| v["rope_scaling"] = json!({"type": "linear"}), &["rope_scaling.factor", "missing"]),
        (
            "llama_llama3",
            |v| v["rope_scaling"]["high_freq_factor"] = json!(1.0),
            &["rope_scaling.high_freq_factor", "not above"],
        ),
        (
            "llama_llama3",
            |v| v["rope_scaling"]["low_freq_factor"] = Value::Null,
            &["rope_scaling.low_freq_factor", "missing"],
        ),
        (
            "phi3_longrope",
            |v| v["rope_scaling"]["short_factor"] = json!([1.0, 2.0]),
            &["rope_scaling.short_factor", "6 positive numbers"],
        ),
        (
            "phi3_longrope",
            |v| v["original_max_position_embeddings"] = Value::Null,
            &["original_max_position_embeddings", "longrope"],
        ),
        ("phi3", |v| v["partial_rotary_factor"] = json!(0.03), &["partial_rotary_factor", "0.03"]),
        (
            "qwen3",
            |v| v["layer_types"][1] = json!("chunked_attention"),
            &["layer_types", "chunked_attention", "full_attention and sliding_attention"],
        ),
        (
            "qwen3",
            |v| v["layer_types"] = json!(["full_attention"]),
            &["layer_types", "1 items", "num_hidden_layers is 3"],
        ),
        ("qwen3", |v| v["use_sliding_window"] = json!(false), &["sliding_window", "layer_types"]),
        ("llama", |v| v["num_hidden_layers"] = json!(2_000_000_000), &["num_hidden_layers", "more than 10000"]),
        ("qwen2", |v| v["max_window_layers"] = json!(-1), &["max_window_layers", "-1"]),
        ("mistral", |v| v["sliding_window"] = json!(0), &["sliding_window", "0 is not a positive"]),
        ("smollm3", |v| v["no_rope_layers"] = json!([1, 0, 1, 2]), &["no_rope_layers", "2", "0 and 1"]),
        ("gemma2", |v| v["hidden_activation"] = json!("relu"), &["hidden_activation", "relu", "gelu_pytorch_tanh"]),
        ("gemma2", |v| v["final_logit_softcapping"] = json!("x"), &["final_logit_softcapping", "positive number"]),
        ("gemma3", |v| v["use_bidirectional_attention"] = json!(true), &["use_bidirectional_attention", "causal"]),
        ("gemma3", |v| v["sliding_window_pattern"] = json!(0), &["sliding_window_pattern", "0"]),
        // Tensors that the fields ask for.
        ("llama", |v| v["attention_bias"] = json!(true), &["self_attn.q_proj.bias", "missing"]),
        ("llama_bias", |v| v["mlp_bias"] = json!(false), &["mlp.down_proj.bias", "no place"]),
        ("phi3", |v| v["architectures"] = json!(["LlamaForCausalLM"]), &["self_attn.q_proj.weight", "missing"]),
        ("gemma2", |v| v["architectures"] = json!(["GemmaForCausalLM"]), &["feedforward_layernorm", "no place"]),
    ];
    for (name, change, parts) in cases {
        let error = match open_with(name, change) {
            Ok(_) => panic!("{name}: {parts:?} opened"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), salmon::error::Kind::Model, "{error}");
        let line = error.to_string();
        assert!(line.contains(".json") || line.contains(".safetensors"), "{line}");
        for part in *parts {
            assert!(line.contains(part), "{name}: {line:?} lacks {part:?}");
        }
    }
}
