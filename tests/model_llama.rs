//! The forward pass against what transformers recorded for the same folders, and against itself: padding, chunks,
//! threads, gradients.

use std::collections::BTreeMap;

use salmon::draw::key;
use salmon::error::Kind as ErrorKind;
use salmon::model::{Head, ModelConfig, Network};
use serde_json::json;
use tch::{Kind, Tensor};

use crate::model_fixtures::{distance, ids, open, recorded};

#[test]
fn logits_loss_and_greedy_tokens_match_transformers() {
    for name in ["untied", "tied"] {
        let network = open(name, Kind::Float);
        let expected = recorded(&format!("{name}.safetensors"));
        let logits = network.logits(&network.hidden(&expected["ids"]).unwrap()).unwrap();
        assert_eq!(logits.kind(), Kind::Float);
        let off = distance(&logits, &expected["logits"]);
        assert!(off < 2e-5, "{name}: logits off by {off}");

        let loss = -network.log_probs(&expected["ids"]).unwrap().mean(Kind::Double).double_value(&[]);
        let theirs = expected["loss"].double_value(&[0]);
        assert!((loss - theirs).abs() < 1e-6 * theirs, "{name}: loss {loss}, transformers {theirs}");

        let mut text = expected["ids"].narrow(1, 0, 4);
        while text.size()[1] < expected["greedy"].size()[1] {
            let last = network.hidden(&text).unwrap().select(1, -1);
            text = Tensor::cat(&[text, network.logits(&last).unwrap().argmax(-1, true)], 1);
        }
        assert!(text.equal(&expected["greedy"]), "{name}: greedy tokens differ");
    }
}

#[test]
fn bf16_is_as_close_to_f32_as_in_transformers() {
    let network = open("tied", Kind::BFloat16);
    let expected = recorded("tied.safetensors");
    let hidden = network.hidden(&expected["ids"]).unwrap();
    assert_eq!(hidden.kind(), Kind::BFloat16);
    let logits = network.logits(&hidden).unwrap();
    let theirs = distance(&expected["logits_bf16"], &expected["logits"]);
    let ours = distance(&logits, &expected["logits"]);
    assert!(ours < 1.5 * theirs, "off by {ours}, transformers by {theirs}");
    let loss = -network.log_probs(&expected["ids"]).unwrap().mean(Kind::Double).double_value(&[]);
    assert!((loss - expected["loss"].double_value(&[0])).abs() < 0.02);
}

#[test]
fn classifier_scores_match_transformers() {
    let network = open("classifier", Kind::Float);
    assert_eq!(network.head(), Head::Linear);
    let expected = recorded("classifier.safetensors");
    let hidden = network.hidden(&expected["ids"]).unwrap();
    let scores = network.scores(&hidden).unwrap();
    assert_eq!(scores.size(), hidden.size()[..2]);
    assert!(distance(&scores.select(1, -1), &expected["scores"]) < 1e-5);
    // It has no unembedding: what needs one says so.
    assert!(network.logits(&hidden).unwrap_err().to_string().contains("lm_head.weight"));
}

#[test]
fn padding_on_the_right_changes_nothing() {
    let network = open("untied", Kind::Float);
    let short = network.log_probs(&ids(&[&[5, 9, 13, 44, 6]])).unwrap();
    let padded = network.log_probs(&ids(&[&[5, 9, 13, 44, 6, 0, 0, 0], &[7, 8, 9, 10, 11, 12, 13, 14]])).unwrap();
    assert!(distance(&short, &padded.narrow(0, 0, 1).narrow(1, 0, 4)) < 1e-5);
}

#[test]
fn yes_no_margin_is_the_difference_of_logits() {
    let network = open("untied", Kind::Float).with_head(Head::YesNo { yes: 17, no: 40 }, key(0, &[])).unwrap();
    let hidden = network.hidden(&ids(&[&[3, 4, 5], &[6, 7, 8]])).unwrap();
    let logits = network.logits(&hidden).unwrap();
    let margin = logits.select(2, 17) - logits.select(2, 40);
    assert!(distance(&network.scores(&hidden).unwrap(), &margin) < 1e-5);
    assert!(!network.merged().unwrap().contains_key("score.weight"));

    // A linear head may begin there.
    let linear = network.with_margin_head(17, 40).unwrap();
    assert_eq!(linear.head(), Head::Linear);
    assert!(distance(&linear.scores(&hidden).unwrap(), &margin) < 1e-5);
    assert_eq!(linear.merged().unwrap()["score.weight"].size(), [1, 24]);
}

#[test]
fn drawn_linear_head_depends_on_its_key_only() {
    let head = |seed| {
        let network = open("untied", Kind::Float).with_head(Head::Linear, key(seed, &["reward"])).unwrap();
        network.merged().unwrap().remove("score.weight").unwrap()
    };
    assert!(head(1).equal(&head(1)));
    assert!(!head(1).equal(&head(2)));
    let spread = head(1).std(false).double_value(&[]) * 25f64.sqrt();
    assert!((0.6..1.5).contains(&spread), "{spread} standard deviations of 1 / sqrt(hidden + 1)");
}

