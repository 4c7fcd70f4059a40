//! A row's bits are its own: whatever it is batched with, wherever its prefix comes from, whichever worker runs it.

use std::sync::Arc;

use futures::executor::block_on;
use salmon::draw::key;
use salmon::engine::{Engine, EngineOptions, Inference, Instructions, Output, Request, Sampling, Task};
use salmon::model::Head;

use crate::engine_support::{Checkpoint, ODD, POCKET, Sizes, generate, greedy, run, text};

/// 64 rows of all kinds, of all lengths, many with long common prefixes.
fn mixed(vocab: usize) -> Vec<Request> {
    let sampling = Sampling { temperature: 0.8, top_p: 0.95, top_k: 0, max_tokens: 24, stop: Vec::new() };
    let sampling = Arc::new(sampling);
    let shared = text("shared", 53, vocab);
    let row = |i: usize| {
        let mut prompt = if i.is_multiple_of(3) { Vec::new() } else { shared[..i % 54].to_vec() };
        prompt.extend(text(&i.to_string(), 1 + i * 7 % 40, vocab));
        let tokens = (0..vocab as u32).step_by(7).collect();
        match i % 4 {
            0 => Request { prompt, task: Task::Choice { tokens } },
            1 => Request { prompt, task: Task::Logprobs { response: text("response", 1 + i % 30, vocab) } },
            2 => generate(prompt, &sampling, key(4, &["row"]).with(i as u64)),
            _ => Request { prompt, task: Task::Reward },
        }
    };
    (0..64).map(row).collect()
}

fn bits(output: &Output) -> (Vec<u32>, Vec<u32>) {
    let of = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect();
    match output {
        Output::Generation(g) => (of(&g.logprobs), g.ids.clone()),
        Output::Logits(values) | Output::Logprobs(values) => (of(values), Vec::new()),
        Output::Reward(score) => (of(&[*score]), Vec::new()),
    }
}

fn all_bits(outputs: &[Output]) -> Vec<(Vec<u32>, Vec<u32>)> {
    outputs.iter().map(bits).collect()
}

fn engine(checkpoint: &Checkpoint, workers: usize, max_batch_tokens: usize, instructions: Instructions) -> Engine {
    let options = EngineOptions { workers, max_batch_tokens, kv_bytes: 0, instructions: Some(instructions) };
    checkpoint.engine(Head::Linear, options)
}

#[test]
fn bits_do_not_depend_on_batch_prefix_or_worker() {
    for sizes in [POCKET, ODD] {
        let checkpoint = Checkpoint::random(sizes, 21);
        for instructions in Instructions::available() {
            let requests = mixed(sizes.vocab);
            // Alone: one request at a time, each on an engine that knows no prefix.
            let alone: Vec<_> = requests
                .iter()
                .flat_map(|request| run(&engine(&checkpoint, 1, 200, instructions), vec![request.clone()]))
                .collect();
            let alone = all_bits(&alone);
            for (workers, rows) in [(1, 256), (2, 256), (2, 7), (1, 64)] {
                let engine = engine(&checkpoint, workers, rows, instructions);
                let first = run(&engine, requests.clone());
                let hits = engine.stats().prefix_hit_tokens;
                assert!(hits > 0);
                assert!(all_bits(&first) == alone, "{instructions:?}, {workers} workers, {rows} rows");
                // Now nearly every prefix is known.
                let again = run(&engine, requests.iter().rev().cloned().collect());
                assert!(engine.stats().prefix_hit_tokens > 2 * hits);
                assert!(all_bits(&again).into_iter().rev().eq(alone.iter().cloned()), "{instructions:?} again");
            }
        }
    }
}

/// Nearly 20 MB of weights, so that all threads of an engine compute each step together.
const LARGE: Sizes = Sizes {
    vocab: 4099,
    hidden: 256,
    intermediate: 700,
    layers: 4,
    heads: 8,
    kv_heads: 2,
    head_dim: 32,
    context: 256,
    tied: false,
};

#[test]
fn bits_do_not_depend_on_how_many_threads_share_a_step() {
    let checkpoint = Checkpoint::random(LARGE, 26);
    let requests = mixed(LARGE.vocab);
    let fastest = Instructions::available()[0];
    let one = engine(&checkpoint, 1, 128, fastest);
    assert!(one.weight_bytes() > 8 << 20);
    let alone = all_bits(&run(&one, requests.clone()));
    for (threads, rows) in [(2, 128), (3, 9), (5, 64)] {
        let engine = engine(&checkpoint, threads, rows, fastest);
        // The second time, most prefixes are known, and helpers have slept meanwhile.
        for _ in 0..2 {
            assert!(all_bits(&run(&engine, requests.clone())) == alone, "{threads} threads, {rows} rows");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Weights that 8 or 16 bits hold rest in these; they are the same weights.
#[test]
fn bits_do_not_depend_on_the_form_in_which_weights_rest() {
    let f32_bytes = engine(&Checkpoint::random(ODD, 27), 1, 1, Instructions::Portable).weight_bytes();
    let to_bf16 = |row: &mut [f32]| row.iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits() & 0xffff_0000));
    let to_f16 = |row: &mut [f32]| row.iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32());
    // As `load_in_8bit` has them.
    let to_int8 = |row: &mut [f32]| {
        let largest = row.iter().fold(0f32, |most, x| most.max(x.abs()));
        row.iter_mut().for_each(|x| *x = f32::from((*x * 127.0 / largest).round() as i8) * (largest / 127.0));
    };
    for (fewer_bits, smaller) in [(to_bf16 as fn(&mut [f32]), 2), (to_f16, 2), (to_int8, 4)] {
        let mut checkpoint = Checkpoint::random(ODD, 27);
        for (shape, values) in checkpoint.tensors.values_mut() {
            values.chunks_mut(shape[shape.len() - 1]).for_each(fewer_bits);
        }
        let engine_of = |c: &Checkpoint, instructions| engine(c, 2, 64, instructions);
        assert_eq!(engine_of(&checkpoint, Instructions::Portable).weight_bytes() * smaller, f32_bytes);
        // The odd weight makes the whole matrix f32; no row asks for the last token, and none reads its embedding.
        let mut wide = checkpoint.clone();
        for name in ["lm_head.weight", "model.embed_tokens.weight"] {
            if let Some(last) = wide.tensors.get_mut(name).and_then(|(_, values)| values.last_mut()) {
                *last += 1e-7;
            }
        }
        assert!(engine_of(&wide, Instructions::Portable).weight_bytes() * smaller > f32_bytes);
        let tokens: Vec<u32> = (0..ODD.vocab as u32 - 1).collect();
        let row = |i: usize| Request {
            prompt: text(&i.to_string(), 1 + 3 * i, ODD.vocab - 1),
            task: Task::Choice { tokens: tokens.clone() },
        };
        let requests: Vec<Request> = (0..20).map(row).collect();
        for instructions in Instructions::available() {
            let bits_of = |c: &Checkpoint| all_bits(&run(&engine_of(c, instructions), requests.clone()));
            assert!(bits_of(&checkpoint) == bits_of(&wide), "{instructions:?}");
        }
    }
}

