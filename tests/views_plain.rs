//! The views again, as slow loops over the rows of a made-up run.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::views_support::{Judgment, Label, PRINCIPLES, Prompt, World};

/// The mean, null of nothing.
fn mean(numbers: impl IntoIterator<Item = f64>) -> Value {
    let numbers: Vec<f64> = numbers.into_iter().collect();
    if numbers.is_empty() { Value::Null } else { json!(numbers.iter().sum::<f64>() / numbers.len() as f64) }
}

/// The share of those for which it is so, null of nothing.
fn share<T>(of: impl IntoIterator<Item = T>, so: impl Fn(T) -> bool) -> Value {
    mean(of.into_iter().map(|one| if so(one) { 1.0 } else { 0.0 }))
}

fn kept(world: &World) -> Vec<&Label> {
    world.labels.iter().filter(|label| label.kept).collect()
}

fn decided(world: &World) -> Vec<&Label> {
    kept(world).into_iter().filter(|label| label.rule.is_none()).collect()
}

/// What both orders say: 1 for the first response, -1 for the second, nothing where they disagree.
fn verdict((ab, ba): (f64, f64)) -> Option<i32> {
    if ab > 0.0 && ba > 0.0 {
        Some(1)
    } else if ab < 0.0 && ba < 0.0 {
        Some(-1)
    } else {
        None
    }
}

/// Of each principle.
pub fn order_flips(world: &World) -> Vec<Value> {
    let of = |name: &str| -> Vec<&Judgment> { world.judgments.iter().filter(|j| j.principle == name).collect() };
    let row = |name: &&'static str| {
        let judged = of(name);
        let read: Vec<(f64, f64)> = judged.iter().filter_map(|j| j.scores).collect();
        let agreement = world.accuracies.iter().find(|a| a.0 == *name).map(|a| a.1);
        json!({"principle": name, "pairs": judged.len(), "unread": judged.len() - read.len(),
            "flip_rate": share(&read, |scores| verdict(*scores).is_none()),
            "lean": mean(read.iter().map(|(ab, ba)| (ab - ba) / 2.0)),
            "agreement": agreement, "agreement_n": agreement.map(|_| 40)})
    };
    PRINCIPLES.iter().map(row).collect()
}

/// Of each decider.
pub fn dominant_principles(world: &World) -> Vec<Value> {
    let by = |l: &&Label| if l.rule.is_none() { Some(l.dominant.name) } else { None };
    let all = kept(world);
    let deciders: BTreeSet<Option<&str>> = all.iter().map(by).collect();
    let mut rows: Vec<(usize, Option<&str>, Value)> = Vec::new();
    for decider in deciders {
        let own: Vec<&Label> = all.iter().filter(|l| by(l) == decider).copied().collect();
        let row = json!({"dominant": decider, "labels": own.len(), "share": own.len() as f64 / all.len() as f64,
            "margin": mean(own.iter().map(|l| l.dominant.score.abs())), "flipped": share(&own, |l| l.flipped)});
        rows.push((own.len(), decider, row));
    }
    // Names before their absence.
    rows.sort_by_key(|(labels, decider, _)| (std::cmp::Reverse(*labels), decider.is_none(), *decider));
    rows.into_iter().map(|row| row.2).collect()
}

/// Of every two principles.
pub fn principle_agreement(world: &World) -> Vec<Value> {
    let mut rows = Vec::new();
    for (i, one) in PRINCIPLES.iter().enumerate() {
        for other in &PRINCIPLES[i + 1..] {
            let mut scores = Vec::new();
            for a in world.judgments.iter().filter(|j| j.principle == *one) {
                for b in world.judgments.iter().filter(|j| j.principle == *other) {
                    if a.prompt == b.prompt && a.samples == b.samples {
                        scores.extend(a.scores.zip(b.scores));
                    }
                }
            }
            let verdicts: Vec<(i32, i32)> = scores.iter().filter_map(|(a, b)| verdict(*a).zip(verdict(*b))).collect();
            rows.push(json!({"principle_1": one, "principle_2": other, "pairs": scores.len(),
                "decided": verdicts.len(), "agreement": share(&verdicts, |(a, b)| a == b),
                "correlation": correlation(&scores)}));
        }
    }
    rows
}

/// The scores of a pair in both orders.
type Scores = (f64, f64);

/// Pearson's correlation of the mean scores under two principles.
fn correlation(scores: &[(Scores, Scores)]) -> f64 {
    let means: Vec<(f64, f64)> = scores.iter().map(|(a, b)| ((a.0 + a.1) / 2.0, (b.0 + b.1) / 2.0)).collect();
    let n = means.len() as f64;
    let (x, y) = (means.iter().map(|m| m.0).sum::<f64>() / n, means.iter().map(|m| m.1).sum::<f64>() / n);
    let sum = |of: &dyn Fn(f64, f64) -> f64| means.iter().map(|m| of(m.0 - x, m.1 - y)).sum::<f64>();
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}

