//! `sql/rollouts.sql`: draws by weight, shaping and epochs, against independent samplers and a plain reference.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::DataType;
use salmon::draw::key;
use salmon::engine::Sampling;
use salmon::query::{LiveTable, Params, Prepared};
use serde_json::{Value, json};

use crate::sql_support::{
    Bench, Drawn, Rows, Toy, chi_square, chi_square_bound, close, columns, list, render, uniform,
};

const SQL: &str = include_str!("../sql/rollouts.sql");
const PROMPTS: &str = include_str!("../sql/ppo_prompts.sql");

const TEXTS: [&str; 4] = [
    "short",
    " \n padded \n",
    "an answer of some length that still stops",
    "an answer that goes on and on and on and never stops at all",
];

/// One principle that a policy may be shown.
struct Shown {
    name: &'static str,
    weight: f64,
    tags: &'static [&'static str],
    always: bool,
}

const fn drawn(name: &'static str, weight: f64, tags: &'static [&'static str]) -> Shown {
    Shown { name, weight, tags, always: false }
}

const fn always(name: &'static str) -> Shown {
    Shown { name, weight: 0.0, tags: &["logic"], always: true }
}

const POOL: [Shown; 8] = [
    always("zeta"),
    always("alpha"),
    drawn("heavy", 4.0, &[]),
    drawn("middle", 3.0, &["safe"]),
    drawn("light", 1.0, &["other"]),
    drawn("logical", 1.0, &["logic", "numbers"]),
    drawn("asleep", 0.0, &["safe"]),
    drawn("never", 0.0, &[]),
];

const BOOSTS: [(&str, &str, f64); 3] =
    [("reasoning", "logic", 128.0), ("reasoning", "numbers", 7.0), ("red_teaming", "safe", 128.0)];

/// `(prompt_id, kind, multiplier)`.
type Prompt = (String, &'static str, f64);

fn prompts(n: usize) -> Vec<Prompt> {
    let kinds = [("general", 1.0), ("reasoning", -0.4), ("red_teaming", 1.0)];
    (0..n).map(|i| (format!("p{i:02}"), kinds[i % 3].0, kinds[i % 3].1)).collect()
}

fn bench(prompts: &[Prompt], pool: &[Shown], partitions: usize) -> Bench {
    let text = || DataType::Utf8;
    let prompt = |(id, kind, multiplier): &Prompt| json!({"prompt_id": id, "instruction": format!("Tell {id}"), "kind": kind, "length_bonus": multiplier});
    let shown = |(ordinal, p): (usize, &Shown)| {
        json!({"ordinal": ordinal, "name": p.name, "negated": p.name == "alpha", "text": format!("be {}", p.name),
               "weight": p.weight, "tags": p.tags, "always": p.always})
    };
    let boosts: Vec<Value> =
        BOOSTS.iter().map(|(kind, tag, weight)| json!({"kind": kind, "tag": tag, "weight": weight})).collect();
    Bench::new(&["policy", "reward"], &TEXTS, partitions)
        .table(
            "ppo_prompts",
            columns(&[
                ("prompt_id", text()),
                ("instruction", text()),
                ("kind", text()),
                ("length_bonus", DataType::Float64),
            ]),
            &prompts.iter().map(prompt).collect::<Vec<_>>(),
        )
        .table(
            "policy_principles",
            columns(&[
                ("ordinal", DataType::Int64),
                ("name", text()),
                ("negated", DataType::Boolean),
                ("text", text()),
                ("weight", DataType::Float64),
                ("tags", list(text())),
                ("always", DataType::Boolean),
            ]),
            &pool.iter().enumerate().map(shown).collect::<Vec<_>>(),
        )
        .table("boosts", columns(&[("kind", text()), ("tag", text()), ("weight", DataType::Float64)]), &boosts)
}

const SEED: u64 = 6;
const MAX_TOKENS: usize = 50;

/// The method's constants, at a tenth of the length.
fn params(batch: i64, draw: i64) -> Params {
    Params::new()
        .with("seed", SEED as i64)
        .with("policy", "main")
        .with("batch_size", batch)
        .with("draw", draw)
        .with("chat_template", "chat")
        .with("reward_template", "reward")
        .with("temperature", 0.7)
        .with("top_p", 1.0)
        .with("max_tokens", MAX_TOKENS as i64)
        .with_texts::<&str>("stop", &[])
        .with("max_query_tokens", 6i64)
        .with("max_response_tokens", 20i64)
        .with("length_bonus", 5.0)
        .with("length_bonus_tokens", 40.0)
        .with("length_bonus_cap", 0.8)
        .with("stop_penalty", 6.0)
        .with("normalize", false)
}

/// The columns of the row that says where the trainer stands.
fn place() -> arrow::datatypes::SchemaRef {
    let real = || DataType::Float64;
    columns(&[("step", DataType::Int64), ("first_mean", real()), ("first_deviation", real())])
}

/// The rollouts of one step, planned for it alone; `first` is the first step's mean and deviation.
async fn rollouts(bench: &Bench, step: i64, params: &Params, first: Option<(f64, f64)>) -> Rows {
    let row = json!({"step": step, "first_mean": first.map(|f| f.0), "first_deviation": first.map(|f| f.1)});
    bench.put("ppo_step", place(), &[row]);
    bench.run(SQL, params).await
}

/// The weight of a principle for a prompt of that kind.
fn weight(principle: &Shown, kind: &str) -> f64 {
    let boost = BOOSTS.iter().filter(|b| b.0 == kind && principle.tags.contains(&b.1)).map(|b| b.2).sum::<f64>();
    principle.weight + boost
}

/// The exponential race by the book: the smallest waiting times at rate = weight come first.
fn race(pool: &[Shown], kind: &str, step: i64, slot: i64, draw: usize) -> Vec<&'static str> {
    let mut waits: Vec<(f64, &str)> = pool
        .iter()
        .filter(|p| !p.always && weight(p, kind) > 0.0)
        .map(|p| {
            let u = uniform(SEED, &["principles", "main", &step.to_string(), &slot.to_string(), p.name]);
            (-(1.0 - u).ln() / weight(p, kind), p.name)
        })
        .collect();
    waits.sort_by(|a, b| a.0.total_cmp(&b.0));
    let fixed = pool.iter().filter(|p| p.always).map(|p| p.name);
    fixed.chain(waits.into_iter().take(draw).map(|(_, name)| name)).collect()
}

fn names(principles: &[Drawn]) -> Vec<&str> {
    principles.iter().map(|p| p.name.as_str()).collect()
}

/// Prompts in the order of an epoch.
fn epoch(prompts: &[Prompt], epoch: i64) -> Vec<Prompt> {
    let mut order = prompts.to_vec();
    let place = |p: &Prompt| uniform(SEED, &["ppo", "main", &epoch.to_string(), &p.0]);
    order.sort_by(|a, b| place(a).total_cmp(&place(b)).then(a.0.cmp(&b.0)));
    order
}

#[tokio::test]
async fn rows_are_those_of_the_reference() {
    let prompts = prompts(7);
    let toy = Toy { texts: TEXTS.to_vec() };
    let sampling = Sampling { temperature: 0.7, top_p: 1.0, top_k: 0, max_tokens: MAX_TOKENS, stop: vec![] };
    let (batch, draw) = (20i64, 3);
    let mut finishes = BTreeMap::new();
    for partitions in [1, 3] {
        let bench = bench(&prompts, &POOL, partitions);
        for step in [0i64, 1, 5] {
            let got = rollouts(&bench, step, &params(batch, draw), None).await;
            assert_eq!(got.len(), batch as usize);
            for slot in 0..batch {
                let at = slot as usize;
                let place = step * batch + slot;
                let (id, kind, multiplier) = epoch(&prompts, place / 7)[(place % 7) as usize].clone();
                assert_eq!(got.int(at, "slot"), Some(slot));
                assert_eq!(got.text(at, "prompt_id"), Some(id.as_str()));
                let shown = got.principles(at);
                assert_eq!(names(&shown), race(&POOL, kind, step, slot, draw as usize), "{kind}");
                for p in &shown {
                    assert_eq!((p.negated, p.score), (p.name == "alpha", None));
                    assert_eq!(p.text, format!("be {}", p.name));
                }
                let instruction = format!("Tell {id}");
                let prompt = render("chat", json!({"instruction": instruction}));
                assert_eq!(got.text(at, "prompt"), Some(prompt.as_str()));
                let answer = toy.generate(&prompt, &sampling, SEED, &format!("rollouts/main/{step}/{slot}"));
                assert_eq!(got.ids(at, "response_ids"), answer.ids);
                assert_eq!(got.text(at, "response"), Some(answer.text.trim()));
                assert_eq!(got.text(at, "finish_reason"), Some(answer.finish));
                *finishes.entry(answer.finish).or_insert(0) += 1;

                let texts: Vec<Value> = shown.iter().map(|p| json!({"text": p.text})).collect();
                let cut: String = answer.text.trim().chars().take(20).collect();
                let reviewed =
                    json!({"instruction": &instruction[instruction.len() - 6..], "response": cut, "principles": texts});
                let score = Toy::reward(&render("reward", reviewed));
                assert_eq!(got.real(at, "score"), Some(score));
                // 5.0 * min(multiplier * tokens / 1024, 0.8), here per 40 tokens; nothing is the floor.
                let bonus = 5.0 * (multiplier * answer.ids.len() as f64 / 40.0).min(0.8);
                assert!(close(got.real(at, "length_bonus").unwrap(), bonus));
                assert_eq!(bonus < 0.0, kind == "reasoning" && !answer.ids.is_empty());
                let penalty = if answer.finish == "stop" { 0.0 } else { -6.0 };
                assert_eq!(got.real(at, "stop_penalty"), Some(penalty));
                assert!(close(got.real(at, "reward").unwrap(), score + bonus + penalty));
            }
        }
    }
    assert_eq!(finishes.len(), 2);
}

#[tokio::test]
async fn the_length_bonus_of_the_method() {
    let bench = bench(&prompts(3), &POOL, 1);
    let published = params(30, 1).with("length_bonus_tokens", 1024.0);
    let got = rollouts(&bench, 0, &published, None).await;
    for i in 0..got.len() {
        let tokens = got.ids(i, "response_ids").len() as f64;
        let multiplier = if got.text(i, "prompt_id") == Some("p01") { -0.4 } else { 1.0 };
        assert!(close(got.real(i, "length_bonus").unwrap(), 5.0 * multiplier * tokens / 1024.0), "far from the cap");
    }
    let capped = rollouts(&bench, 0, &params(30, 1).with("length_bonus_tokens", 1.0), None).await;
    for i in 0..capped.len() {
        let bonus = capped.real(i, "length_bonus").unwrap();
        let reasoning = capped.text(i, "prompt_id") == Some("p01");
        assert!(if reasoning { bonus < -4.0 } else { bonus == 4.0 }, "5.0 * 0.8 at most, no floor: {bonus}");
    }
}

#[tokio::test]
async fn scores_are_normalised_by_the_first_batch() {
    let bench = bench(&prompts(5), &POOL, 3);
    let first = params(40, 2).with("normalize", true).with("length_bonus", 0.0).with("stop_penalty", 0.0);
    let got = rollouts(&bench, 0, &first, None).await;
    let scores: Vec<f64> = (0..got.len()).map(|i| got.real(i, "score").unwrap()).collect();
    let n = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / n;
    let deviation = (scores.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / n).sqrt() + 1e-4;
    for (i, score) in scores.iter().enumerate() {
        assert!(
            close(got.real(i, "score_mean").unwrap(), mean)
                && close(got.real(i, "score_deviation").unwrap(), deviation)
        );
        assert!(close(got.real(i, "reward").unwrap(), (score - mean) / deviation));
    }
    // Later steps are told what the first one found.
    let later = params(40, 2).with("normalize", true);
    let got = rollouts(&bench, 3, &later, Some((0.25, 2.0))).await;
    for i in 0..got.len() {
        let [score, bonus, penalty] = ["score", "length_bonus", "stop_penalty"].map(|c| got.real(i, c).unwrap());
        assert!(close(got.real(i, "reward").unwrap(), (score - 0.25) / 2.0 + bonus + penalty));
    }
}

#[tokio::test]
async fn no_bit_depends_on_partitions() {
    let prompts = prompts(11);
    let params = params(300, 3).with("normalize", true);
    let one = rollouts(&bench(&prompts, &POOL, 1), 0, &params, None).await;
    for partitions in [2, 5] {
        let more = bench(&prompts, &POOL, partitions);
        assert_eq!(rollouts(&more, 0, &params, None).await, one, "{partitions}");
    }
}

#[tokio::test]
async fn planned_once_it_gives_what_planning_every_step_gives() {
    let prompts = prompts(7);
    let params = params(20, 3).with("normalize", true);
    for partitions in [1, 3] {
        let (once, every) = (bench(&prompts, &POOL, partitions), bench(&prompts, &POOL, partitions));
        let schema = place();
        let live = LiveTable::register(&once.context, "ppo_step", schema.as_ref().clone()).unwrap();
        let prepared = Prepared::new(&once.context, SQL, &params).await.unwrap();
        for (step, first) in [(0, None), (1, Some((0.25, 2.0))), (5, Some((0.5, 1.0))), (0, None)] {
            let expected = rollouts(&every, step, &params, first).await;
            let real = |value: Option<f64>| Arc::new(Float64Array::from(vec![value]));
            let row: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from(vec![step])), real(first.map(|f| f.0)), real(first.map(|f| f.1))];
            live.set(RecordBatch::try_new(place(), row).unwrap());
            let got = prepared.run().await.unwrap();
            assert_eq!(got.columns(), expected.0.columns(), "step {step}, {partitions} partitions");
        }
    }
}

