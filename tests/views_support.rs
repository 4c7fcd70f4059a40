//! A made-up run for the views: judgments, labels and rollouts as plain structs, and the same as tables.
//!
//! Every draw is a function of the row, so the rows are always the same. There are ties, unread pairs, rules, noise,
//! responses of one length, letters of two bytes, and prompts without a language or without rows.

use serde_json::{Value, json};

use salmon::draw::{Key, key};

use crate::sql_support::{Bench, schema};

pub const PRINCIPLES: [&str; 4] = ["Concise", "Honest", "Humble", "Polite"];
const PROMPTS: usize = 60;
const PASSES: u64 = 5;

pub struct Prompt {
    pub id: String,
    pub kind: &'static str,
    pub language: Option<&'static str>,
    pub responses: Vec<bool>,
}

pub struct Judgment {
    pub prompt: String,
    pub samples: (i64, i64),
    pub principle: &'static str,
    /// Both orders; nothing where the pair was not read.
    pub scores: Option<(f64, f64)>,
}

#[derive(Clone)]
pub struct Shown {
    pub name: &'static str,
    pub negated: bool,
    pub score: f64,
}

pub struct Label {
    pub prompt: String,
    pub pass: u64,
    pub chosen: String,
    pub rejected: String,
    pub shown: Vec<Shown>,
    /// Which of these decided.
    pub dominant: Shown,
    pub rule: Option<&'static str>,
    pub flipped: bool,
    pub split: &'static str,
    pub kept: bool,
}

pub struct Rollout {
    pub policy: &'static str,
    pub step: i64,
    pub prompt: String,
    pub response: String,
    pub tokens: usize,
    pub stopped: bool,
    pub score: f64,
    pub reward: f64,
    pub kl: f64,
}

/// The rows of a made-up run.
pub struct World {
    pub prompts: Vec<Prompt>,
    pub judgments: Vec<Judgment>,
    pub labels: Vec<Label>,
    pub rollouts: Vec<Rollout>,
    /// Of the judge by principle, and of the reward model by principle as written and negated.
    pub accuracies: Vec<(&'static str, f64, f64, f64)>,
}

fn text(draw: Key) -> String {
    let words = ["a", "die", "señor", "ÿ", "long word", "x"];
    let count = 1 + draw.below(0, 6);
    (0..count).map(|i| words[draw.below(1 + i, 6) as usize]).collect::<Vec<_>>().join(" ")
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut world =
            World { prompts: vec![], judgments: vec![], labels: vec![], rollouts: vec![], accuracies: vec![] };
        for n in 0..PROMPTS {
            world.prompt(key(seed, &[&n.to_string()]), format!("p{n:02}"));
        }
        for (policy, step) in [("x", 0), ("x", 1), ("x", 2), ("y", 0), ("y", 1)] {
            for slot in 0..25 {
                let draw = key(seed, &[policy, &step.to_string(), &slot.to_string()]);
                world.rollouts.push(Rollout {
                    policy,
                    step,
                    prompt: format!("p{slot:02}"),
                    response: text(draw),
                    tokens: draw.below(20, 9) as usize,
                    stopped: draw.uniform(21) < 0.7,
                    score: draw.normal(22),
                    // Few values, so that some are equal.
                    reward: draw.below(23, 12) as f64 / 4.0 - 1.0,
                    kl: draw.uniform(24),
                });
            }
        }
        // The last principle was not measured.
        for name in &PRINCIPLES[..3] {
            let draw = key(seed, &[name, "accuracy"]);
            world.accuracies.push((name, draw.uniform(0), draw.uniform(1), draw.uniform(2)));
        }
        world
    }

    fn prompt(&mut self, draw: Key, id: String) {
        let kind = ["general", "reasoning", "red_teaming"][draw.below(0, 3) as usize];
        let language = [Some("eng"), Some("spa"), None][draw.below(1, 3) as usize];
        // Two pairs, the second of samples 2 and 3; some prompts have no responses at all.
        let responses = (0..4 * draw.below(2, 4).min(1)).map(|i| draw.uniform(3 + i) < 0.9).collect::<Vec<_>>();
        for pair in 0..responses.len() as i64 / 2 {
            let draw = key(draw.bits(), &["pair", &pair.to_string()]);
            let texts = [text(key(draw.bits(), &["1"])), text(key(draw.bits(), &["2"]))];
            let scores: Vec<Option<(f64, f64)>> = (0..PRINCIPLES.len() as u64).map(|p| scores(draw, p)).collect();
            for (principle, scores) in PRINCIPLES.into_iter().zip(&scores) {
                let samples = (2 * pair, 2 * pair + 1);
                self.judgments.push(Judgment { prompt: id.clone(), samples, principle, scores: *scores });
            }
            for pass in 0..PASSES {
                self.label(key(draw.bits(), &["pass", &pass.to_string()]), &id, pass, &texts, &scores);
            }
        }
        self.prompts.push(Prompt { id, kind, language, responses });
    }