/// Every label as written against every one negated.
pub fn negation_consistency(world: &World) -> Vec<Value> {
    let mut rows = Vec::new();
    for name in PRINCIPLES {
        let own: Vec<&Label> = decided(world).into_iter().filter(|l| l.dominant.name == name).collect();
        let (negated, written): (Vec<&Label>, Vec<&Label>) = own.into_iter().partition(|l| l.dominant.negated);
        let mut turned = Vec::new();
        for a in &written {
            for b in negated.iter().filter(|b| b.prompt == a.prompt) {
                if (&a.chosen, &a.rejected) == (&b.chosen, &b.rejected) {
                    turned.push(false);
                } else if (&a.chosen, &a.rejected) == (&b.rejected, &b.chosen) {
                    turned.push(true);
                }
            }
        }
        let accuracy = world.accuracies.iter().find(|a| a.0 == name);
        rows.push(json!({"principle": name, "written": written.len(), "negated": negated.len(),
            "compared": turned.len(), "turned": share(&turned, |t| *t),
            "accuracy": accuracy.map(|a| a.2), "accuracy_negated": accuracy.map(|a| a.3)}));
    }
    rows
}

/// Of each bin of confidence.
pub fn judge_calibration(world: &World) -> Vec<Value> {
    let mut orders = Vec::new();
    for (ab, ba) in world.judgments.iter().filter_map(|j| j.scores) {
        orders.extend([(ab, ba), (ba, ab)].map(|(score, other)| (1.0 / (1.0 + (-score.abs()).exp()), score, other)));
    }
    let row = |bin: usize| {
        let (low, high) = (bin as f64 / 20.0, (bin + 1) as f64 / 20.0);
        let own: Vec<_> = orders.iter().filter(|(c, _, _)| *c >= low && (*c < high || bin == 19)).collect();
        let (confidence, confirmed) = (mean(own.iter().map(|o| o.0)), share(&own, |o| (o.1 > 0.0) == (o.2 > 0.0)));
        let gap = confirmed.as_f64()? - confidence.as_f64()?;
        Some(json!({"low": low, "high": high, "verdicts": own.len(), "confidence": confidence,
            "confirmed": confirmed, "gap": gap}))
    };
    (10..20).filter_map(row).collect()
}

/// Of each bin of margins.
pub fn margin_calibration(world: &World) -> Vec<Value> {
    let all = decided(world);
    let row = |bin: i32| {
        let (low, high) = (2f64.powi(bin), 2f64.powi(bin + 1));
        let inside = |l: &&&Label| (low..high).contains(&l.dominant.score.abs());
        let own: Vec<&Label> = all.iter().filter(inside).copied().collect();
        let against = |l: &&Label| l.shown.iter().any(|s| s.score * l.dominant.score < 0.0);
        (!own.is_empty()).then(|| {
            json!({"low": low, "high": high, "labels": own.len(), "share": own.len() as f64 / all.len() as f64,
                "contested": share(&own, against), "flipped": share(&own, |l| l.flipped)})
        })
    };
    (-20..20).filter_map(row).collect()
}

/// Of each principle in both forms.
pub fn length_bias(world: &World) -> Vec<Value> {
    let mut rows = Vec::new();
    for name in PRINCIPLES {
        for negated in [false, true] {
            let own = decided(world).into_iter().filter(|l| (l.dominant.name, l.dominant.negated) == (name, negated));
            let lengths: Vec<(usize, usize)> =
                own.map(|l| (l.chosen.chars().count(), l.rejected.chars().count())).collect();
            let differ = lengths.iter().filter(|(chosen, rejected)| chosen != rejected);
            rows.push(json!({"principle": name, "negated": negated, "labels": lengths.len(),
                "chosen_longer": share(differ, |(chosen, rejected)| chosen > rejected),
                "chosen_length": mean(lengths.iter().map(|l| l.0 as f64)),
                "rejected_length": mean(lengths.iter().map(|l| l.1 as f64))}));
        }
    }
    rows
}

/// Of each decider and split.
pub fn label_noise(world: &World) -> Vec<Value> {
    let mut rows = Vec::new();
    for rule in [Some("boilerplate"), Some("language"), None] {
        for split in ["test", "train"] {
            let own: Vec<&Label> = kept(world).into_iter().filter(|l| (l.rule, l.split) == (rule, split)).collect();
            rows.push(json!({"decided_by": rule.unwrap_or("principle"), "split": split, "labels": own.len(),
                "flipped": own.iter().filter(|l| l.flipped).count(), "flip_rate": share(&own, |l| l.flipped)}));
        }
    }
    rows
}