/// Draws by weight without replacement, one after the other: p of the first, then of the rest.
fn sequential(weights: &[f64], dice: salmon::draw::Key, count: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..weights.len()).collect();
    let mut chosen = Vec::new();
    for n in 0..count {
        let mut point = dice.uniform(n as u64) * left.iter().map(|i| weights[*i]).sum::<f64>();
        let at = left.iter().position(|i| {
            point -= weights[*i];
            point < 0.0
        });
        chosen.push(left.remove(at.unwrap_or(left.len() - 1)));
    }
    chosen
}

/// The exact probability of every ordered choice of two, by weight without replacement.
fn ordered(weights: &[f64]) -> BTreeMap<(usize, usize), f64> {
    let total: f64 = weights.iter().sum();
    let all = (0..weights.len()).flat_map(|a| (0..weights.len()).map(move |b| (a, b)));
    all.filter(|(a, b)| a != b).map(|(a, b)| ((a, b), weights[a] / total * weights[b] / (total - weights[a]))).collect()
}

#[tokio::test]
async fn principles_are_drawn_by_weight_without_replacement() {
    const EVEN: [Shown; 4] =
        [drawn("four", 4.0, &[]), drawn("three", 3.0, &[]), drawn("two", 2.0, &[]), drawn("one", 1.0, &[])];
    let weights = [4.0, 3.0, 2.0, 1.0];
    let prompts: Vec<Prompt> = vec![("p00".into(), "general", 1.0)];
    let got = rollouts(&bench(&prompts, &EVEN, 2), 0, &params(6000, 2), None).await;
    let exact = ordered(&weights);
    let index = |name: &str| EVEN.iter().position(|p| p.name == name).unwrap();
    let mut found: BTreeMap<(usize, usize), f64> = exact.keys().map(|pair| (*pair, 0.0)).collect();
    let mut plain = found.clone();
    for i in 0..got.len() {
        let shown = got.principles(i);
        assert_eq!(shown.len(), 2);
        *found.get_mut(&(index(&shown[0].name), index(&shown[1].name))).unwrap() += 1.0;
        let two = sequential(&weights, key(3, &["plain"]).with(i as u64), 2);
        *plain.get_mut(&(two[0], two[1])).unwrap() += 1.0;
    }
    let probabilities: Vec<f64> = exact.values().copied().collect();
    let bound = chi_square_bound(exact.len() - 1);
    for counts in [&found, &plain] {
        let counts: Vec<f64> = counts.values().copied().collect();
        assert!(chi_square(&counts, &probabilities) < bound, "{counts:?}");
    }
}

