//! `sql/prompts.sql`, `responses.sql` and `pairs.sql` against plain loops.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use salmon::draw::key;
use salmon::engine::Sampling;
use salmon::query::Params;
use serde_json::{Value, json};

use crate::sql_support::{Bench, CONTEXT, Rows, Toy, render, schema, shard, uniform};

const PROMPTS: &str = include_str!("../sql/prompts.sql");
const RESPONSES: &str = include_str!("../sql/responses.sql");
const PAIRS: &str = include_str!("../sql/pairs.sql");

/// `(prompt_id, instruction, split)`; one prompt is too long for the model.
fn prompts(n: usize) -> Vec<(String, String, &'static str)> {
    let one = |i: usize| {
        let instruction = if i == 3 { "x".repeat(CONTEXT) } else { format!("What is {i}?") };
        (format!("p{i:02}"), instruction, if i % 5 == 4 { "test" } else { "train" })
    };
    (0..n).map(one).collect()
}

pub(crate) fn prompt_rows(prompts: &[(String, String, &'static str)]) -> Vec<Value> {
    let row = |(id, instruction, split): &(String, String, &'static str)| {
        json!({"prompt_id": id, "instruction": instruction, "source": "s", "kind": "general", "language": "eng",
               "length_bonus": 1.0, "split": split})
    };
    prompts.iter().map(row).collect()
}

/// Train prompts in the order in which a stage draws them.
pub(crate) fn drawn<'a>(
    prompts: &'a [(String, String, &'static str)],
    seed: u64,
    stage: &str,
) -> Vec<(&'a str, &'a str)> {
    let mut train: Vec<(&str, &str)> =
        prompts.iter().filter(|p| p.2 == "train").map(|p| (p.0.as_str(), p.1.as_str())).collect();
    train.sort_by(|a, b| uniform(seed, &[stage, a.0]).total_cmp(&uniform(seed, &[stage, b.0])).then(a.0.cmp(b.0)));
    train
}

/// A prompt with its samples and responses, or the reason why it has none.
type Wanted<'a> = (&'a str, Option<(i64, i64, &'a str, &'a str)>, Option<&'a str>);

#[tokio::test]
async fn prompts_are_one_row_per_id_whatever_the_files() {
    let row = |id: &str, instruction: &str, source: &str, split: &str| {
        json!({"prompt_id": id, "instruction": instruction, "source": source, "kind": "general", "language": null,
               "length_bonus": 1.0, "split": split})
    };
    let mut rows = vec![
        row("b", "Two?", "x", "train"),
        row("a", "One?", "y", "train"),
        row("a", "One?", "x", "train"),
        row("a", "One?", "x", "test"),
        row("c", "Three?", "x", "train"),
    ];
    let mut seen = Vec::new();
    for _ in 0..2 {
        let got = Bench::new(&[], &[], 3)
            .table("imported_prompts", schema("prompts"), &rows)
            .run(PROMPTS, &Params::new())
            .await;
        let found: Vec<_> = (0..got.len())
            .map(|i| ["prompt_id", "source", "split"].map(|c| got.text(i, c).unwrap().to_string()))
            .collect();
        seen.push(found);
        rows.reverse();
    }
    let want = [["a", "x", "test"], ["b", "x", "train"], ["c", "x", "train"]];
    assert_eq!(seen[0], want.map(|row| row.map(String::from)));
    assert_eq!(seen[1], seen[0]);
}

#[tokio::test]
async fn responses_are_those_of_a_loop() {
    let texts =
        ["a fine answer", " \n padded with blanks \n", "short", "an answer that goes on beyond its forty tokens", ""];
    let toy = Toy { texts: texts.to_vec() };
    let prompts = prompts(23);
    let (seed, take, test, rounds, samples, shards) = (11u64, 9, 4, 3, 2, 3);
    let sampling = Sampling { temperature: 0.7, top_p: 0.9, top_k: 0, max_tokens: 40, stop: vec!["###".into()] };
    for drop_unfinished in [false, true] {
        for partitions in [1, 3] {
            let bench = Bench::new(&["sft"], &texts, partitions)
                .table("prompts", schema("prompts"), &prompt_rows(&prompts))
                .nothing_known("responses", &["instruction"]);
            let mut reasons = BTreeSet::new();
            let params = Params::new()
                .with("seed", seed as i64)
                .with("prompts", take as i64)
                .with("test_prompts", test as i64)
                .with("rounds", rounds)
                .with("samples", samples)
                .with("chat_template", "chat")
                .with("temperature", 0.7)
                .with("top_p", 0.9)
                .with("max_tokens", 40i64)
                .with_texts("stop", &["###"])
                .with("min_chars", 6i64)
                .with("drop_unfinished", drop_unfinished);
            for (part, got) in (0..).zip(bench.shards(RESPONSES, &params, shards).await) {
                let mut chosen: Vec<_> = drawn(&prompts, seed, "responses").into_iter().take(take + test).collect();
                chosen.sort();
                let mut at = 0;
                for (id, instruction) in chosen.into_iter().filter(|(id, _)| shard(id, shards) == part) {
                    for sample in 0..rounds * samples {
                        let prompt = render("chat", json!({"instruction": instruction}));
                        let answer = toy.generate(&prompt, &sampling, seed, &format!("responses/{id}/{sample}"));
                        let response = answer.text.trim();
                        let reason = if answer.finish == "prompt_too_long" {
                            Some("prompt_too_long")
                        } else if response.len() < 6 {
                            Some("too_short")
                        } else if drop_unfinished && answer.finish == "length" {
                            Some("unfinished")
                        } else {
                            None
                        };
                        assert_eq!(got.text(at, "prompt_id"), Some(id));
                        assert_eq!(got.int(at, "sample"), Some(sample));
                        assert_eq!(got.text(at, "response"), Some(response));
                        assert_eq!(got.int(at, "tokens"), Some(answer.ids.len() as i64));
                        assert_eq!(got.text(at, "finish_reason"), Some(answer.finish));
                        assert_eq!(got.real(at, "logprob"), Some(answer.logprob));
                        assert_eq!((got.flag(at, "kept"), got.text(at, "drop_reason")), (reason.is_none(), reason));
                        reasons.insert(reason);
                        at += 1;
                    }
                }
                assert_eq!(at, got.len(), "shard {part}");
            }
            assert_eq!(reasons.len(), 3 + usize::from(drop_unfinished), "{reasons:?}");
        }
    }
}

