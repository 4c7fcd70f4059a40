//! `sql/preferences.sql`: worked examples, a plain reference, and what its draws must be like.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use salmon::draw::key;
use salmon::query::functions::detect_language;
use salmon::query::{Params, register_batches};
use serde_json::{Value, json};

use crate::sql_support::{Bench, Rows, chi_square, chi_square_bound, close, columns, list, schema, uniform};

const SQL: &str = include_str!("../sql/preferences.sql");
const VARIANCES: &str = include_str!("../sql/variances.sql");

const ENGLISH: &str = "This is a perfectly ordinary answer that everybody can read without any trouble at all";
const SPANISH: &str = "¿Cuándo llegará el niño mañana? Quizás después de comer con sus compañeros y su señora, no sé";

/// One judged pair.
#[derive(Clone)]
struct Pair {
    prompt: String,
    samples: (i64, i64),
    split: &'static str,
    language: Option<&'static str>,
    responses: [String; 2],
    /// `(score_ab, score_ba)` by principle.
    scores: BTreeMap<&'static str, (f64, f64)>,
}

/// The constants of the aggregation.
#[derive(Clone)]
struct Constants {
    seed: u64,
    passes: i64,
    geometric: f64,
    max_principles: i64,
    negation: f64,
    noise: f64,
    rule_noise: f64,
    boilerplate: &'static str,
    boilerplate_rate: f64,
    language_rule: bool,
    held_out: Vec<Vec<&'static str>>,
}

impl Default for Constants {
    /// No chance but the principles and their polarity.
    fn default() -> Self {
        Constants {
            seed: 1,
            passes: 4,
            geometric: 0.2,
            max_principles: 8,
            negation: 0.5,
            noise: 0.0,
            rule_noise: 0.0,
            boilerplate: "As an AI",
            boilerplate_rate: 0.5,
            language_rule: true,
            held_out: vec![],
        }
    }
}

/// Every principle but the last belongs to the set that is aggregated.
const NAMES: [&str; 10] = ["A", "B", "C", "D", "E", "F", "G", "H", "I", "unused"];

async fn aggregate_on(pairs: &[Pair], c: &Constants, partitions: usize) -> Rows {
    let judgments: Vec<Value> = pairs
        .iter()
        .flat_map(|p| {
            p.scores.iter().map(|(principle, (ab, ba))| {
                let verdict = match (*ab > 0.0 && *ba > 0.0, *ab < 0.0 && *ba < 0.0) {
                    (true, _) => "first",
                    (_, true) => "second",
                    _ => "tie",
                };
                json!({"prompt_id": p.prompt, "instruction": format!("ask {}", p.prompt), "language": p.language,
                       "split": p.split, "sample_1": p.samples.0, "sample_2": p.samples.1,
                       "response_1": p.responses[0], "response_2": p.responses[1], "principle": principle,
                       "score_ab": ab, "score_ba": ba, "verdict": verdict})
            })
        })
        .collect();
    let principles: Vec<Value> = NAMES
        .iter()
        .map(|name| {
            let set = if *name == "unused" { "judged" } else { "aggregation" };
            json!({"name": name, "definition": format!("be {name}"), "negative_definition": format!("be no {name}"),
                   "weight": 1.0, "sets": ["other", set], "tags": []})
        })
        .collect();
    let held: Vec<Value> = c.held_out.iter().enumerate().map(|(i, p)| json!({"ordinal": i, "principles": p})).collect();
    let params = Params::new()
        .with("aggregate_set", "aggregation")
        .with("seed", c.seed as i64)
        .with("passes", c.passes)
        .with("geometric", c.geometric)
        .with("max_principles", c.max_principles)
        .with("negation", c.negation)
        .with("noise", c.noise)
        .with("rule_noise", c.rule_noise)
        .with("boilerplate", c.boilerplate)
        .with("boilerplate_rate", c.boilerplate_rate)
        .with("language_rule", c.language_rule);
    let bench = Bench::new(&[], &[], partitions)
        .table("judgments", schema("judgments"), &judgments)
        .table("principles", schema("principles"), &principles)
        .table("held_out", columns(&[("ordinal", DataType::Int64), ("principles", list(DataType::Utf8))]), &held);
    let variances = bench.run(VARIANCES, &Params::new()).await.0;
    register_batches(&bench.context, "variances", variances.schema(), vec![variances]).unwrap();
    bench.run(SQL, &params).await
}