#[tokio::test]
async fn boosts_lift_principles_for_their_kind_alone() {
    let got = rollouts(&bench(&prompts(3), &POOL, 2), 0, &params(900, 1), None).await;
    let mut drawn: BTreeMap<(String, String), f64> = BTreeMap::new();
    for i in 0..got.len() {
        let shown = got.principles(i);
        assert_eq!(names(&shown[..2]), ["zeta", "alpha"], "always shown, in their own order, first");
        let id = got.text(i, "prompt_id").unwrap().to_string();
        *drawn.entry((id, shown[2].name.clone())).or_default() += 1.0;
    }
    for (id, kind) in [("p00", "general"), ("p01", "reasoning"), ("p02", "red_teaming")] {
        let (mut counts, mut weights) = (Vec::new(), Vec::new());
        for p in POOL.iter().filter(|p| !p.always) {
            let count = drawn.get(&(id.to_string(), p.name.to_string())).copied().unwrap_or(0.0);
            if weight(p, kind) > 0.0 {
                counts.push(count);
                weights.push(weight(p, kind));
            } else {
                assert_eq!(count, 0.0, "{kind}: {} has no weight", p.name);
            }
        }
        assert_eq!(counts.iter().sum::<f64>(), 300.0);
        let total: f64 = weights.iter().sum();
        let probabilities: Vec<f64> = weights.iter().map(|w| w / total).collect();
        assert!(chi_square(&counts, &probabilities) < chi_square_bound(counts.len() - 1), "{kind}: {counts:?}");
    }
    assert!(drawn.contains_key(&("p02".into(), "asleep".into())), "a boost wakes a principle of weight 0");
}