/// Responses of 40 prompts: some dropped, some the same, three to a round.
fn responses(samples: i64, rounds: i64) -> Vec<(String, i64, String, bool)> {
    let mut rows = Vec::new();
    for prompt in 0..40u64 {
        for sample in 0..samples * rounds {
            let dice = key(5, &["responses"]).with(prompt).with(sample as u64);
            let text = ["red", "green", "blue"][dice.below(0, 3) as usize].to_string();
            rows.push((format!("p{prompt:02}"), sample, text, dice.uniform(1) < 0.7));
        }
    }
    rows
}

#[tokio::test]
async fn pairs_are_those_of_nested_loops() {
    let (seed, rounds, test) = (4u64, 2, 7);
    for samples in [2, 3] {
        let responses = responses(samples, rounds);
        let prompts: Vec<_> = (0..50).map(|i| (format!("p{i:02}"), format!("What is {i}?"), "train")).collect();
        let rows: Vec<Value> = responses
            .iter()
            .map(|(id, sample, text, kept)| {
                json!({"prompt_id": id, "sample": sample, "response": text, "tokens": 1, "finish_reason": "stop",
                       "logprob": -1.0, "kept": kept, "drop_reason": if *kept { Value::Null } else { json!("too_short") }})
            })
            .collect();
        let params = Params::new().with("seed", seed as i64).with("samples", samples).with("test_prompts", test as i64);
        let mut results: Vec<Rows> = Vec::new();
        for partitions in [1, 4] {
            let bench = Bench::new(&[], &[], partitions)
                .table("prompts", schema("prompts"), &prompt_rows(&prompts))
                .table("responses", schema("responses"), &rows);
            results.push(bench.run(PAIRS, &params).await);
        }
        assert_eq!(results[0], results[1]);
        let got = &results[0];

        let mut ids: Vec<&str> = responses.iter().map(|r| r.0.as_str()).collect();
        ids.dedup();
        let mut order = ids.clone();
        order.sort_by(|a, b| uniform(seed, &["test", a]).total_cmp(&uniform(seed, &["test", b])));
        let held: BTreeSet<&str> = order.into_iter().take(test).collect();
        let mut want: Vec<Wanted> = Vec::new();
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for id in ids {
            for round in 0..rounds {
                let of_round: Vec<_> =
                    responses.iter().filter(|r| r.0 == id && r.1 / samples == round && r.3).collect();
                let before = want.len();
                for (i, a) in of_round.iter().enumerate() {
                    for b in &of_round[i + 1..] {
                        if a.2 != b.2 {
                            want.push((id, Some((a.1, b.1, &a.2, &b.2)), None));
                        }
                    }
                }
                if want.len() == before {
                    let reason = ["no_response", "one_response", "identical"][of_round.len().min(2)];
                    want.push((id, None, Some(reason)));
                    *reasons.entry(reason).or_default() += 1;
                }
            }
        }
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert_eq!(got.len(), want.len());
        for (i, (id, pair, reason)) in want.into_iter().enumerate() {
            assert_eq!(got.text(i, "prompt_id"), Some(id));
            assert_eq!(
                got.text(i, "instruction"),
                Some(format!("What is {}?", id[1..].parse::<i64>().unwrap()).as_str())
            );
            assert_eq!(got.text(i, "split"), Some(if held.contains(id) { "test" } else { "train" }));
            assert_eq!((got.flag(i, "kept"), got.text(i, "drop_reason")), (pair.is_some(), reason));
            let found = got.int(i, "sample_1").map(|first| {
                (
                    first,
                    got.int(i, "sample_2").unwrap(),
                    got.text(i, "response_1").unwrap(),
                    got.text(i, "response_2").unwrap(),
                )
            });
            assert_eq!(found, pair);
        }
        // Every train or test prompt is of one split.
        let splits = got.0.column_by_name("split").unwrap().as_string::<i32>();
        assert!(splits.iter().any(|s| s == Some("test")));
    }
}
