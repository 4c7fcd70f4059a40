//! Every architecture, in both forward passes, against what transformers recorded (`scripts/fixtures/architectures.py`):
//! logits at every position in one pass, token by token and beside padding; greedy tokens; loss; classifier scores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::executor::block_on;
use salmon::draw::key;
use salmon::engine::{Adapted, Engine, EngineOptions, Inference, Instructions, Output, Request, Task};
use salmon::model::{Head, LoraConfig, Network, QuantizationConfig};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::engine_support::{generate, greedy, run, words};
use crate::model_fixtures::{bytes, distance};

const VOCAB: usize = 48;
const PROMPT: usize = 8;

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/architectures").join(name)
}

/// Every checkpoint, by name, with what transformers says about it.
pub(crate) fn each(mut check: impl FnMut(&str, Network, BTreeMap<String, Tensor>)) {
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

pub(crate) fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A checkpoint with another config.json.
pub(crate) fn open_with(name: &str, change: impl Fn(&mut Value)) -> salmon::Result<Network> {
    let place = tempfile::tempdir().unwrap();
    let mut config = json_of(&folder(name).join("config.json"));
    change(&mut config);
    std::fs::write(place.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(folder(name).join("model.safetensors"), place.path().join("model.safetensors")).unwrap();
    Network::open(place.path(), Kind::Float, Device::Cpu)
}

pub(crate) fn logits(network: &Network, ids: &Tensor) -> Tensor {
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
fn decoded(engine: &dyn Inference, ids: &Tensor) -> Tensor {
    let rows: Vec<Vec<u32>> = (0..2).map(|b| row(&ids.get(b))).collect();
    let all = || Task::Choice { tokens: (0..VOCAB as u32).collect() };
    let prefixes = rows.iter().flat_map(|row| (1..=row.len()).map(|t| row[..t].to_vec()));
    let requests = prefixes.map(|prompt| Request { prompt, task: all() }).collect();
    let values: Vec<f32> = block_on(engine.submit(requests))
        .unwrap()
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

/// A network with an adapter that changes what it says, on every projection.
fn adapted(network: &Network, name: &str) -> Network {
    let network = network.with_lora(&LoraConfig { r: 3, ..LoraConfig::default() }, key(1, &[name])).unwrap();
    for (tensor, mut value) in network.trainable().into_iter().filter(|(tensor, _)| tensor.contains("lora_B")) {
        let draws = key(2, &[&tensor]);
        let values: Vec<f32> = (0..value.numel() as u64).map(|i| 0.05 * draws.normal(i) as f32).collect();
        tch::no_grad(|| value.copy_(&Tensor::from_slice(&values).view_as(&value)));
    }
    network
}

#[test]
fn an_adapter_beside_the_base_says_what_the_network_says() {
    each(|name, network, expected| {
        let ids = &expected["ids"];
        let adapted = adapted(&network, name);
        let wanted = logits(&adapted, ids).detach();
        assert!(distance(&wanted, &expected["logits"]) > 0.01, "{name}: the adapter changes nothing");
        close(name, "merged", &decoded(&engine(&adapted, EngineOptions::default()), ids), &wanted);
        let base = Arc::new(engine(&network, EngineOptions::default()));
        let beside = Adapted::new(&base, &adapted.adapter().unwrap().unwrap()).unwrap();
        close(name, "beside the base", &decoded(&beside, ids), &wanted);
        close(name, "the base", &decoded(base.as_ref(), ids), &expected["logits"]);
    });
}

#[test]
fn computing_layers_again_gives_the_same_gradients() {
    each(|name, network, expected| {
        let gradients = |on: bool| -> Vec<Tensor> {
            let network = adapted(&network, name).with_gradient_checkpointing(on);
            network.log_probs(&expected["ids"]).unwrap().mean(Kind::Float).backward();
            network.trainable().iter().map(|(_, tensor)| tensor.grad().copy()).collect()
        };
        for (kept, computed) in gradients(false).iter().zip(gradients(true)) {
            assert!(distance(kept, &computed) < 1e-6, "{name}");
        }
    });
}

#[test]
fn quantised_projections_answer_nearly_the_same() {
    each(|name, _, expected| {
        let config = QuantizationConfig { load_in_8bit: true, ..QuantizationConfig::default() };
        let network = Network::open_quantized(&folder(name), Kind::Float, Device::Cpu, config).unwrap();
        let off = logits(&network, &expected["ids"]) - &expected["logits"];
        let share = off.square().mean(Kind::Double) / expected["logits"].square().mean(Kind::Double);
        let share = share.double_value(&[]).sqrt();
        assert!(share > 1e-4 && share < 0.06, "{name}: off by {share} of the logits");
    });
}

#[test]
fn adapters_name_the_projections_of_their_architecture() {
    let network = Network::open(&folder("phi3"), Kind::Float, Device::Cpu).unwrap();
    let lora = |modules: &[&str]| LoraConfig {
        r: 2,
        lora_alpha: 4.0,
        target_modules: modules.to_vec().into(),
        ..LoraConfig::default()
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