#[test]
fn instruction_sets_with_fused_multiply_add_agree() {
    let checkpoint = Checkpoint::random(ODD, 22);
    let fused = Instructions::available().into_iter().filter(|&i| i != Instructions::Portable);
    let outputs: Vec<_> = fused.map(|i| all_bits(&run(&engine(&checkpoint, 1, 256, i), mixed(ODD.vocab)))).collect();
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_common_prefix_is_computed_once() {
    let checkpoint = Checkpoint::random(POCKET, 23);
    for workers in [1, 2] {
        let engine = engine(&checkpoint, workers, 128, Instructions::available()[0]);
        let prefix = text("prefix", 150, POCKET.vocab);
        let mut requests = Vec::new();
        for i in 0..22 {
            let prompt = [prefix.as_slice(), &text(&i.to_string(), 20, POCKET.vocab)].concat();
            requests.push(Request { prompt, task: Task::Choice { tokens: vec![1, 2] } });
        }
        run(&engine, requests);
        let stats = engine.stats();
        // 150 tokens are 9 whole blocks of 16.
        assert_eq!(stats.prefix_hit_tokens, 21 * 144);
        assert_eq!(stats.prompt_tokens, 22 * 170 - 21 * 144);
        assert_eq!(stats.rows, 22);
    }
}

#[test]
fn little_memory_makes_rows_wait_not_differ() {
    let sizes = Sizes { context: 96, ..ODD };
    let checkpoint = Checkpoint::random(sizes, 24);
    let requests: Vec<Request> =
        (0..40).map(|i| generate(text(&(i % 9).to_string(), 40, sizes.vocab), &greedy(30), key(0, &[]))).collect();
    let plenty = run(&checkpoint.engine(Head::None, EngineOptions::default()), requests.clone());
    // 2 layers, 2 heads of keys (2 halves of 16 lanes) and values (16 lanes), 16 tokens: 6 blocks are one context.
    let kv_bytes = 7 * 2 * 2 * (32 + 16) * 16 * 4;
    let options = EngineOptions { workers: 2, kv_bytes, ..EngineOptions::default() };
    let scarce = checkpoint.engine(Head::None, options.clone());
    for _ in 0..3 {
        assert_eq!(run(&scarce, requests.clone()), plenty);
    }
    let options = EngineOptions { kv_bytes: kv_bytes / 2, ..options };
    let words = crate::engine_support::words(sizes.vocab);
    let error = Engine::new(&checkpoint.config, checkpoint.weights(), words, Head::None, options).unwrap_err();
    assert!(error.to_string().contains("kv_bytes") && error.to_string().contains("at least"), "{error}");
}

#[test]
fn submissions_run_side_by_side() {
    let checkpoint = Checkpoint::random(ODD, 25);
    let engine = engine(&checkpoint, 2, 64, Instructions::available()[0]);
    let expected = run(&engine, mixed(ODD.vocab));
    let futures: Vec<_> = mixed(ODD.vocab).chunks(5).map(|rows| engine.submit(rows.to_vec())).collect();
    let outputs: Vec<Output> = block_on(futures::future::try_join_all(futures)).unwrap().concat();
    assert_eq!(outputs, expected);
    assert_eq!(block_on(engine.submit(Vec::new())).unwrap(), []);
}

#[test]
fn reloaded_weights_answer_like_a_new_engine() {
    let (old, new) = (Checkpoint::random(ODD, 26), Checkpoint::random(ODD, 27));
    let engine = engine(&old, 2, 64, Instructions::available()[0]);
    let before = engine.submit(mixed(ODD.vocab));
    engine.reload(new.weights()).unwrap();
    let after = run(&engine, mixed(ODD.vocab));
    assert_eq!(block_on(before).unwrap(), run(&old.engine(Head::Linear, EngineOptions::default()), mixed(ODD.vocab)));
    assert_eq!(after, run(&new.engine(Head::Linear, EngineOptions::default()), mixed(ODD.vocab)));
    let mut damaged = new.weights();
    damaged.remove("model.norm.weight");
    assert!(engine.reload(damaged).unwrap_err().to_string().starts_with("model.norm.weight: "));
    assert_eq!(run(&engine, mixed(ODD.vocab)), after);
}