async fn aggregate(pairs: &[Pair], constants: &Constants) -> Rows {
    aggregate_on(pairs, constants, 2).await
}

fn pair(prompt: &str, scores: &[(&'static str, f64, f64)]) -> Pair {
    Pair {
        prompt: prompt.into(),
        samples: (0, 1),
        split: "train",
        language: Some("eng"),
        responses: ["the first".into(), "the second".into()],
        scores: scores.iter().map(|(name, ab, ba)| (*name, (*ab, *ba))).collect(),
    }
}

/// Two principles worked out by hand. Scores of A in training: 3, 1, -1, -3, mean 0, variance 20 / 4 = 5.
/// Scores of B: 1, -1, 2, 4, mean 1.5, variance (0.25 + 6.25 + 0.25 + 6.25) / 4 = 3.25.
fn worked() -> Vec<Pair> {
    vec![
        // A: mean 2 / 5 = 0.4. B: the orders disagree, 0.
        pair("p1", &[("A", 3.0, 1.0), ("B", 1.0, -1.0), ("unused", 50.0, 50.0)]),
        // A: -2 / 5 = -0.4. B: 3 / 3.25.
        pair("p2", &[("A", -1.0, -3.0), ("B", 2.0, 4.0), ("unused", 50.0, 50.0)]),
        // Pairs kept aside are labelled, but their scores are not part of the variance. A: 20. B: -40 / 3.25.
        Pair { split: "test", ..pair("p3", &[("A", 100.0, 100.0), ("B", -50.0, -30.0)]) },
    ]
}

#[tokio::test]
async fn worked_examples() {
    let constants = Constants { passes: 60, max_principles: 2, geometric: 0.3, ..Constants::default() };
    let got = aggregate(&worked(), &constants).await;
    assert_eq!(got.len(), 180);
    let signed = BTreeMap::from([
        (("p1", "A"), 0.4),
        (("p1", "B"), 0.0),
        (("p2", "A"), -0.4),
        (("p2", "B"), 3.0 / 3.25),
        (("p3", "A"), 20.0),
        (("p3", "B"), -40.0 / 3.25),
    ]);
    // What decides where both are shown.
    let dominant = BTreeMap::from([("p1", "A"), ("p2", "B"), ("p3", "A")]);
    let mut seen = BTreeSet::new();
    for i in 0..got.len() {
        let prompt = got.text(i, "prompt_id").unwrap();
        let shown = got.principles(i);
        for p in &shown {
            let s = signed[&(prompt, p.name.as_str())];
            assert!(close(p.score.unwrap(), if p.negated { -s } else { s }), "{prompt} {p:?}");
            assert_eq!(p.text, format!("be {}{}", if p.negated { "no " } else { "" }, p.name));
        }
        let names: Vec<&str> = shown.iter().map(|p| p.name.as_str()).collect();
        seen.insert((prompt.to_string(), names.len(), names[0] == "A", shown[0].negated));
        let decides = if names.len() == 2 { dominant[prompt] } else { names[0] };
        assert_eq!(got.text(i, "dominant"), Some(decides));
        let score = shown.iter().find(|p| p.name == decides).unwrap().score.unwrap();
        assert!(close(got.real(i, "margin").unwrap(), score.abs()));
        if score == 0.0 {
            assert_eq!((got.flag(i, "kept"), got.text(i, "drop_reason")), (false, Some("tie")));
        } else {
            assert_eq!((got.flag(i, "kept"), got.text(i, "drop_reason")), (true, None));
            let want = if score > 0.0 { ["the first", "the second"] } else { ["the second", "the first"] };
            assert_eq!([got.text(i, "chosen").unwrap(), got.text(i, "rejected").unwrap()], want);
        }
        assert_eq!(got.text(i, "prompt"), Some(format!("ask {prompt}").as_str()));
        assert_eq!(got.text(i, "split"), Some(if prompt == "p3" { "test" } else { "train" }));
        assert!(!got.flag(i, "flipped") && got.text(i, "rule").is_none());
    }
    assert_eq!(seen.len(), 3 * 2 * 2 * 2, "every prompt met every number, first principle and polarity");
}

#[tokio::test]
async fn a_principle_without_variance_decides_nothing() {
    let pairs = [pair("p1", &[("A", 2.0, 2.0), ("B", 0.1, 0.2)]), pair("p2", &[("A", 2.0, 2.0), ("B", 0.3, 0.4)])];
    let got = aggregate(&pairs, &Constants { passes: 30, ..Constants::default() }).await;
    for i in 0..got.len() {
        let alone = got.principles(i).len() == 1 && got.principles(i)[0].name == "A";
        assert_eq!(got.text(i, "drop_reason"), alone.then_some("tie"));
        assert!(alone || got.text(i, "dominant") == Some("B"));
    }
    // Without one training pair nothing can be normalised, and nothing is kept.
    let aside = pairs.map(|p| Pair { split: "test", ..p });
    let got = aggregate(&aside, &Constants::default()).await;
    assert_eq!((0..got.len()).filter(|i| got.flag(*i, "kept")).count(), 0);
    // No judgments, no preferences.
    assert_eq!(aggregate(&[], &Constants::default()).await.len(), 0);
}

#[tokio::test]
async fn combinations_kept_out_are_dropped_in_any_order_and_polarity() {
    let held_out = vec![vec!["A", "B"]];
    let constants = Constants { passes: 60, max_principles: 2, held_out, ..Constants::default() };
    let got = aggregate(&worked(), &constants).await;
    let mut both = 0;
    for i in 0..got.len() {
        let two = got.principles(i).len() == 2;
        both += usize::from(two);
        assert_eq!(got.text(i, "drop_reason") == Some("held_out"), two);
    }
    assert!(both > 20 && both < 160);
}

#[tokio::test]
async fn the_wrong_language_loses() {
    assert_eq!((detect_language(ENGLISH), detect_language(SPANISH)), (Some("eng"), Some("spa")));
    let with = |prompt: &str, first: &str, second: &str, language| Pair {
        responses: [first.into(), second.into()],
        language,
        ..pair(prompt, &[("A", 3.0, 1.0), ("B", -1.0, -2.0)])
    };
    let turned = |prompt: &str| pair(prompt, &[("A", -3.0, -1.0), ("B", 1.0, 2.0)]);
    let pairs = [
        with("second wrong", ENGLISH, SPANISH, Some("eng")),
        with("first wrong", ENGLISH, SPANISH, Some("spa")),
        with("both wrong", SPANISH, SPANISH, Some("eng")),
        with("both right", ENGLISH, ENGLISH, Some("eng")),
        with("prompt unknown", ENGLISH, SPANISH, None),
        with("too short to tell", "hola", ENGLISH, Some("eng")),
        turned("only for the variance"),
    ];
    let constants = Constants { passes: 20, max_principles: 1, ..Constants::default() };
    for language_rule in [true, false] {
        let got = aggregate(&pairs, &Constants { language_rule, ..constants.clone() }).await;
        for i in 0..got.len() {
            let prompt = got.text(i, "prompt_id").unwrap();
            let rule = match prompt {
                "second wrong" | "first wrong" if language_rule => Some("language"),
                _ => None,
            };
            assert_eq!(got.text(i, "rule"), rule, "{prompt}");
            let dropped = (prompt == "both wrong" && language_rule).then_some("both_wrong_language");
            assert_eq!(got.text(i, "drop_reason"), dropped, "{prompt}");
            if rule.is_some() {
                let right = if prompt == "second wrong" { ENGLISH } else { SPANISH };
                assert_eq!(got.text(i, "chosen"), Some(right), "{prompt}");
            }
        }
    }
}

#[tokio::test]
async fn boilerplate_loses_as_often_as_it_is_told() {
    const BOILER: &str = "As an AI I can not";
    let mut pairs: Vec<Pair> = (0..400)
        .map(|i| Pair {
            responses: if i % 2 == 0 { [BOILER.into(), "fine".into()] } else { ["fine".into(), BOILER.into()] },
            ..pair(&format!("p{i:03}"), &[("A", 3.0, 1.0), ("B", -1.0, -2.0)])
        })
        .collect();
    pairs[0].responses = [BOILER.into(), BOILER.into()];
    pairs[1] = pair("p001", &[("A", -3.0, -1.0), ("B", 1.0, 2.0)]);
    for rate in [0.0, 0.5, 1.0] {
        let constants = Constants { passes: 5, boilerplate_rate: rate, ..Constants::default() };
        let got = aggregate(&pairs, &constants).await;
        let mut ruled = 0;
        for i in 0..got.len() {
            if got.text(i, "rule").is_some() {
                ruled += 1;
                assert_eq!(got.text(i, "rule"), Some("boilerplate"));
                assert_eq!(got.text(i, "chosen"), Some("fine"));
                assert_ne!(got.text(i, "prompt_id"), Some("p000"), "both have it");
            }
        }
        let (n, want) = (398.0 * 5.0, rate);
        let bound = 4.75 * (n * want * (1.0 - want)).sqrt();
        assert!((ruled as f64 - n * want).abs() <= bound, "rate {rate}: {ruled} of {n}");
    }
    let other = Constants { boilerplate: "I can not", boilerplate_rate: 1.0, ..Constants::default() };
    let got = aggregate(&pairs[2..3], &other).await;
    assert!((0..got.len()).all(|i| got.text(i, "rule") == Some("boilerplate")), "the text is a parameter");
}

/// Pairs with every rule, split and kind of score among them.
fn many(n: usize) -> Vec<Pair> {
    let texts = ["red", "blue", ENGLISH, SPANISH, "As an AI I can not", "As an AI, sorry"];
    (0..n)
        .map(|i| {
            let dice = key(9, &["pairs"]).with(i as u64);
            let text = |n: u64| format!("{} {n}", texts[dice.below(n, texts.len() as u64) as usize]);
            let scores = NAMES.iter().enumerate().filter(|(p, _)| dice.uniform(40 + *p as u64) < 0.9);
            let score = |p: u64| ((p + 1) as f64) * dice.normal(10 + p);
            Pair {
                prompt: format!("p{:04}", i / 2),
                samples: (2 * (i as i64 % 2), 2 * (i as i64 % 2) + 1),
                split: if dice.uniform(3) < 0.2 { "test" } else { "train" },
                language: [Some("eng"), Some("spa"), None][dice.below(4, 3) as usize],
                responses: [text(1), text(2)],
                scores: scores
                    .map(|(p, name)| (*name, (score(p as u64) + 0.3, score(p as u64) + dice.normal(30 + p as u64))))
                    .collect(),
            }
        })
        .collect()
}

/// What a row must be.
#[derive(Debug, PartialEq)]
struct Label {
    /// `(name, negated)` in order.
    principles: Vec<(String, bool)>,
    dominant: String,
    chosen: String,
    rejected: String,
    rule: Option<&'static str>,
    flipped: bool,
    first: bool,
    drop_reason: Option<&'static str>,
}

/// One pair and pass by the book (section 2 of the method); also gives the margin and the signed scores.
fn label(pair: &Pair, pass: i64, variances: &BTreeMap<&str, f64>, c: &Constants) -> (Label, f64, Vec<f64>) {
    let (pass, s1, s2) = (pass.to_string(), pair.samples.0.to_string(), pair.samples.1.to_string());
    let row = |what: &str, rest: &[&str]| {
        uniform(c.seed, &[&[what, pass.as_str(), pair.prompt.as_str(), s1.as_str(), s2.as_str()], rest].concat())
    };
    let scores: BTreeMap<&str, f64> = pair
        .scores
        .iter()
        .filter(|(name, _)| **name != "unused")
        .map(|(name, (ab, ba))| {
            let agree = (*ab > 0.0 && *ba > 0.0) || (*ab < 0.0 && *ba < 0.0);
            let variance = variances.get(name).copied().unwrap_or(0.0);
            (*name, if agree && variance > 0.0 { (ab + ba) / 2.0 / variance } else { 0.0 })
        })
        .collect();
    // The smallest k whose share of the cut-off geometric distribution is above the draw.
    let most = (c.max_principles as usize).min(scores.len());
    let below = |k: usize| (0..k).map(|i| c.geometric * (1.0 - c.geometric).powi(i as i32)).sum::<f64>();
    let u = row("count", &[]) * below(most);
    let count = (1..=most).find(|k| u < below(*k)).unwrap_or(most);
    let mut order: Vec<&str> = scores.keys().copied().collect();
    order.sort_by(|a, b| row("principle", &[a]).total_cmp(&row("principle", &[b])).then(a.cmp(b)));
    order.truncate(count);
    let shown: Vec<(&str, bool, f64)> = order
        .iter()
        .map(|name| {
            let negated = row("negation", &[name]) < c.negation;
            (*name, negated, if negated { -scores[name] } else { scores[name] })
        })
        .collect();
    let mut strongest = shown[0];
    for candidate in &shown[1..] {
        if candidate.2.abs() > strongest.2.abs() {
            strongest = *candidate;
        }
    }
    let wrong = |text: &str| {
        let found = detect_language(text);
        c.language_rule && pair.language.is_some() && found.is_some() && found != pair.language
    };
    let wrong = [wrong(&pair.responses[0]), wrong(&pair.responses[1])];
    let boiler = [0, 1].map(|i| pair.responses[i].contains(c.boilerplate));
    let rule = if wrong[0] != wrong[1] {
        Some("language")
    } else if boiler[0] != boiler[1] && row("boilerplate", &[]) < c.boilerplate_rate {
        Some("boilerplate")
    } else {
        None
    };
    let first_wins = match rule {
        Some("language") => wrong[1],
        Some(_) => boiler[1],
        None => strongest.2 > 0.0,
    };
    let held = c.held_out.iter().any(|set| set.iter().all(|name| order.contains(name)));
    let drop_reason = if wrong[0] && wrong[1] {
        Some("both_wrong_language")
    } else if held {
        Some("held_out")
    } else if rule.is_none() && strongest.2 == 0.0 {
        Some("tie")
    } else {
        None
    };
    let flipped = row("noise", &[]) < if rule.is_some() { c.rule_noise } else { c.noise };
    let winner = usize::from(first_wins == flipped);
    let label = Label {
        principles: shown.iter().map(|s| (s.0.to_string(), s.1)).collect(),
        dominant: strongest.0.to_string(),
        chosen: pair.responses[winner].clone(),
        rejected: pair.responses[1 - winner].clone(),
        rule,
        flipped,
        first: row("order", &[]) < 0.5,
        drop_reason,
    };
    (label, strongest.2.abs(), shown.iter().map(|s| s.2).collect())
}

/// Population variance of both orders' scores over training pairs, in two passes.
fn variances(pairs: &[Pair]) -> BTreeMap<&'static str, f64> {
    let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for pair in pairs.iter().filter(|p| p.split == "train") {
        for (name, (ab, ba)) in &pair.scores {
            all.entry(name).or_default().extend([*ab, *ba]);
        }
    }
    let variance = |scores: Vec<f64>| {
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        scores.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / scores.len() as f64
    };
    all.into_iter().map(|(name, scores)| (name, variance(scores))).collect()
}

#[tokio::test]
async fn every_row_is_that_of_the_reference_and_every_constant_counts() {
    let pairs = many(100);
    let base =
        Constants { noise: 0.1, rule_noise: 0.25, held_out: vec![vec!["A", "B"], vec!["C"]], ..Constants::default() };
    let others = [
        base.clone(),
        Constants { seed: 2, ..base.clone() },
        Constants { passes: 2, ..base.clone() },
        Constants { geometric: 0.6, ..base.clone() },
        Constants { max_principles: 3, ..base.clone() },
        Constants { negation: 0.1, ..base.clone() },
        Constants { noise: 0.4, ..base.clone() },
        Constants { rule_noise: 0.9, ..base.clone() },
        Constants { boilerplate: "sorry", ..base.clone() },
        Constants { boilerplate_rate: 1.0, ..base.clone() },
        Constants { language_rule: false, ..base.clone() },
        Constants { held_out: vec![], ..base },
    ];
    let variances = variances(&pairs);
    let mut results: Vec<Rows> = Vec::new();
    for constants in &others {
        let got = aggregate(&pairs, constants).await;
        let mut at = 0;
        let mut reasons = BTreeSet::new();
        for pair in &pairs {
            for pass in 0..constants.passes {
                let (want, margin, scores) = label(pair, pass, &variances, constants);
                let shown = got.principles(at);
                let reason = got.text(at, "drop_reason");
                let found = Label {
                    principles: shown.iter().map(|p| (p.name.clone(), p.negated)).collect(),
                    dominant: got.text(at, "dominant").unwrap().to_string(),
                    chosen: got.text(at, "chosen").unwrap().to_string(),
                    rejected: got.text(at, "rejected").unwrap().to_string(),
                    rule: want.rule.filter(|rule| got.text(at, "rule") == Some(rule)),
                    flipped: got.flag(at, "flipped"),
                    first: got.flag(at, "first"),
                    drop_reason: want.drop_reason.filter(|want| reason == Some(want)),
                };
                assert_eq!(found, want, "row {at}");
                assert_eq!(got.text(at, "rule").is_some(), want.rule.is_some());
                assert_eq!((reason.is_none(), got.flag(at, "kept")), (want.drop_reason.is_none(), reason.is_none()));
                assert_eq!(got.text(at, "prompt_id"), Some(pair.prompt.as_str()));
                assert_eq!(got.int(at, "pass"), Some(pass));
                assert!(close(got.real(at, "margin").unwrap(), margin));
                assert!(shown.iter().zip(&scores).all(|(p, s)| close(p.score.unwrap(), *s)));
                reasons.insert(reason.map(String::from));
                at += 1;
            }
        }
        assert_eq!(at, got.len());
        assert!(reasons.len() >= 2, "{reasons:?}");
        results.push(got);
    }
    for (i, result) in results.iter().enumerate().skip(1) {
        assert_ne!(*result, results[0], "constant {i} changes nothing");
    }
}

#[tokio::test]
async fn no_bit_depends_on_partitions_or_on_the_order_of_rows() {
    let mut pairs = many(300);
    let constants = Constants { noise: 0.1, ..Constants::default() };
    let one = aggregate_on(&pairs, &constants, 1).await;
    for partitions in [2, 5] {
        assert_eq!(aggregate_on(&pairs, &constants, partitions).await, one, "{partitions}");
    }
    pairs.reverse();
    assert_eq!(aggregate_on(&pairs, &constants, 4).await, one);
}

/// Whether a count of successes is within 4.75 deviations.
fn plausible(count: usize, n: usize, probability: f64) -> bool {
    let (n, p) = (n as f64, probability);
    (count as f64 - n * p).abs() <= 4.75 * (n * p * (1.0 - p)).sqrt()
}

#[tokio::test]
async fn draws_have_the_distributions_of_the_method() {
    // Every principle is there, so that the number drawn is cut off at the maximum alone.
    let mut pairs = many(1500);
    for pair in &mut pairs {
        let fill = |name: &&'static str| (*name, pair.scores.get(*name).copied().unwrap_or((1.0, 2.0)));
        pair.scores = NAMES.iter().map(fill).collect();
    }
    let constants = Constants { noise: 0.1, rule_noise: 0.25, ..Constants::default() };
    let got = aggregate(&pairs, &constants).await;
    let rows = got.len();
    assert_eq!(rows, 6000);

    let mut counts = [0.0; 8];
    let (mut shown, mut negated, mut first) = (0, 0, 0);
    let (mut plain, mut plain_flipped, mut ruled, mut ruled_flipped) = (0, 0, 0, 0);
    let mut by_name = [0.0; 9];
    for i in 0..rows {
        let principles = got.principles(i);
        counts[principles.len() - 1] += 1.0;
        let names: BTreeSet<&str> = principles.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names.len(), principles.len(), "distinct");
        shown += principles.len();
        negated += principles.iter().filter(|p| p.negated).count();
        by_name[NAMES.iter().position(|n| *n == principles[0].name).unwrap()] += 1.0;
        first += usize::from(got.flag(i, "first"));
        if got.text(i, "rule").is_some() {
            (ruled, ruled_flipped) = (ruled + 1, ruled_flipped + usize::from(got.flag(i, "flipped")));
        } else {
            (plain, plain_flipped) = (plain + 1, plain_flipped + usize::from(got.flag(i, "flipped")));
        }
    }
    // Geometric(0.2), drawn again above 8: p(k) = 0.2 * 0.8^(k-1) / (1 - 0.8^8).
    let geometric: Vec<f64> = (0..8).map(|k| 0.2 * 0.8f64.powi(k) / (1.0 - 0.8f64.powi(8))).collect();
    assert!(chi_square(&counts, &geometric) < chi_square_bound(7), "{counts:?}");
    assert!(chi_square(&by_name, &[1.0 / 9.0; 9]) < chi_square_bound(8), "{by_name:?}");
    assert!(plausible(negated, shown, 0.5), "{negated} of {shown}");
    assert!(plausible(first, rows, 0.5), "{first} of {rows}");
    assert!(plausible(plain_flipped, plain, 0.1), "{plain_flipped} of {plain}");
    assert!(plausible(ruled_flipped, ruled, 0.25), "{ruled_flipped} of {ruled}");
    assert!(ruled > 500 && plain > 500);
}
