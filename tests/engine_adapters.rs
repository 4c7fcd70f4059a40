//! Several adapters on one engine: each row gets its own model's answer, with the bits it has alone, and agrees with an
//! engine whose weights are merged.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::executor::block_on;
use futures::future::join_all;
use salmon::draw::key;
use salmon::engine::{Adapted, Engine, EngineOptions, Inference, Instructions, Output, Request, Task};
use salmon::model::{Head, LoraConfig, Network, Patterns};
use tch::Tensor;

use crate::engine_support::{Checkpoint, ODD, POCKET, Sizes, generate, greedy, text, words};

fn options(instructions: Instructions, workers: usize) -> EngineOptions {
    EngineOptions { workers, max_batch_tokens: 40, instructions: Some(instructions), ..EngineOptions::default() }
}

/// The frozen base.
fn base(sizes: Sizes) -> Network {
    let checkpoint = Checkpoint::random(sizes, 31);
    let mut weights = checkpoint.weights();
    weights.remove("score.weight");
    Network::from_tensors(checkpoint.config.clone(), weights, BTreeMap::new()).unwrap()
}

/// An adapter that changes what the base says: ranks below, at and above a vector.
fn adapted(base: &Network, seed: u64, head: Head) -> Network {
    let lora = LoraConfig {
        r: [3, 16, 21][seed as usize % 3],
        lora_alpha: 9.0,
        target_modules: if seed == 1 {
            vec!["q_proj", "down_proj"]
        } else {
            vec!["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        }
        .into(),
        rank_pattern: Patterns(vec![("up_proj".into(), 2)]),
        ..LoraConfig::default()
    };
    let network = base.with_lora(&lora, key(seed, &["lora"])).unwrap().with_head(head, key(seed, &["head"])).unwrap();
    for (name, mut tensor) in network.trainable() {
        if name.ends_with("lora_B.weight") {
            let draws = key(seed, &[&name]);
            let values: Vec<f32> = (0..tensor.numel() as u64).map(|i| 0.1 * draws.normal(i) as f32).collect();
            tch::no_grad(|| tensor.copy_(&Tensor::from_slice(&values).view_as(&tensor)));
        }
    }
    network
}

/// Rows of every kind for one model; all models get prompts with the same beginnings.
fn requests(vocab: usize, head: Head) -> Vec<Request> {
    let shared = text("shared", 40, vocab);
    let row = |i: usize| {
        let prompt = [&shared[..(i * 5) % 41], &text(&i.to_string(), 1 + i, vocab)].concat();
        match i % 4 {
            0 => Request { prompt, task: Task::Choice { tokens: (0..vocab as u32).step_by(5).collect() } },
            1 => Request { prompt, task: Task::Logprobs { response: text("response", 7, vocab) } },
            2 if head != Head::None => Request { prompt, task: Task::Reward },
            _ => generate(prompt, &greedy(9), key(4, &["row"]).with(i as u64)),
        }
    };
    (0..16).map(row).collect()
}

fn numbers(output: &Output) -> Vec<f32> {
    match output {
        Output::Generation(g) => g.logprobs.clone(),
        Output::Logits(values) | Output::Logprobs(values) => values.clone(),
        Output::Reward(score) => vec![*score],
    }
}

fn ask(model: &dyn Inference, requests: Vec<Request>) -> Vec<Output> {
    block_on(model.submit(requests)).unwrap()
}

const HEADS: [Head; 3] = [Head::None, Head::Linear, Head::YesNo { yes: 3, no: 9 }];

#[test]
fn every_row_has_its_own_adapter() {
    for sizes in [POCKET, ODD] {
        let base = base(sizes);
        let networks: Vec<Network> = (0..3).map(|seed| adapted(&base, seed, HEADS[seed as usize])).collect();
        for instructions in Instructions::available() {
            let plain = |workers| {
                let weights = base.merged().unwrap();
                let options = options(instructions, workers);
                Arc::new(Engine::new(base.config(), weights, words(sizes.vocab), Head::None, options).unwrap())
            };
            let engine = plain(2);
            let variants: Vec<Adapted> =
                networks.iter().map(|n| Adapted::new(&engine, &n.adapter().unwrap().unwrap()).unwrap()).collect();
            // All at once, so that steps hold rows of all models and of the base.
            let mut pending: Vec<_> =
                variants.iter().zip(HEADS).map(|(model, head)| model.submit(requests(sizes.vocab, head))).collect();
            pending.push(engine.submit(requests(sizes.vocab, Head::None)));
            let mut together: Vec<Vec<Output>> =
                block_on(join_all(pending)).into_iter().collect::<Result<_, _>>().unwrap();
            assert!(engine.stats().prefix_hit_tokens > 0);

            let unadapted = together.pop().unwrap();
            assert_eq!(unadapted, ask(&*plain(1), requests(sizes.vocab, Head::None)), "adapters changed the base");
            for ((network, head), together) in networks.iter().zip(HEADS).zip(&together) {
                // Alone, one row after the other: the same bits.
                let alone = Adapted::new(&plain(1), &network.adapter().unwrap().unwrap()).unwrap();
                for (request, together) in requests(sizes.vocab, head).into_iter().zip(together) {
                    assert_eq!(ask(&alone, vec![request]), std::slice::from_ref(together), "{instructions:?}");
                }
                let merged = network.merged().unwrap();
                let merged =
                    Engine::new(network.config(), merged, words(sizes.vocab), head, options(instructions, 1)).unwrap();
                let expected = ask(&merged, requests(sizes.vocab, head));
                let mut changed = 0.0f32;
                for ((found, expected), base) in together.iter().zip(&expected).zip(&unadapted) {
                    for (x, y) in numbers(found).iter().zip(numbers(expected)) {
                        assert!((x - y).abs() <= 5e-5 * (1.0 + y.abs()), "{instructions:?} {head:?}: {x} and {y}");
                    }
                    changed =
                        numbers(found).iter().zip(numbers(base)).map(|(x, y)| (x - y).abs()).fold(changed, f32::max);
                }
                assert!(changed > 0.05, "the adapter changes nothing");
            }
        }
    }
}

#[test]
fn a_new_adapter_takes_the_place_of_the_old_one() {
    let base = base(ODD);
    let networks: Vec<Network> = (0..2).map(|seed| adapted(&base, seed, Head::Linear)).collect();
    let adapters: Vec<_> = networks.iter().map(|network| network.adapter().unwrap().unwrap()).collect();
    let engine = |_: ()| {
        let weights = base.merged().unwrap();
        Arc::new(Engine::new(base.config(), weights, words(ODD.vocab), Head::None, EngineOptions::default()).unwrap())
    };
    let (one, two) = (engine(()), engine(()));
    let (model, other) = (Adapted::new(&one, &adapters[0]).unwrap(), Adapted::new(&one, &adapters[0]).unwrap());
    let rows = || requests(ODD.vocab, Head::Linear);
    let before = ask(&model, rows());
    assert_eq!(before, ask(&other, rows()));
    model.reload(&adapters[1]).unwrap();
    let expected = ask(&Adapted::new(&two, &adapters[1]).unwrap(), rows());
    assert_ne!(before, expected);
    assert_eq!(ask(&model, rows()), expected);
    // Its neighbour still has the old one, and the prefixes it knew.
    let hits = one.stats().prefix_hit_tokens;
    assert_eq!(before, ask(&other, rows()));
    assert!(one.stats().prefix_hit_tokens > hits);
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let engine = |sizes: Sizes| {
        let base = base(sizes);
        let weights = base.merged().unwrap();
        Arc::new(Engine::new(base.config(), weights, words(sizes.vocab), Head::None, EngineOptions::default()).unwrap())
    };
    let adapter = adapted(&base(ODD), 0, Head::None).adapter().unwrap().unwrap();
    let error = Adapted::new(&engine(POCKET), &adapter).unwrap_err().to_string();
    assert!(error.contains("self_attn.o_proj.lora_A.weight: has shape [3, 60]"), "{error}");
    let model = Adapted::new(&engine(ODD), &adapter).unwrap();
    let request = Request { prompt: vec![1], task: Task::Reward };
    let error = block_on(model.submit(vec![request])).unwrap_err().to_string();
    assert!(error.contains("has no reward head"), "{error}");
    // Whole modules are no low-rank difference.
    let lora = LoraConfig { r: 2, modules_to_save: vec!["lm_head".into()], ..LoraConfig::default() };
    assert!(base(ODD).with_lora(&lora, key(1, &[])).unwrap().adapter().unwrap().is_none());
    assert!(base(ODD).with_full_training().unwrap().adapter().unwrap().is_none());
}
