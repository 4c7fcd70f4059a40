//! `sql/demonstrations.sql` and `sft.sql` against plain loops.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use salmon::engine::Sampling;
use salmon::query::Params;
use salmon::query::functions::{contains_any, cut_at, cut_repetition};
use serde_json::{Value, json};

use crate::sql_pairs::{drawn, prompt_rows};
use crate::sql_support::{Bench, CONTEXT, Toy, columns, render, schema, shard, uniform};

const SQL: &str = include_str!("../sql/demonstrations.sql");
const SFT: &str = include_str!("../sql/sft.sql");

const MARKER: &str = "### Assistant";

const TEXTS: [&str; 9] = [
    "Rules 1 and 2 ask for care.\n\n### Assistant\nParis is the capital.\n",
    "no thoughts, just an answer",
    "thinking\n### Assistant\nOne thing. Two things. One thing. And on.",
    "thinking\n### Assistant\n \n",
    "thinking\n### Assistant\nGood. ### User\nAnd then?",
    "thinking\n### Assistant\nfour",
    "thinking\n### Assistant\nRules that apply: 3. This leaks.",
    "thinking\n### Assistant\nan answer that is cut off because it does not end within the tokens",
    "",
];

fn prompts() -> Vec<(String, String, &'static str)> {
    let one = |i: usize| {
        let instruction = if i == 7 { "x".repeat(CONTEXT) } else { format!("Why {i}?") };
        (format!("p{i:02}"), instruction, if i % 6 == 5 { "test" } else { "train" })
    };
    (0..20).map(one).collect()
}

fn params(marker: &str, prompts: i64) -> Params {
    Params::new()
        .with("seed", 3i64)
        .with("prompts", prompts)
        .with("samples", 4i64)
        .with("self_align_template", "pocket_self_align")
        .with("temperature", 0.5)
        .with("top_p", 1.0)
        .with("max_tokens", 60i64)
        .with_texts("stop", &["### User", "## Example"])
        .with("answer_marker", marker)
        .with("min_chars", 5i64)
        .with_texts("leaks", &["Rules that apply"])
}

#[tokio::test]
async fn answers_are_parted_cut_and_dropped_as_in_a_loop() {
    let (toy, prompts) = (Toy { texts: TEXTS.to_vec() }, prompts());
    let stop: Vec<String> = ["### User", "## Example"].map(String::from).to_vec();
    let sampling = Sampling { temperature: 0.5, top_p: 1.0, top_k: 0, max_tokens: 60, stop };
    let bench = Bench::new(&["base"], &TEXTS, 3)
        .table("prompts", schema("prompts"), &prompt_rows(&prompts))
        .nothing_known("demonstrations", &[]);
    let mut reasons: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    let mut thoughts_seen = 0;
    for (marker, take, shards) in [(MARKER, 0, 2), ("", 0, 1), (MARKER, 5, 1)] {
        for (part, got) in (0..).zip(bench.shards(SQL, &params(marker, take), shards).await) {
            let mut chosen = drawn(&prompts, 3, "demonstrations");
            if take > 0 {
                chosen.truncate(take as usize);
            }
            chosen.sort();
            let mut at = 0;
            for (id, instruction) in chosen.into_iter().filter(|(id, _)| shard(id, shards) == part) {
                for sample in 0..4 {
                    let pick = (uniform(3, &["exemplar", id, &sample.to_string()]) * 1_000_000.0).floor() as i64;
                    let prompt = render("pocket_self_align", json!({"instruction": instruction, "pick": pick}));
                    let answer = toy.generate(&prompt, &sampling, 3, &format!("demonstrations/{id}/{sample}"));
                    let (thoughts, body) = match answer.text.split_once(marker) {
                        Some((thoughts, body)) if !marker.is_empty() => (Some(thoughts.trim()), body),
                        _ => (None, answer.text.as_str()),
                    };
                    let response = cut_repetition(cut_at(body, &["### User", "## Example"])).trim();
                    let reason = if answer.finish == "prompt_too_long" {
                        Some("prompt_too_long")
                    } else if response.is_empty() {
                        Some("empty")
                    } else if answer.finish == "length" {
                        Some("unfinished")
                    } else if response.len() < 5 {
                        Some("too_short")
                    } else if contains_any(response, &["Rules that apply"]) {
                        Some("leaked_rules")
                    } else {
                        None
                    };
                    assert_eq!(got.text(at, "prompt_id"), Some(id));
                    assert_eq!(got.text(at, "instruction"), Some(instruction));
                    assert_eq!(got.int(at, "sample"), Some(sample));
                    assert_eq!(got.text(at, "thoughts"), thoughts);
                    assert_eq!(got.text(at, "response"), Some(response));
                    assert_eq!((got.flag(at, "kept"), got.text(at, "drop_reason")), (reason.is_none(), reason));
                    *reasons.entry(reason).or_default() += 1;
                    thoughts_seen += usize::from(thoughts.is_some());
                    at += 1;
                }
            }
            assert_eq!(at, got.len());
        }
    }
    assert_eq!(reasons.len(), 6, "every reason is met: {reasons:?}");
    assert!(thoughts_seen > 0);
}

#[tokio::test]
async fn sft_reads_kept_answers_and_identity_and_nothing_else() {
    let rows: Vec<Value> = (0..6)
        .map(|i| {
            let kept = i % 3 != 1;
            json!({"prompt_id": format!("p{}", i / 2), "instruction": format!("Why {}?", i / 2), "sample": i % 2,
                   "thoughts": "t", "response": format!("because {i}"), "kept": kept,
                   "drop_reason": if kept { Value::Null } else { json!("empty") }})
        })
        .collect();
    let identity = [json!({"ordinal": 0, "question": "Who are you?", "answer": "An assistant."})];
    let (int, text) = (DataType::Int64, DataType::Utf8);
    let bench = Bench::new(&[], &[], 2).table("demonstrations", schema("demonstrations"), &rows).table(
        "identity",
        columns(&[("ordinal", int), ("question", text.clone()), ("answer", text)]),
        &identity,
    );
    let got = bench.run(SFT, &Params::new().with("chat_template", "chat")).await;
    let found: Vec<_> =
        (0..got.len()).map(|i| (got.text(i, "prompt").unwrap(), got.text(i, "completion").unwrap())).collect();
    let chat = |instruction: &str| render("chat", json!({"instruction": instruction}));
    let want = [
        ("Why 0?", "because 0"),
        ("Why 1?", "because 2"),
        ("Why 1?", "because 3"),
        ("Why 2?", "because 5"),
        ("Who are you?", "An assistant."),
    ]
    .map(|(question, answer)| (chat(question), answer));
    assert_eq!(found, want.iter().map(|(p, c)| (p.as_str(), *c)).collect::<Vec<_>>());
}
