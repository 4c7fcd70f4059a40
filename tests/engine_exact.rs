//! The engine's numbers against a plain f64 decoder, on every instruction set of this processor.

use std::collections::BTreeMap;
use std::sync::Arc;

use salmon::draw::key;
use salmon::engine::{Engine, EngineOptions, Instructions, Output, Request, Sampling, Task};
use salmon::model::{Head, Network};
use tch::Tensor;

use crate::engine_support::{Checkpoint, ODD, POCKET, Sizes, all_logits, generate, greedy, log_sum_exp, run, text};

/// Longer than a block of inputs of the matrix product; wide heads; one key-value head.
const WIDE: Sizes = Sizes {
    vocab: 50,
    hidden: 300,
    intermediate: 270,
    layers: 1,
    heads: 3,
    kv_heads: 1,
    head_dim: 80,
    context: 64,
    tied: true,
};

fn options(instructions: Instructions) -> EngineOptions {
    EngineOptions { workers: 1, instructions: Some(instructions), ..EngineOptions::default() }
}

fn close(found: f32, expected: f64, what: &str) {
    let error = (f64::from(found) - expected).abs();
    assert!(error <= 2e-5 * expected.abs().max(1.0), "{what}: {found} instead of {expected}");
}

#[test]
fn logits_match_the_reference() {
    for (sizes, lengths) in [(POCKET, &[1, 16, 33, 70][..]), (ODD, &[1, 2, 17, 48, 129]), (WIDE, &[1, 18, 64])] {
        let checkpoint = Checkpoint::random(sizes, 3);
        let prompt = text("prompt", lengths[lengths.len() - 1], sizes.vocab);
        let expected = checkpoint.reference_logits(&prompt);
        for instructions in Instructions::available() {
            let engine = checkpoint.engine(Head::None, options(instructions));
            for &len in lengths {
                let found = all_logits(&engine, sizes.vocab, &prompt[..len]);
                for (token, (&found, &expected)) in found.iter().zip(&expected[len - 1]).enumerate() {
                    close(found, expected, &format!("{instructions:?} {sizes:?} length {len} token {token}"));
                }
            }
        }
    }
}

#[test]
fn greedy_takes_the_reference_argmax() {
    for sizes in [POCKET, ODD] {
        let checkpoint = Checkpoint::random(sizes, 5);
        for instructions in Instructions::available() {
            let engine = checkpoint.engine(Head::None, options(instructions));
            let mut ids = text("greedy", 20, sizes.vocab);
            let Output::Generation(g) = run(&engine, vec![generate(ids.clone(), &greedy(30), key(0, &[]))]).remove(0)
            else {
                panic!("not a generation")
            };
            assert_eq!(g.ids.len(), 30);
            ids.extend(&g.ids);
            let logits = checkpoint.reference_logits(&ids);
            for (i, &id) in g.ids.iter().enumerate() {
                let row = &logits[19 + i];
                let best = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                assert!(row[id as usize] >= best - 2e-5, "token {i}");
                close(g.logprobs[i], row[id as usize] - log_sum_exp(row), "log-probability");
            }
        }
    }
}

#[test]
fn logprobs_match_the_reference_the_choices_and_the_generation() {
    let checkpoint = Checkpoint::random(ODD, 7);
    let engine = checkpoint.engine(Head::None, EngineOptions::default());
    let prompt = text("p", 21, ODD.vocab);
    let sampling = Arc::new(Sampling { temperature: 1.0, ..(*greedy(40)).clone() });
    let Output::Generation(g) = run(&engine, vec![generate(prompt.clone(), &sampling, key(1, &[]))]).remove(0) else {
        panic!("not a generation")
    };
    let task = Task::Logprobs { response: g.ids.clone() };
    let Output::Logprobs(found) = run(&engine, vec![Request { prompt: prompt.clone(), task }]).remove(0) else {
        panic!("not log-probabilities")
    };
    // The same arithmetic gave both: the first PPO ratio is exactly 1.
    assert_eq!(found, g.logprobs);
    let whole = [prompt.as_slice(), &g.ids].concat();
    let expected = checkpoint.reference_logits(&whole);
    for (i, &id) in g.ids.iter().enumerate() {
        close(found[i], expected[20 + i][id as usize] - log_sum_exp(&expected[20 + i]), "log-probability");
        let logits: Vec<f64> = all_logits(&engine, ODD.vocab, &whole[..21 + i]).into_iter().map(f64::from).collect();
        let choice = (logits[id as usize] - log_sum_exp(&logits)) as f32;
        assert!((found[i] - choice).abs() <= 1e-6, "{} and {choice}", found[i]);
    }
    let empty = Request { prompt, task: Task::Logprobs { response: Vec::new() } };
    assert_eq!(run(&engine, vec![empty]), [Output::Logprobs(Vec::new())]);
}

#[test]
fn rewards_match_the_reference() {
    let checkpoint = Checkpoint::random(ODD, 9);
    let prompts: Vec<Vec<u32>> = (1..40).step_by(9).map(|len| text("reward", len, ODD.vocab)).collect();
    let requests = || prompts.iter().map(|p| Request { prompt: p.clone(), task: Task::Reward }).collect();
    let linear = checkpoint.engine(Head::Linear, EngineOptions::default());
    for (prompt, output) in prompts.iter().zip(run(&linear, requests())) {
        let Output::Reward(score) = output else { panic!("not a reward") };
        close(score, checkpoint.reference_score(prompt), "linear head");
    }
    let margin = checkpoint.engine(Head::YesNo { yes: 3, no: 90 }, EngineOptions::default());
    for (prompt, output) in prompts.iter().zip(run(&margin, requests())) {
        let Output::Reward(score) = output else { panic!("not a reward") };
        let logits = &checkpoint.reference_logits(prompt)[prompt.len() - 1];
        close(score, logits[3] - logits[90], "Yes/No head");
    }
}

#[test]
fn the_training_network_agrees() {
    for (sizes, margin) in [(POCKET, false), (ODD, true)] {
        let checkpoint = Checkpoint::random(sizes, 13);
        let mut weights = checkpoint.weights();
        weights.remove("score.weight");
        let network = Network::from_tensors(checkpoint.config.clone(), weights, BTreeMap::new()).unwrap();
        let network = match margin {
            true => network.with_margin_head(4, 9).unwrap(),
            false => network.with_head(Head::Linear, key(2, &[])).unwrap(),
        };
        let tokenizer = crate::engine_support::words(sizes.vocab);
        let merged = network.merged().unwrap();
        let engine =
            Engine::new(network.config(), merged, tokenizer, network.head(), EngineOptions::default()).unwrap();
        let (prompt, response) = (text("prompt", 30, sizes.vocab), text("response", 60, sizes.vocab));
        let whole = [prompt.as_slice(), &response].concat();
        let ids = Tensor::from_slice(&whole.iter().map(|&id| i64::from(id)).collect::<Vec<_>>()).view([1, 90]);
        let task = Task::Logprobs { response };
        let outputs = run(&engine, vec![Request { prompt, task }, Request { prompt: whole, task: Task::Reward }]);
        let Output::Logprobs(found) = &outputs[0] else { panic!("not log-probabilities") };
        let expected = Vec::<f32>::try_from(network.log_probs(&ids).unwrap().get(0)).unwrap();
        for (&found, &expected) in found.iter().zip(&expected[29..]) {
            close(found, f64::from(expected), "log-probability");
        }
        let scores = network.scores(&network.hidden(&ids).unwrap()).unwrap();
        let Output::Reward(score) = outputs[1] else { panic!("not a reward") };
        close(score, scores.double_value(&[0, 89]), "score");
    }
}
