//! Every architecture, in both forward passes, against what transformers recorded (`scripts/fixtures/architectures.py`):
//! logits at every position in one pass, token by token and beside padding; greedy tokens; loss; classifier scores.
//! And what is written back, and what is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use salmon::draw::key;
use salmon::engine::{Engine, EngineOptions, Instructions, Output, Request, Task};
use salmon::model::{Head, LoraConfig, ModelConfig, Network};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::engine_support::{generate, greedy, run, words};
use crate::model_fixtures::{bytes, distance};

const VOCAB: usize = 48;
const PROMPT: usize = 8;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/architectures").join(name)
}

/// Every checkpoint, by name, with what transformers says about it.
fn each(mut check: impl FnMut(&str, Network, BTreeMap<String, Tensor>)) {
    let mut names: Vec<String> = std::fs::read_dir(folder(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), 15, "{names:?}");
    for name in names {
        let network = Network::open(&folder(&name), Kind::Float, Device::Cpu).unwrap();
        let expected = Tensor::read_safetensors(folder(&name).join("expected.safetensors")).unwrap();
        check(&name, network, expected.into_iter().collect());
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn logits(network: &Network, ids: &Tensor) -> Tensor {
    network.logits(&network.hidden(ids).unwrap()).unwrap()
}

#[track_caller]
fn close(name: &str, what: &str, found: &Tensor, expected: &Tensor) {
    let off = distance(found, expected);
    assert!(off < 2e-5, "{name}: {what} off by {off}");
}

#[test]
fn the_network_agrees_with_transformers() {
    each(|name, network, expected| {
        let ids = &expected["ids"];
        close(name, "logits", &logits(&network, ids), &expected["logits"]);
        for t in 1..ids.size()[1] {
            let last = logits(&network, &ids.narrow(1, 0, t)).select(1, -1);
            close(name, "logits token by token", &last, &expected["logits"].select(1, t - 1));
        }

        let short = expected["left_logits"].size()[0];
        let padded = ids.copy();
        let _ = padded.narrow(0, 0, 1).narrow(1, short, ids.size()[1] - short).zero_();
        let padded = logits(&network, &padded);
        close(name, "logits beside padding", &padded.get(0).narrow(0, 0, short), &expected["left_logits"]);
        close(name, "logits of the longer row", &padded.get(1), &expected["logits"].get(1));

        let loss = -network.log_probs(ids).unwrap().mean(Kind::Double).double_value(&[]);
        let theirs = expected["loss"].double_value(&[0]);
        assert!((loss - theirs).abs() < 1e-6 * theirs, "{name}: loss {loss}, transformers {theirs}");

        let greedy = expected["greedy"].unsqueeze(0);
        let mut text = greedy.narrow(1, 0, PROMPT as i64);
        while text.size()[1] < greedy.size()[1] {
            let best = logits(&network, &text).select(1, -1).argmax(-1, true);
            text = Tensor::cat(&[text, best], 1);
        }
        assert!(text.equal(&greedy), "{name}: greedy tokens differ");
    });
}

fn row(ids: &Tensor) -> Vec<u32> {
    Vec::<i64>::try_from(ids.to_kind(Kind::Int64)).unwrap().into_iter().map(|id| id as u32).collect()
}

fn engine(network: &Network, options: EngineOptions) -> Engine {
    // What transformers generated goes on past the end token.
    let mut config = network.config().clone();
    config.eos_token_ids.clear();
    Engine::new(&config, network.merged().unwrap(), words(VOCAB), network.head(), options).unwrap()
}

/// The logits after every position of both rows, `[2, time, vocab]`.
fn decoded(engine: &Engine, ids: &Tensor) -> Tensor {
    let rows: Vec<Vec<u32>> = (0..2).map(|b| row(&ids.get(b))).collect();
    let all = || Task::Choice { tokens: (0..VOCAB as u32).collect() };
    let prefixes = rows.iter().flat_map(|row| (1..=row.len()).map(|t| row[..t].to_vec()));
    let requests = prefixes.map(|prompt| Request { prompt, task: all() }).collect();
    let values: Vec<f32> = run(engine, requests)
        .into_iter()
        .flat_map(|output| match output {
            Output::Logits(logits) => logits,
            other => panic!("{other:?}"),
        })
        .collect();
    Tensor::from_slice(&values).view([2, ids.size()[1], VOCAB as i64])
}

#[test]
fn the_decoder_agrees_with_transformers() {
    each(|name, network, expected| {
        let ids = &expected["ids"];
        let whole = engine(&network, EngineOptions::default());
        let logits = decoded(&whole, ids);
        close(name, "logits", &logits, &expected["logits"]);
        // A step of one row: every token is decoded on its own. The rows before did not change a bit.
        let slow = engine(&network, EngineOptions { workers: 1, max_batch_tokens: 1, ..EngineOptions::default() });
        assert!(decoded(&slow, ids).equal(&logits), "{name}: token by token gives other bits");

        let (prompt, response) = (row(&ids.get(0)), expected["greedy"].narrow(0, PROMPT as i64, 64));
        let scored = Request { prompt: prompt[..1].to_vec(), task: Task::Logprobs { response: prompt[1..].to_vec() } };
        let Output::Logprobs(found) = run(&whole, vec![scored]).remove(0) else { panic!("not log-probabilities") };
        let theirs = expected["logits"].get(0).log_softmax(-1, Kind::Double);
        let theirs = theirs.narrow(0, 0, found.len() as i64).gather(
            1,
            &ids.get(0).narrow(0, 1, found.len() as i64).unsqueeze(1),
            false,
        );
        close(name, "log-probabilities", &Tensor::from_slice(&found), &theirs.squeeze_dim(1));

        let start = row(&expected["greedy"].narrow(0, 0, PROMPT as i64));
        // Beside a longer row, and behind a prefix that another row has computed.
        let requests =
            vec![generate(prompt, &greedy(9), key(0, &[])), generate(start.clone(), &greedy(64), key(0, &[]))];
        for output in
            [run(&whole, requests).remove(1), run(&slow, vec![generate(start, &greedy(64), key(0, &[]))]).remove(0)]
        {
            let Output::Generation(generation) = output else { panic!("not a generation") };
            assert_eq!(generation.ids, row(&response), "{name}");
        }
    });
}

#[test]
fn all_instructions_agree() {
    each(|name, network, expected| {
        let found: Vec<(Instructions, Tensor)> = Instructions::available()
            .into_iter()
            .map(|set| {
                let options = EngineOptions { workers: 1, instructions: Some(set), ..EngineOptions::default() };
                (set, decoded(&engine(&network, options), &expected["ids"]))
            })
            .collect();
        for (set, logits) in &found {
            close(name, &format!("{set:?}"), logits, &expected["logits"]);
            if *set != Instructions::Portable {
                assert!(logits.equal(&found[0].1), "{name}: {set:?} gives other bits than {:?}", found[0].0);
            }
        }
    });
}

/// Windows around the sixteen tokens of a block, and longer than it, by both passes.
#[test]
fn windows_of_any_length_mean_the_same_in_both_passes() {
    let ids = Tensor::from_slice(&(0..180).map(|i| i * 29 % 45 + 3).collect::<Vec<i64>>()).view([2, 90]);
    for name in ["mistral", "gemma2"] {
        let mut different = Vec::new();
        for window in [1, 2, 15, 16, 17, 33, 89, 90, 200] {
            let network = open_with(name, |config| config["sliding_window"] = json!(window)).unwrap();
            let expected = logits(&network, &ids);
            let found = decoded(&engine(&network, EngineOptions::default()), &ids);
            close(name, &format!("window {window}"), &found, &expected);
            let slow = EngineOptions { workers: 1, max_batch_tokens: 3, ..EngineOptions::default() };
            assert!(decoded(&engine(&network, slow), &ids).equal(&found), "{name}: window {window}");
            different.push(found);
        }
        assert!(different[7].equal(&different[8]), "{name}: a window of all");
        for pair in different[..8].windows(2) {
            assert!(distance(&pair[0], &pair[1]) > 1e-6, "{name}: the window changes nothing");
        }
    }
}

#[test]
fn bf16_is_close_to_f32() {
    each(|name, _, expected| {
        let network = Network::open(&folder(name), Kind::BFloat16, Device::Cpu).unwrap();
        let hidden = network.hidden(&expected["ids"]).unwrap();
        assert_eq!(hidden.kind(), Kind::BFloat16, "{name}");
        let off = network.logits(&hidden).unwrap() - &expected["logits"];
        let share = off.square().mean(Kind::Double) / expected["logits"].square().mean(Kind::Double);
        let share = share.double_value(&[]).sqrt();
        assert!(share < 0.03, "{name}: off by {share} of the logits");
    });
}

#[test]
fn classifiers_agree_with_transformers() {
    each(|name, network, expected| {
        // The folder as transformers would save it: the backbone, the head, no unembedding.
        let names = json_of(&folder(name).join("expected.json"));
        let place = tempfile::tempdir().unwrap();
        let mut config = json_of(&folder(name).join("config.json"));
        config["architectures"] = json!([names["classifier"]]);
        std::fs::write(place.path().join("config.json"), config.to_string()).unwrap();
        let mut tensors = Tensor::read_safetensors(folder(name).join("model.safetensors")).unwrap();
        tensors.retain(|(name, _)| name != "lm_head.weight");
        tensors.push(("score.weight".into(), expected["score_weight"].shallow_clone()));
        Tensor::write_safetensors(&tensors, place.path().join("model.safetensors")).unwrap();
        let classifier = Network::open(place.path(), Kind::Float, Device::Cpu).unwrap();
        assert_eq!(classifier.head(), Head::Linear);
        let hidden = classifier.hidden(&expected["ids"]).unwrap();
        let scores = classifier.scores(&hidden).unwrap();
        close(name, "scores", &scores.select(1, -1), &expected["scores"]);

        // The decoder scores the same.
        let mut weights = network.merged().unwrap();
        weights.insert("score.weight".into(), expected["score_weight"].shallow_clone());
        let engine =
            Engine::new(network.config(), weights, words(VOCAB), Head::Linear, EngineOptions::default()).unwrap();
        let rows = (0..2).map(|b| Request { prompt: row(&expected["ids"].get(b)), task: Task::Reward });
        let scores = run(&engine, rows.collect()).into_iter().map(|output| match output {
            Output::Reward(score) => score,
            other => panic!("{other:?}"),
        });
        close(name, "decoded scores", &Tensor::from_slice(&scores.collect::<Vec<f32>>()), &expected["scores"]);
    });
}

#[test]
fn the_yes_no_margin_is_the_same_in_both_passes() {
    each(|name, network, expected| {
        let network = network.with_head(Head::YesNo { yes: 7, no: 30 }, key(0, &[])).unwrap();
        let scores = network.scores(&network.hidden(&expected["ids"]).unwrap()).unwrap();
        let margin = expected["logits"].select(2, 7) - expected["logits"].select(2, 30);
        close(name, "margin", &scores, &margin);
        let request = Request { prompt: row(&expected["ids"].get(1)), task: Task::Reward };
        let Output::Reward(score) = run(&engine(&network, EngineOptions::default()), vec![request])[0] else {
            panic!("not a reward")
        };
        close(name, "decoded margin", &Tensor::from(score), &margin.get(1).get(-1));
    });
}

#[test]
fn every_tensor_trains() {
    each(|name, network, expected| {
        let network = network.with_full_training().unwrap();
        network.log_probs(&expected["ids"]).unwrap().sum(Kind::Double).backward();
        for (tensor, value) in network.trainable() {
            let norm = value.grad().norm().double_value(&[]);
            // A constant added to all keys of a row changes no softmax.
            let zero = tensor.ends_with("k_proj.bias");
            assert!(norm.is_finite() && (norm > 1e-4 || zero), "{name}: {tensor} has gradient {norm}");
        }
    });
}

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

fn open_with(name: &str, change: impl Fn(&mut Value)) -> salmon::Result<Network> {
    let place = tempfile::tempdir().unwrap();
    let mut config = json_of(&folder(name).join("config.json"));
    change(&mut config);
    std::fs::write(place.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(folder(name).join("model.safetensors"), place.path().join("model.safetensors")).unwrap();
    Network::open(place.path(), Kind::Float, Device::Cpu)
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
fn adapters_name_the_projections_of_their_architecture() {
    let network = Network::open(&folder("phi3"), Kind::Float, Device::Cpu).unwrap();
    let lora = |modules: &[&str]| LoraConfig {
        r: 2,
        lora_alpha: 4.0,
        target_modules: modules.iter().map(|name| name.to_string()).collect(),
    };
    let error = network.with_lora(&lora(&["o_proj", "q_proj"]), key(0, &[])).unwrap_err().to_string();
    for part in ["target_modules", "\"q_proj\"", "Phi3ForCausalLM", "qkv_proj, o_proj, gate_up_proj, down_proj"] {
        assert!(error.contains(part), "{error}");
    }
    let error = network.with_lora(&lora(&["w1"]), key(0, &[])).unwrap_err().to_string();
    assert!(error.contains("\"w1\"") && error.contains("gate_up_proj"), "{error}");
    // What peft made of the fused projections gives its logits, and is written back under its names.
    let adapted = network.with_adapter(&folder("phi3").join("adapter")).unwrap();
    let expected = Tensor::read_safetensors(folder("phi3").join("adapter/expected.safetensors")).unwrap();
    let expected: BTreeMap<String, Tensor> = expected.into_iter().collect();
    close("phi3", "logits with an adapter", &logits(&adapted, &expected["ids"]), &expected["logits"]);
    close(
        "phi3",
        "decoded with an adapter",
        &decoded(&engine(&adapted, EngineOptions::default()), &expected["ids"]),
        &expected["logits"],
    );
    let place = tempfile::tempdir().unwrap();
    adapted.save(place.path()).unwrap();
    let names = |path: &Path| {
        let tensors = Tensor::read_safetensors(path.join("adapter_model.safetensors")).unwrap();
        let mut names: Vec<String> = tensors.into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    };
    assert_eq!(names(place.path()), names(&folder("phi3").join("adapter")));
    let saved: Value = serde_json::from_slice(&bytes(place.path())["adapter_config.json"]).unwrap();
    assert_eq!(saved["target_modules"], json!(["down_proj", "qkv_proj", "gate_up_proj"]));
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