/// Of each kind and language.
pub fn splits(world: &World) -> Vec<Value> {
    let mut rows = Vec::new();
    let parts = [("kind", "general"), ("kind", "reasoning"), ("kind", "red_teaming")];
    for (split_by, value) in parts.into_iter().chain(["eng", "spa", "unknown"].map(|code| ("language", code))) {
        let of = |p: &&Prompt| {
            if split_by == "kind" { p.kind == value } else { p.language.unwrap_or("unknown") == value }
        };
        let prompts: Vec<_> = world.prompts.iter().filter(of).collect();
        let within = |id: &str| prompts.iter().any(|p| p.id == id);
        let judged: Vec<&Judgment> = world.judgments.iter().filter(|j| within(&j.prompt)).collect();
        let labels: Vec<&Label> = world.labels.iter().filter(|l| within(&l.prompt)).collect();
        let margins = labels.iter().filter(|l| l.kept).map(|l| l.dominant.score.abs());
        let answers: Vec<bool> = prompts.iter().flat_map(|p| p.responses.clone()).collect();
        rows.push(json!({"split_by": split_by, "value": value, "prompts": prompts.len(),
            "responses": answers.len(), "responses_kept": answers.iter().filter(|kept| **kept).count(),
            "judgments": judged.len(),
            "flip_rate": share(judged.iter().filter_map(|j| j.scores), |scores| verdict(scores).is_none()),
            "labels": labels.len(), "labels_kept": labels.iter().filter(|l| l.kept).count(), "margin": mean(margins)}));
    }
    rows
}

/// Of each policy and step.
pub fn reward_kl(world: &World) -> Vec<Value> {
    let row = |(policy, step): (&str, i64)| {
        let own: Vec<_> = world.rollouts.iter().filter(|r| (r.policy, r.step) == (policy, step)).collect();
        json!({"policy": policy, "step": step, "rollouts": own.len(), "score": mean(own.iter().map(|r| r.score)),
            "reward": mean(own.iter().map(|r| r.reward)), "kl": mean(own.iter().map(|r| r.kl)),
            "tokens": mean(own.iter().map(|r| r.tokens as f64)), "stopped": share(&own, |r| r.stopped)})
    };
    [("x", 0), ("x", 1), ("x", 2), ("y", 0), ("y", 1)].map(row).to_vec()
}

/// The ends of each policy's last step.
pub fn best_and_worst_rollouts(world: &World) -> Vec<Value> {
    let mut rows = Vec::new();
    for (policy, step) in [("x", 2), ("y", 1)] {
        for (which, sign) in [("best", -1.0), ("worst", 1.0)] {
            let mut own: Vec<_> = world.rollouts.iter().filter(|r| (r.policy, r.step) == (policy, step)).collect();
            own.sort_by(|a, b| (sign * a.reward).total_cmp(&(sign * b.reward)).then(a.prompt.cmp(&b.prompt)));
            for (place, r) in own.iter().take(10).enumerate() {
                rows.push(json!({"policy": policy, "step": step, "which": which, "place": place + 1,
                    "prompt_id": r.prompt, "instruction": "q", "response": r.response, "principles": [],
                    "score": r.score, "length_bonus": 0.0, "stop_penalty": 0.0, "reward": r.reward, "kl": r.kl}));
            }
        }
    }
    rows
}

/// The figures of two runs side by side.
pub fn drift(a: &World, b: &World) -> Vec<Value> {
    let mut compared: BTreeMap<(String, String), [Option<f64>; 2]> = BTreeMap::new();
    for (place, world) in [a, b].into_iter().enumerate() {
        for (figure, name, value) in figures(world) {
            compared.entry((figure.to_string(), name)).or_default()[place] = value;
        }
    }
    let row = |((figure, name), [a, b]): ((String, String), [Option<f64>; 2])| json!({"figure": figure, "name": name, "a": a, "b": b, "change": a.zip(b).map(|(a, b)| b - a)});
    compared.into_iter().map(row).collect()
}

fn figures(world: &World) -> Vec<(&'static str, String, Option<f64>)> {
    let mut found = Vec::new();
    let mut take = |figure, rows: &[Value], name: &dyn Fn(&Value) -> String, column: &str| {
        found.extend(rows.iter().map(|row| (figure, name(row), row[column].as_f64())));
    };
    let named = |row: &Value, column: &str| row[column].as_str().unwrap_or("a rule").to_string();
    let (flips, deciders, noise) = (order_flips(world), dominant_principles(world), label_noise(world));
    let (accuracies, steps) = (negation_consistency(world), reward_kl(world));
    take("judge: flip rate", &flips, &|row| named(row, "principle"), "flip_rate");
    take("judge: lean", &flips, &|row| named(row, "principle"), "lean");
    take("labels: share decided", &deciders, &|row| named(row, "dominant"), "share");
    take("labels: margin", &deciders, &|row| named(row, "dominant"), "margin");
    take("labels: noise", &noise, &|row| named(row, "decided_by") + ", " + &named(row, "split"), "flip_rate");
    take("reward: accuracy", &accuracies, &|row| named(row, "principle"), "accuracy");
    take("reward: accuracy, negated", &accuracies, &|row| named(row, "principle"), "accuracy_negated");
    // Steps are in order, so the last one stays.
    take("policy: score", &steps, &|row| named(row, "policy"), "score");
    take("policy: kl", &steps, &|row| named(row, "policy"), "kl");
    found
}
