//! `sql/judgments.sql` against a loop over pairs, principles and both orders.

use std::collections::BTreeSet;

use salmon::query::Params;
use serde_json::{Value, json};

use crate::sql_support::{Bench, CONTEXT, Toy, render, schema, shard};

const SQL: &str = include_str!("../sql/judgments.sql");

struct Pair {
    prompt: String,
    instruction: String,
    samples: (i64, i64),
    responses: (String, String),
    kept: bool,
}

fn pairs() -> Vec<Pair> {
    (0..30)
        .map(|i| Pair {
            prompt: format!("p{:02}", i / 2),
            instruction: if i / 2 == 4 { "a long question ".repeat(5) } else { format!("Question {}?", i / 2) },
            samples: (2 * (i % 2), 2 * (i % 2) + 1),
            responses: (format!("answer {i} {}", "long ".repeat(i as usize % 9)), format!("other {i}")),
            kept: i % 7 != 3,
        })
        .collect()
}

const PRINCIPLES: [(&str, &str, &[&str]); 4] = [
    ("Clear", "is easy to follow", &["reward", "rl"]),
    ("Other", "is not judged", &["rl"]),
    ("Brief", "says no more than it has to", &["reward"]),
    ("Kind", "is friendly", &["reward", "aggregation"]),
];

fn bench(pairs: &[Pair], partitions: usize) -> Bench {
    let pair = |p: &Pair| {
        json!({"prompt_id": p.prompt, "instruction": p.instruction, "language": "eng", "split": "train",
               "sample_1": p.samples.0, "sample_2": p.samples.1, "response_1": p.responses.0,
               "response_2": p.responses.1, "kept": p.kept, "drop_reason": null})
    };
    let principle = |(name, definition, sets): &(&str, &str, &[&str])| {
        json!({"name": name, "definition": definition, "negative_definition": null, "weight": 1.0, "sets": sets,
               "tags": []})
    };
    Bench::new(&["judge"], &[], partitions)
        .table("pairs", schema("pairs"), &pairs.iter().map(pair).collect::<Vec<Value>>())
        .table("principles", schema("principles"), &PRINCIPLES.iter().map(principle).collect::<Vec<Value>>())
        .nothing_known("judgments", &["definition"])
}

fn params(query: i64, response: i64) -> Params {
    Params::new()
        .with("judge_set", "reward")
        .with("judge_template", "judge")
        .with_texts("answers", &["a", "b"])
        .with("max_query_tokens", query)
        .with("max_response_tokens", response)
}

fn first(text: &str, n: usize) -> String {
    text.chars().take(n).collect()
}

fn last(text: &str, n: usize) -> String {
    let skip = text.chars().count().saturating_sub(n);
    text.chars().skip(skip).collect()
}

#[tokio::test]
async fn every_kept_pair_is_judged_under_every_principle_in_both_orders() {
    let pairs = pairs();
    let (query, response, shards) = (24usize, 20usize, 3);
    let mut verdicts = BTreeSet::new();
    for partitions in [1, 3] {
        let bench = bench(&pairs, partitions);
        let mut total = 0;
        let parts = bench.shards(SQL, &params(query as i64, response as i64), shards).await;
        for (part, got) in (0..).zip(parts) {
            let mut at = 0;
            for pair in pairs.iter().filter(|p| p.kept && shard(&p.prompt, shards) == part) {
                let mut judged: Vec<_> = PRINCIPLES.iter().filter(|p| p.2.contains(&"reward")).collect();
                judged.sort();
                for (name, definition, _) in judged {
                    let prompt = |a: &str, b: &str| {
                        render(
                            "judge",
                            json!({"instruction": last(&pair.instruction, query), "output_a": first(a, response),
                            "output_b": first(b, response), "principle": name, "definition": definition}),
                        )
                    };
                    let margin = |prompt: &str| Toy::logit(prompt, "a") - Toy::logit(prompt, "b");
                    let ab = margin(&prompt(&pair.responses.0, &pair.responses.1));
                    let ba = -margin(&prompt(&pair.responses.1, &pair.responses.0));
                    let verdict = match (ab > 0.0, ba > 0.0) {
                        (true, true) => "first",
                        (false, false) => "second",
                        _ => "tie",
                    };
                    assert_eq!(got.text(at, "prompt_id"), Some(pair.prompt.as_str()));
                    assert_eq!(got.int(at, "sample_1"), Some(pair.samples.0));
                    assert_eq!(got.int(at, "sample_2"), Some(pair.samples.1));
                    assert_eq!(got.text(at, "principle"), Some(*name));
                    assert_eq!(got.text(at, "response_1"), Some(pair.responses.0.as_str()), "the whole text stays");
                    assert_eq!((got.real(at, "score_ab"), got.real(at, "score_ba")), (Some(ab), Some(ba)));
                    assert_eq!(got.text(at, "verdict"), Some(verdict));
                    verdicts.insert(verdict);
                    at += 1;
                }
            }
            assert_eq!(at, got.len());
            total += at;
        }
        assert_eq!(total, 3 * pairs.iter().filter(|p| p.kept).count());
    }
    assert_eq!(verdicts.len(), 3);
}

#[tokio::test]
async fn a_pair_turned_round_gets_the_turned_scores() {
    let turned: Vec<Pair> =
        pairs().into_iter().map(|p| Pair { responses: (p.responses.1, p.responses.0), ..p }).collect();
    let params = params(256, 512);
    let judged = async |pairs: &[Pair]| bench(pairs, 2).shards(SQL, &params, 1).await.remove(0);
    let (a, b) = (judged(&pairs()).await, judged(&turned).await);
    assert_eq!(a.len(), b.len());
    for i in 0..a.len() {
        assert_eq!(a.real(i, "score_ab").unwrap(), -b.real(i, "score_ba").unwrap());
        assert_eq!(a.real(i, "score_ba").unwrap(), -b.real(i, "score_ab").unwrap());
        let want = match a.text(i, "verdict").unwrap() {
            "first" => "second",
            "second" => "first",
            tie => tie,
        };
        assert_eq!(b.text(i, "verdict").unwrap(), want);
    }
}

#[tokio::test]
async fn a_pair_beyond_the_context_has_no_score() {
    let mut pairs = pairs();
    pairs.truncate(2);
    pairs[0].responses.0 = "x".repeat(CONTEXT);
    let got = bench(&pairs, 1).shards(SQL, &params(256, CONTEXT as i64), 1).await.remove(0);
    // Null scores do not fit the table, so the stage ends with an error instead of a wrong verdict.
    assert_eq!((0..3).map(|i| got.real(i, "score_ab")).collect::<Vec<_>>(), [None; 3]);
    assert!((3..6).all(|i| got.real(i, "score_ab").is_some()));
}
