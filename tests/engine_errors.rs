//! Bad requests, bad weights and dropped futures: a clear error or a clean stop, never a hang.

use std::sync::Arc;

use futures::executor::block_on;
use salmon::draw::key;
use salmon::engine::{Engine, EngineOptions, Inference, Request, Sampling, Task};
use salmon::error::Kind;
use salmon::model::Head;
use tch::Tensor;

use crate::engine_support::{Checkpoint, ODD, Sizes, generate, greedy, run, text, words};

fn refused(engine: &Engine, request: Request) -> String {
    let good = generate(vec![1, 2], &greedy(1), key(0, &[]));
    let error = block_on(engine.submit(vec![good, request])).unwrap_err();
    assert_eq!((error.kind(), error.place()), (Kind::Data, "request 1"));
    assert_eq!(engine.stats().steps, 0, "nothing may run");
    error.to_string()
}

#[test]
fn bad_requests_are_named_before_anything_runs() {
    let engine = Checkpoint::random(ODD, 41).engine(Head::None, EngineOptions::default());
    let choice = |prompt: Vec<u32>, tokens: Vec<u32>| Request { prompt, task: Task::Choice { tokens } };
    let long = text("long", 131, 97);
    let with = |change: &dyn Fn(&mut Sampling)| {
        let mut sampling = (*greedy(5)).clone();
        change(&mut sampling);
        generate(vec![1], &Arc::new(sampling), key(0, &[]))
    };
    let logprobs = Task::Logprobs { response: long[..31].to_vec() };
    for (request, says) in [
        (choice(vec![], vec![1]), "no tokens"),
        (choice(long.clone(), vec![1]), "131 tokens do not fit into the model's context of 130"),
        (choice(vec![1, 97], vec![1]), "token 97 at position 1 of the prompt"),
        (choice(vec![1], vec![5, 6, 100]), "token 100 at position 2 of the choice"),
        (choice(vec![1], vec![]), "no tokens to choose from"),
        (generate(long[..130].to_vec(), &greedy(1), key(0, &[])), "no room for a response"),
        (Request { prompt: long[..100].to_vec(), task: logprobs }, "131 tokens do not fit"),
        (Request { prompt: vec![1], task: Task::Reward }, "no reward head"),
        (with(&|s| s.temperature = -1.0), "temperature is -1"),
        (with(&|s| s.temperature = f64::NAN), "temperature is NaN"),
        (with(&|s| s.top_p = 0.0), "top_p is 0"),
        (with(&|s| s.max_tokens = 0), "max_tokens is 0"),
        (with(&|s| s.stop = vec!["x".into(), String::new()]), "a stop string is empty"),
    ] {
        let line = refused(&engine, request);
        assert!(line.contains(says), "{line}");
    }
}

#[test]
fn bad_weights_and_options_are_named() {
    let checkpoint = Checkpoint::random(ODD, 42);
    let open = |change: &dyn Fn(&mut std::collections::BTreeMap<String, Tensor>), head, options| {
        let mut weights = checkpoint.weights();
        change(&mut weights);
        Engine::new(&checkpoint.config, weights, words(97), head, options).unwrap_err().to_string()
    };
    let name = "model.layers.1.mlp.up_proj.weight";
    let usual = EngineOptions::default;
    let line = open(&|w| drop(w.remove(name)), Head::None, usual());
    assert_eq!(line, format!("{name}: this tensor is missing"));
    let line = open(&|w| drop(w.insert(name.into(), Tensor::from_slice(&[1f32]))), Head::None, usual());
    assert_eq!(line, format!("{name}: has shape [1]; config.json needs [101, 42]"));
    assert!(open(&|w| drop(w.remove("score.weight")), Head::Linear, usual()).starts_with("score.weight: "));
    assert!(open(&|_| (), Head::YesNo { yes: 1, no: 97 }, usual()).contains("tokens 1 and 97"));
    let none = EngineOptions { max_batch_tokens: 0, ..usual() };
    assert!(open(&|_| (), Head::None, none).starts_with("max_batch_tokens: "));
}

#[test]
fn weights_that_are_no_numbers_fail_their_requests_only() {
    let good = Checkpoint::random(ODD, 43);
    let mut damaged = good.clone();
    // Row 5 of the embedding: only prompts with token 5 are hit.
    damaged.tensors.get_mut("model.embed_tokens.weight").unwrap().1[5 * 42..6 * 42].fill(f32::NAN);
    let engine = damaged.engine(Head::Linear, EngineOptions::default());
    let ask = |first: u32| {
        let logprobs = Task::Logprobs { response: vec![1, 2, 3] };
        let prompt = vec![first; 20];
        vec![
            generate(prompt.clone(), &greedy(9), key(0, &[])),
            Request { prompt: prompt.clone(), task: logprobs },
            Request { prompt: prompt.clone(), task: Task::Choice { tokens: vec![1] } },
            Request { prompt, task: Task::Reward },
        ]
    };
    for request in ask(5) {
        let error = block_on(engine.submit(vec![request])).unwrap_err();
        assert!(error.to_string().contains("NaN"), "{error}");
    }
    let expected = run(&good.engine(Head::Linear, EngineOptions::default()), ask(4));
    assert_eq!(run(&engine, ask(4)), expected);
}

#[test]
fn dropping_a_future_cancels_its_rows() {
    let sizes = Sizes { context: 4096, ..ODD };
    let checkpoint = Checkpoint::random(sizes, 44);
    let engine = checkpoint.engine(Head::None, EngineOptions { max_batch_tokens: 32, ..EngineOptions::default() });
    let long = |i: u64| generate(text("long", 30, 97), &greedy(4000), key(i, &[]));
    let running = engine.submit((0..200).map(long).collect());
    let short = || vec![generate(vec![1, 2, 3], &greedy(5), key(0, &[]))];
    let next = engine.submit(short());
    drop(running);
    assert_eq!(block_on(next).unwrap().len(), 1);
    // A reload waits for everything that runs: nothing does.
    engine.reload(checkpoint.weights()).unwrap();
    let stats = engine.stats();
    assert_eq!(stats.rows, 1);
    assert!(stats.generated_tokens < 200 * 4000);
    // An engine that goes away fails what is still running.
    let running = engine.submit((0..200).map(long).collect());
    drop(engine);
    assert!(block_on(running).unwrap_err().to_string().contains("stopped before"));
}