    fn label(&mut self, draw: Key, id: &str, pass: u64, texts: &[String; 2], scores: &[Option<(f64, f64)>]) {
        let (first, count) = (draw.below(0, 4) as usize, 1 + draw.below(1, 3) as usize);
        let shown: Vec<Shown> = (first..first + count)
            .map(|place| {
                let (name, negated) = (PRINCIPLES[place % 4], draw.uniform(2 + place as u64) < 0.4);
                let mean = scores[place % 4].filter(|(ab, ba)| ab * ba > 0.0).map_or(0.0, |(ab, ba)| (ab + ba) / 2.0);
                Shown { name, negated, score: if negated { -mean } else { mean } }
            })
            .collect();
        let mut dominant = &shown[0];
        for one in &shown {
            dominant = if one.score.abs() > dominant.score.abs() { one } else { dominant };
        }
        let rule = [Some("language"), Some("boilerplate"), None, None, None, None][draw.below(20, 6) as usize];
        let flipped = draw.uniform(21) < 0.2;
        let wins = usize::from((dominant.score > 0.0) == flipped);
        let label = Label {
            prompt: id.into(),
            pass,
            chosen: texts[wins].clone(),
            rejected: texts[1 - wins].clone(),
            dominant: dominant.clone(),
            rule,
            flipped,
            split: ["train", "test"][draw.below(22, 2) as usize],
            kept: rule.is_some() || dominant.score != 0.0,
            shown,
        };
        self.labels.push(label);
    }

    /// The same as tables of a session.
    pub fn bench(&self, partitions: usize) -> Bench {
        let bench = Bench::new(&[], &[], partitions);
        self.fill(&bench);
        bench
    }

    /// Puts the tables into a session, in place of those that have their names.
    pub fn fill(&self, bench: &Bench) {
        for (name, rows) in [
            ("prompts", self.prompts.iter().map(prompt).collect()),
            ("responses", self.prompts.iter().flat_map(responses).collect()),
            ("judgments", self.judgments.iter().map(judgment).collect::<Vec<Value>>()),
            ("preferences", self.labels.iter().map(label).collect()),
            ("rollouts", self.rollouts.iter().map(rollout).collect()),
            ("evaluations", self.evaluations()),
        ] {
            bench.put(name, schema(name), &rows);
        }
    }

    fn evaluations(&self) -> Vec<Value> {
        let row = |what: &str, metric: &str, principle: Option<&str>, subset: Option<&str>, value: f64| json!({"what": what, "metric": metric, "principle": principle, "subset": subset, "value": value, "n": 40});
        let mut rows = vec![row("reward", "accuracy", None, Some("single"), 0.5)];
        for (name, judge, written, negated) in &self.accuracies {
            rows.push(row("judge", "agreement", Some(name), None, *judge));
            rows.push(row("reward", "accuracy", Some(name), Some("single"), *written));
            rows.push(row("reward", "accuracy", Some(name), Some("negated"), *negated));
        }
        rows
    }
}

/// Scores in both orders, which mostly agree.
fn scores(draw: Key, place: u64) -> Option<(f64, f64)> {
    let ab = 3.0 * draw.normal(10 * place + 1);
    let ba = ab + 1.5 * draw.normal(10 * place + 3);
    (draw.uniform(10 * place) > 0.08).then_some((ab, ba))
}

fn prompt(p: &Prompt) -> Value {
    json!({"prompt_id": p.id, "instruction": "q", "source": "made up", "kind": p.kind, "language": p.language,
        "length_bonus": 1.0, "split": "train"})
}

fn responses(p: &Prompt) -> Vec<Value> {
    let row = |(sample, kept): (usize, &bool)| {
        json!({"prompt_id": p.id, "sample": sample, "response": "r", "tokens": 3, "finish_reason": "stop",
            "logprob": -1.0, "kept": kept})
    };
    p.responses.iter().enumerate().map(row).collect()
}

fn judgment(j: &Judgment) -> Value {
    let verdict = match j.scores {
        None => "unread",
        Some((ab, ba)) if ab > 0.0 && ba > 0.0 => "first",
        Some((ab, ba)) if ab < 0.0 && ba < 0.0 => "second",
        _ => "tie",
    };
    json!({"prompt_id": j.prompt, "instruction": "q", "split": "train", "sample_1": j.samples.0,
        "sample_2": j.samples.1, "response_1": "r", "response_2": "s", "principle": j.principle,
        "score_ab": j.scores.map(|s| s.0), "score_ba": j.scores.map(|s| s.1), "verdict": verdict})
}

fn label(l: &Label) -> Value {
    let shown: Vec<Value> = l
        .shown
        .iter()
        .map(|s| json!({"name": s.name, "negated": s.negated, "text": s.name, "score": s.score}))
        .collect();
    json!({"prompt_id": l.prompt, "pass": l.pass, "prompt": "q", "chosen": l.chosen, "rejected": l.rejected,
        "principles": shown, "dominant": l.dominant.name, "margin": l.dominant.score.abs(), "rule": l.rule,
        "flipped": l.flipped, "first": true, "split": l.split, "kept": l.kept,
        "drop_reason": if l.kept { None } else { Some("tie") }})
}

fn rollout(r: &Rollout) -> Value {
    let reals = vec![0.0; r.tokens];
    json!({"policy": r.policy, "step": r.step, "prompt_id": r.prompt, "instruction": "q", "principles": [],
        "query_ids": [1], "response_ids": vec![1; r.tokens], "response": r.response,
        "finish_reason": if r.stopped { "stop" } else { "length" }, "logprobs": reals, "ref_logprobs": reals,
        "values": reals, "score": r.score, "length_bonus": 0.0, "stop_penalty": 0.0, "reward": r.reward, "kl": r.kl,
        "advantages": reals, "returns": reals})
}
