//! Sampled tokens follow the model's probabilities, and responses end where they should.

use std::sync::Arc;

use salmon::draw::key;
use salmon::engine::{Engine, EngineOptions, Finish, Generation, Output, Sampling};
use salmon::model::Head;

use crate::engine_support::{Checkpoint, ODD, Sizes, generate, greedy, log_sum_exp, run, spelled, text};

const SMALL: Sizes = Sizes { vocab: 19, ..ODD };
const ROWS: usize = 4000;

fn sampling(temperature: f64, top_k: usize, top_p: f64) -> Arc<Sampling> {
    Arc::new(Sampling { temperature, top_p, top_k, max_tokens: 1, stop: Vec::new() })
}

/// Brings the logits closer to each other.
fn flatten(checkpoint: &mut Checkpoint, factor: f32) {
    for value in &mut checkpoint.tensors.get_mut("lm_head.weight").unwrap().1 {
        *value *= factor;
    }
}

/// The probabilities that temperature, top-k and top-p leave, by sorting.
fn expected(logits: &[f64], s: &Sampling) -> Vec<f64> {
    let scaled: Vec<f64> = logits.iter().map(|x| x / s.temperature).collect();
    let total = log_sum_exp(&scaled);
    let mut order: Vec<usize> = (0..scaled.len()).collect();
    order.sort_by(|&a, &b| scaled[b].total_cmp(&scaled[a]));
    if s.top_k > 0 {
        order.truncate(s.top_k);
    }
    let all: f64 = order.iter().map(|&i| (scaled[i] - total).exp()).sum();
    let mut out = vec![0.0; scaled.len()];
    let mut sum = 0.0;
    for i in order {
        if sum >= s.top_p * all {
            break;
        }
        out[i] = (scaled[i] - total).exp();
        sum += out[i];
    }
    out.iter().map(|p| p / sum).collect()
}

#[test]
fn tokens_follow_the_probabilities() {
    let mut checkpoint = Checkpoint::random(SMALL, 31);
    flatten(&mut checkpoint, 0.5);
    let engine = checkpoint.engine(Head::None, EngineOptions::default());
    let prompt = text("sampling", 20, SMALL.vocab);
    let logits = checkpoint.reference_logits(&prompt).pop().unwrap();
    let log_total = log_sum_exp(&logits);
    let settings = [(1.0, 0, 1.0), (0.6, 0, 1.0), (1.5, 0, 1.0), (1.0, 4, 1.0), (0.9, 0, 0.7), (1.2, 9, 0.8)];
    for (n, (temperature, top_k, top_p)) in settings.into_iter().enumerate() {
        let sampling = sampling(temperature, top_k, top_p);
        let rows = (0..ROWS as u64).map(|i| generate(prompt.clone(), &sampling, key(n as u64, &["row"]).with(i)));
        let mut counts = [0.0; SMALL.vocab];
        for output in run(&engine, rows.collect()) {
            let Output::Generation(g) = output else { panic!("not a generation") };
            let token = g.ids[0] as usize;
            counts[token] += 1.0;
            // Always at temperature 1 over the whole vocabulary.
            assert!((f64::from(g.logprobs[0]) - (logits[token] - log_total)).abs() < 2e-5);
        }
        let (mut chi, mut cells) = (0.0, 0.0);
        for (token, probability) in expected(&logits, &sampling).into_iter().enumerate() {
            if probability == 0.0 {
                assert_eq!(counts[token], 0.0, "token {token} was cut off by {sampling:?}");
                continue;
            }
            let expected = probability * ROWS as f64;
            chi += (counts[token] - expected).powi(2) / expected;
            cells += 1.0;
        }
        // Mean and standard deviation of chi-square with cells - 1 degrees of freedom.
        let freedom: f64 = cells - 1.0;
        assert!(freedom >= 2.0, "{sampling:?} leaves too little to compare");
        assert!(chi < freedom + 4.0 * (2.0 * freedom).sqrt(), "{sampling:?}: chi-square {chi}, {freedom} degrees");
    }
}