fn ids(got: &Rows) -> Vec<String> {
    (0..got.len()).map(|i| got.text(i, "prompt_id").unwrap().to_string()).collect()
}

#[tokio::test]
async fn every_epoch_has_every_prompt_once_in_an_order_of_its_own() {
    let prompts = prompts(10);
    let bench = bench(&prompts, &POOL, 2);
    let mut sequence = Vec::new();
    for step in 0..10 {
        sequence.extend(ids(&rollouts(&bench, step, &params(4, 1), None).await));
    }
    let all: Vec<String> = prompts.iter().map(|p| p.0.clone()).collect();
    let epochs: Vec<&[String]> = sequence.chunks(10).collect();
    for epoch in &epochs {
        let mut sorted = epoch.to_vec();
        sorted.sort();
        assert_eq!(sorted, all);
    }
    assert!(epochs.windows(2).all(|two| two[0] != two[1]) && epochs[0] != all.as_slice());
    // A batch of more than one epoch goes on in the next, and batches do not change the sequence.
    assert_eq!(ids(&rollouts(&bench, 0, &params(40, 1), None).await), sequence);
    assert_eq!(ids(&rollouts(&bench, 1, &params(20, 1), None).await), sequence[20..]);
}

#[tokio::test]
async fn prompts_for_ppo_have_their_length() {
    let row = |id: &str, length: usize, split: &str| {
        json!({"prompt_id": id, "instruction": "x".repeat(length), "source": "s", "kind": "general", "language": null,
               "length_bonus": 1.0, "split": split})
    };
    let rows =
        [row("d", 5, "train"), row("a", 2, "train"), row("b", 1, "train"), row("c", 6, "train"), row("e", 3, "test")];
    let bench = Bench::new(&["sft"], &TEXTS, 2).table("prompts", crate::sql_support::schema("prompts"), &rows);
    let params = |context: i64| {
        let lengths = Params::new().with("min_prompt_tokens", 2i64).with("max_prompt_tokens", 5i64);
        lengths.with("chat_template", "chat").with("context", context)
    };
    assert_eq!(ids(&bench.run(PROMPTS, &params(1_000)).await), ["a", "d"]);
    assert!(ids(&bench.run(PROMPTS, &params(3)).await).is_empty(), "no room for a response");
}