/// A network whose vocabulary is large enough for more than one chunk.
fn wide() -> Network {
    let fields = json!({
        "model_type": "llama", "vocab_size": 8192, "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
        "num_attention_heads": 1, "tie_word_embeddings": true,
    });
    let config = ModelConfig::from_json(fields.as_object().unwrap().clone(), "test").unwrap();
    let stream = key(3, &["wide"]);
    let drawn = |shape: &[i64]| {
        let values: Vec<f32> = (0..shape.iter().product::<i64>() as u64).map(|i| stream.normal(i) as f32).collect();
        Tensor::from_slice(&values).view(shape)
    };
    let mut tensors = BTreeMap::from([
        ("model.embed_tokens.weight".to_string(), drawn(&[8192, 4])),
        ("model.norm.weight".to_string(), drawn(&[4])),
    ]);
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        tensors.insert(format!("model.layers.0.{norm}.weight"), drawn(&[4]));
    }
    for name in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"] {
        tensors.insert(format!("model.layers.0.{name}.weight"), drawn(&[4, 4]));
    }
    for name in ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] {
        tensors.insert(format!("model.layers.0.{name}.weight"), drawn(&[4, 4]));
    }
    Network::from_tensors(config, tensors, BTreeMap::new()).unwrap()
}

#[test]
fn log_probabilities_in_chunks_are_those_of_the_whole() {
    let network = wide();
    let hidden = Tensor::arange(2500 * 4, (Kind::Float, tch::Device::Cpu)).sin().view([2500, 4]);
    let targets = Tensor::arange(2500, (Kind::Int64, tch::Device::Cpu)) * 3;
    let chunked = network.token_log_probs(&hidden, &targets).unwrap();
    let logits = network.logits(&hidden).unwrap();
    let plain = logits.gather(1, &targets.unsqueeze(1), false).squeeze_dim(1) - logits.logsumexp([1], false);
    assert_eq!(chunked.size(), [2500]);
    assert!(distance(&chunked, &plain) < 1e-5);
}

#[test]
fn gradients_match_finite_differences() {
    let network = open("untied", Kind::Float).with_full_training().unwrap();
    let text = ids(&[&[3, 14, 15, 9, 26, 5, 35], &[8, 9, 7, 9, 3, 23, 8]]);
    let objective = || network.log_probs(&text).unwrap().sum(Kind::Double);
    objective().backward();
    let names = network.trainable();
    assert_eq!(names.len(), 2 * 9 + 3);
    for (name, mut tensor) in names {
        // Along the gradient itself, so that the slope stands out from f32 rounding.
        let grad = tensor.grad();
        let norm = grad.norm().double_value(&[]);
        assert!(norm > 1e-3, "{name} has no gradient");
        let step = &grad * (2e-3 / norm);
        let slope = tch::no_grad(|| {
            let mut at = |sign: f64| {
                let _ = tensor.g_add_(&(&step * sign));
                let value = objective().double_value(&[]);
                let _ = tensor.g_sub_(&(&step * sign));
                value
            };
            (at(1.0) - at(-1.0)) / 4e-3
        });
        assert!((slope - norm).abs() < 0.02 * norm, "{name}: slope {slope}, gradient {norm}");
    }
}

#[test]
fn replicas_on_other_threads_give_the_same_bits() {
    let network = open("untied", Kind::Float).with_full_training().unwrap();
    let replica = network.replicate().unwrap();
    for ((name, own), (other_name, other)) in network.trainable().iter().zip(replica.trainable()) {
        assert_eq!(*name, other_name);
        assert!(own.equal(&other) && own.data_ptr() != other.data_ptr() && other.requires_grad(), "{name}");
    }
    let run = |network: &Network| network.log_probs(&ids(&[&[3, 4, 5, 6, 7]])).unwrap().detach();
    let here = run(&network);
    let there = std::thread::spawn(move || run(&replica)).join().unwrap();
    assert!(here.equal(&there));
}

#[test]
fn a_snapshot_for_the_decoder_does_not_follow_training() {
    let network = open("untied", Kind::Float).with_full_training().unwrap();
    let snapshot = network.merged().unwrap();
    let before = snapshot["model.norm.weight"].copy();
    tch::no_grad(|| network.trainable().iter_mut().for_each(|(_, tensor)| drop(tensor.g_add_scalar_(1.0))));
    assert!(snapshot["model.norm.weight"].equal(&before));
    assert!(!network.merged().unwrap()["model.norm.weight"].equal(&before));
}

#[test]
fn bad_input_is_an_error_with_the_reason() {
    let network = open("untied", Kind::Float);
    let long = Tensor::zeros([1, 65], (Kind::Int64, tch::Device::Cpu));
    for (input, part) in [
        (ids(&[&[3, 64]]), "token id 64 is outside of the vocabulary of 64"),
        (ids(&[&[-1, 3]]), "token id -1 is outside"),
        (long, "65 tokens are more than the model's context of 64"),
        (ids(&[&[3, 4]]).to_kind(Kind::Float), "[batch, time] of i64"),
        (ids(&[&[]]), "non-empty"),
    ] {
        let error = network.log_probs(&input).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Model);
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = network.log_probs(&ids(&[&[3]])).unwrap_err();
    assert!(error.to_string().contains("two tokens"), "{error}");
    let hidden = network.hidden(&ids(&[&[3]])).unwrap();
    assert!(network.scores(&hidden).unwrap_err().to_string().contains("no reward head"));
    let error = open("untied", Kind::Float).with_head(Head::YesNo { yes: 3, no: 64 }, key(0, &[])).unwrap_err();
    assert!(error.to_string().contains("token 64"), "{error}");
    let error = Network::open(&crate::model_fixtures::fixture("untied"), Kind::Half, tch::Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("float32 or bfloat16"), "{error}");
}