#[test]
fn top_p_reaches_far_into_a_large_vocabulary() {
    // Nearly equal probabilities: the most likely half holds hundreds of tokens.
    let sizes = Sizes { vocab: 1000, ..SMALL };
    let mut checkpoint = Checkpoint::random(sizes, 32);
    flatten(&mut checkpoint, 0.05);
    let engine = checkpoint.engine(Head::None, EngineOptions::default());
    let prompt = text("flat", 9, sizes.vocab);
    let sampling = sampling(1.0, 0, 0.5);
    let probabilities = expected(&checkpoint.reference_logits(&prompt).pop().unwrap(), &sampling);
    assert!(probabilities.iter().filter(|&&p| p > 0.0).count() > 200);
    let rows = (0..ROWS as u64).map(|i| generate(prompt.clone(), &sampling, key(7, &["flat"]).with(i))).collect();
    let mut drawn = std::collections::BTreeSet::new();
    for output in run(&engine, rows) {
        let Output::Generation(g) = output else { panic!("not a generation") };
        assert!(probabilities[g.ids[0] as usize] > 0.0);
        drawn.insert(g.ids[0]);
    }
    assert!(drawn.len() > 200);
}

/// A model that says its tokens in order, whatever came before: `token -> token + 1`.
fn counting(texts: &[&str], context: usize, end: Option<u32>) -> Engine {
    let n = texts.len();
    let sizes = Sizes { vocab: n, hidden: n, layers: 1, heads: 1, kv_heads: 1, head_dim: 4, context, ..ODD };
    let mut checkpoint = Checkpoint::random(sizes, 33);
    for (name, (shape, values)) in &mut checkpoint.tensors {
        let width = shape[shape.len() - 1];
        let next = usize::from(name == "lm_head.weight");
        for (i, value) in values.iter_mut().enumerate() {
            *value = match name.as_str() {
                "model.norm.weight" => 10.0,
                "model.embed_tokens.weight" | "lm_head.weight" => f32::from(i / width == (i % width + next) % n),
                _ => 0.0,
            };
        }
    }
    checkpoint.config.eos_token_ids = end.into_iter().collect();
    let tokenizer = spelled(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
    Engine::new(&checkpoint.config, checkpoint.weights(), tokenizer, Head::None, EngineOptions::default()).unwrap()
}

fn say(engine: &Engine, prompt: &[u32], max_tokens: usize, stop: &[&str]) -> Generation {
    let stop = stop.iter().map(ToString::to_string).collect();
    let sampling = Arc::new(Sampling { stop, ..(*greedy(max_tokens)).clone() });
    match run(engine, vec![generate(prompt.to_vec(), &sampling, key(0, &[]))]).remove(0) {
        Output::Generation(g) => g,
        other => panic!("{other:?}"),
    }
}

const TEXTS: [&str; 8] = ["Once", " upon", " a ti", "me #", "#", "# User", "</s>", "zzz"];

#[test]
fn responses_end_at_stop_strings_end_tokens_and_limits() {
    let engine = counting(&TEXTS, 40, Some(6));
    type Case<'a> = (&'a [u32], usize, &'a [&'a str], &'a [u32], &'a str, Finish);
    let cases: [Case<'_>; 8] = [
        (&[0], 3, &[], &[1, 2, 3], " upon a time #", Finish::Length),
        (&[0], 9, &[], &[1, 2, 3, 4, 5, 6], " upon a time ### User", Finish::Stop),
        // Spread over three tokens, and cut before it.
        (&[0], 9, &["###"], &[1, 2, 3, 4, 5], " upon a time ", Finish::Stop),
        (&[0], 9, &["never", "time"], &[1, 2, 3], " upon a ", Finish::Stop),
        // Of two that end in the same token, the one that begins first.
        (&[0], 9, &["e", "a time"], &[1, 2, 3], " upon ", Finish::Stop),
        (&[0], 9, &[" up"], &[1], "", Finish::Stop),
        // The prompt's text is not part of the response.
        (&[0, 1, 2], 9, &["time"], &[3, 4, 5, 6], "me ### User", Finish::Stop),
        (&[0], 2, &["me"], &[1, 2], " upon a ti", Finish::Length),
    ];
    for (prompt, max_tokens, stop, ids, text, finish) in cases {
        let g = say(&engine, prompt, max_tokens, stop);
        assert_eq!((g.ids.as_slice(), g.text.as_str(), g.finish), (ids, text, finish), "stop {stop:?}");
        assert_eq!(g.logprobs.len(), ids.len());
    }
}

#[test]
fn the_context_ends_a_response() {
    let engine = counting(&TEXTS, 20, None);
    let g = say(&engine, &[0; 17], 1000, &[]);
    assert_eq!((g.ids.as_slice(), g.finish), (&[1, 2, 3][..], Finish::Length));
    assert_eq!(say(&engine, &[0; 19], 1000, &[]).ids, [1]);
}
