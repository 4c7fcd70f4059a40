//! What a run will cost, at most: rows, model calls and tokens per stage; and whether prompts fit into the context.
//!
//! In: the configuration, the number of prompts and principles, and prompts rendered with the real templates and
//! tokenizer. Out: a table. Drops, ties and early ends make a run cheaper than this.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Report;
use super::data::Data;
use super::model::Model;
use crate::Result;
use crate::config::{Config, Ppo};
use crate::principle::{Library, Principle, Templates};
use crate::stage::{Planned, State};
use crate::world::curriculum::Options as Curriculum;

/// Prompts that are measured.
const MEASURED: usize = 512;

/// Tokens of what the templates make, with empty texts, and of the prompts.
pub(super) struct Sizes {
    self_align: u64,
    chat: u64,
    judge: u64,
    /// What of it comes after the texts that all principles share.
    judge_tail: u64,
    reward: u64,
    /// The mean prompt and the longest one.
    mean: f64,
    longest: u64,
}

impl Sizes {
    /// Measures; `None` when there is no tokenizer yet or a template cannot be rendered (which is a finding then).
    pub(super) fn measure(
        config: &Config,
        library: &Library,
        templates: &Templates,
        data: &Data,
        model: Option<&Model>,
        report: &mut Report,
    ) -> Option<Sizes> {
        let model = model?;
        let mut tokens = |text: Result<String>| match text.and_then(|text| model.tokenizer.encode(&text, true)) {
            Ok(ids) => Some(ids.len() as u64),
            Err(error) => {
                report.finding(error);
                None
            }
        };
        let t = &config.templates;
        let longest = |principles: Vec<&Principle>| principles.into_iter().max_by_key(|p| p.definition.len()).cloned();
        let judged = library.set("principles", &config.principles.judge_set).ok().and_then(longest);
        let (name, definition) = judged.map(|p| (p.name, p.definition)).unwrap_or_default();
        let shown: Vec<Value> = rubric(config, library);
        let empty = |name: &str, fields: Value| templates.render(name, fields);
        let self_align = tokens(empty(&t.self_align, json!({"instruction": "", "pick": 0})))?;
        let chat = tokens(empty(&t.chat, json!({"instruction": ""})))?;
        let judge =
            json!({"instruction": "", "output_a": "", "output_b": "", "principle": name, "definition": definition});
        let judge = tokens(empty(&t.judge, judge))?;
        let bare = json!({"instruction": "", "output_a": "", "output_b": "", "principle": "", "definition": ""});
        let judge_tail = judge.saturating_sub(tokens(empty(&t.judge, bare))?);
        let reward = tokens(empty(&t.reward, json!({"instruction": "", "response": "", "principles": shown})))?;
        let step = data.train.len().div_ceil(MEASURED).max(1);
        let prompts: Vec<u64> =
            data.train.iter().step_by(step).map(|text| tokens(Ok(text.clone()))).collect::<Option<_>>()?;
        let mean = prompts.iter().sum::<u64>() as f64 / prompts.len().max(1) as f64;
        let sizes = Sizes {
            self_align,
            chat,
            judge,
            judge_tail,
            reward,
            mean,
            longest: prompts.into_iter().max().unwrap_or(0),
        };
        sizes.fit(config, model.config.max_position_embeddings as u64, report);
        Some(sizes)
    }

    /// What must fit into the context, and what should.
    fn fit(&self, config: &Config, context: u64, report: &mut Report) {
        let (judge, reward) = (&config.judge, &config.reward);
        let response = |most: i64| whole(most.min(config.responses.max_tokens));
        let query = |most: i64| self.longest.min(whole(most));
        let answer = |least: u64, most: i64| least + self.longest + whole(most);
        // What it is, its tokens with empty texts, and at most.
        let fits = [
            ("self_align", self.self_align, answer(self.self_align, config.self_align.max_tokens)),
            ("chat", self.chat, answer(self.chat, config.responses.max_tokens.max(config.ppo.max_tokens))),
            ("judge", self.judge, self.judge + query(judge.max_query_tokens) + 2 * response(judge.max_response_tokens)),
            (
                "reward",
                self.reward,
                self.reward + query(reward.max_query_tokens) + response(reward.max_response_tokens),
            ),
        ];
        for (what, least, most) in fits {
            if least >= context {
                report.finding(format!(
                    "templates.{what}: is {least} tokens without any text in it, and the model's context is {context}; \
                     shorten it or show fewer principles, rules or exemplars"
                ));
            } else if most > context {
                report.note(format!(
                    "templates.{what}: {most} tokens at most, prompt and answer together, and the model's context is \
                     {context}; longer rows are cut or dropped"
                ));
            }
        }
    }
}

/// As many of the longest definitions as one reward prompt can show.
fn rubric(config: &Config, library: &Library) -> Vec<Value> {
    let most = config.preferences.max_principles.max(0) as usize;
    let mut texts: Vec<&Principle> =
        library.set("principles", &config.principles.aggregate_set).unwrap_or_default().into_iter().collect();
    texts.sort_by_key(|principle| std::cmp::Reverse(principle.definition.len()));
    let row = |p: &&Principle| json!({"name": p.name, "negated": false, "text": p.definition});
    texts.iter().take(most).map(row).collect()
}

fn whole(number: i64) -> u64 {
    number.max(0) as u64
}

/// What a stage does, at most.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    rows: u64,
    pub(super) calls: u64,
    tokens: f64,
    /// Tokens of one sequence.
    pub(super) length: f64,
    /// Tokens that are read once, those that several rows share counted once.
    pub(super) read: f64,
    /// Positions among them whose logits are made.
    pub(super) read_logits: f64,
    /// Tokens that are sampled one after the other.
    pub(super) sampled: f64,
    /// Tokens that go through a forward and a backward pass.
    pub(super) trained: f64,
    /// Positions among them whose logits are made.
    pub(super) trained_logits: f64,
}

fn cost(rows: u64, calls: u64, tokens_each: f64) -> Cost {
    Cost { rows, calls, tokens: calls as f64 * tokens_each, length: tokens_each, ..Cost::default() }
}

impl Cost {
    /// Every call samples `answer` tokens after `prompt` ones.
    fn sampling(self, prompt: f64, answer: f64) -> Self {
        Cost { read: self.calls as f64 * prompt, sampled: self.calls as f64 * answer, ..self }
    }

    /// Every call trains its whole sequence, with logits for `answer` of its tokens.
    fn training(self, answer: f64) -> Self {
        Cost { trained: self.tokens, trained_logits: self.calls as f64 * answer, ..self }
    }
}

/// `0` means all.
fn limited(asked: i64, all: u64) -> u64 {
    if asked > 0 { whole(asked).min(all) } else { all }
}

/// The stages with their cost, and whether the run that was named has them.
pub(super) fn table(
    config: &Config,
    library: &Library,
    data: &Data,
    sizes: &Sizes,
    planned: &[Planned],
    named: bool,
) -> Result<String> {
    let head = "at most, per stage";
    let width = planned.iter().map(|stage| stage.stage.len()).chain([head.len()]).max().unwrap_or(0);
    let mut text = format!("\n{head:<width$}{:>12}{:>14}{:>12}\n", "rows", "model calls", "tokens");
    let (mut calls, mut tokens) = (0, 0.0);
    for stage in planned {
        let cost = of(&stage.stage, config, library, data, sizes)?;
        let state = match &stage.state {
            State::Cached => "  cached".to_string(),
            State::Copy(from) => format!("  would be copied from {from}"),
            State::Run(why) => {
                calls += cost.calls;
                tokens += cost.tokens;
                let known = stage.known.map(|known| format!("; {known}")).unwrap_or_default();
                if named { format!("  would run: {why}{known}") } else { String::new() }
            }
        };
        let (rows, asked) = (grouped(cost.rows), grouped(cost.calls));
        let _ = writeln!(text, "{:<width$}{rows:>12}{asked:>14}{:>12}{state}", stage.stage, short(cost.tokens));
    }
    let _ = writeln!(text, "{:<width$}{:>12}{:>14}{:>12}", "to do", "", grouped(calls), short(tokens));
    Ok(text)
}

/// The cost of one stage.
pub(super) fn of(stage: &str, config: &Config, library: &Library, data: &Data, sizes: &Sizes) -> Result<Cost> {
    let train = data.train.len() as u64;
    let (c, r) = (&config.self_align, &config.responses);
    let demonstrations = limited(c.prompts, train) * whole(c.samples);
    let chosen = if r.prompts > 0 { limited(r.prompts + r.test_prompts, train) } else { train };
    let (rounds, samples) = (whole(r.rounds), whole(r.samples));
    let pairs_each = rounds * samples * samples.saturating_sub(1) / 2;
    let (pairs, test_pairs) =
        (chosen * pairs_each, limited(r.test_prompts, chosen).min(whole(r.test_prompts)) * pairs_each);
    let judged = library.set("principles", &config.principles.judge_set)?.len() as u64;
    let preferences = pairs * whole(config.preferences.passes);
    let answer = sizes.chat as f64 + sizes.mean + r.max_tokens as f64;
    let scored = sizes.reward as f64 + sizes.mean + config.reward.max_response_tokens.min(r.max_tokens) as f64;
    let judgment = sizes.judge as f64 + sizes.mean + 2.0 * config.judge.max_response_tokens.min(r.max_tokens) as f64;
    Ok(match stage {
        "base" => Cost { tokens: Curriculum::default().max_tokens as f64, ..Cost::default() },
        "principles" => cost(library.principles.len() as u64, 0, 0.0),
        "prompts" => cost(train + data.test, 0, 0.0),
        "demonstrations" => {
            // Rules and exemplars come first and are read once.
            cost(demonstrations, demonstrations, sizes.self_align as f64 + sizes.mean + c.max_tokens as f64)
                .sampling(sizes.mean, c.max_tokens as f64)
        }
        "sft" => {
            let rows = demonstrations + library.identity.len() as u64;
            let length = sizes.chat as f64 + sizes.mean + c.max_tokens as f64;
            cost(rows, rows * config.sft.num_train_epochs as u64, length).training(c.max_tokens as f64)
        }
        "responses" => {
            let count = chosen * rounds * samples;
            cost(count, count, answer).sampling(sizes.chat as f64 + sizes.mean, r.max_tokens as f64)
        }
        "pairs" => cost(pairs, 0, 0.0),
        "judgments" => {
            // The texts of a pair once per order, then every principle behind them.
            let cost = cost(pairs * judged, 2 * pairs * judged, judgment);
            let tail = sizes.judge_tail as f64;
            Cost { read: 2.0 * pairs as f64 * (judgment - tail + judged as f64 * tail), ..cost }
        }
        "preferences" => cost(preferences, 0, 0.0),
        "reward_pretraining" => {
            let pretraining = config.reward_pretraining.as_ref();
            let rows = pretraining.map_or(0, |p| limited(p.max_rows, data.preferences));
            let length = pretraining.map_or(0, |p| p.max_query_tokens + p.max_response_tokens) as f64;
            let epochs = pretraining.map_or(0, |p| p.trainer.num_train_epochs) as u64;
            cost(rows, 2 * rows * epochs, length).training(0.0)
        }
        "reward" => {
            cost(preferences, 2 * preferences * config.reward.trainer.num_train_epochs as u64, scored).training(0.0)
        }
        "evaluate:judge" => cost(judged, 0, 0.0),
        "evaluate:reward" => {
            // Every wording of every principle in the toy world; the drawn principles elsewhere.
            let each = if config.evaluate.world == "pocket" {
                wordings(config, library)?
            } else {
                config.preferences.passes as u64
            };
            let cost = cost(test_pairs * each, 2 * test_pairs * each, scored);
            Cost { read: cost.tokens, ..cost }
        }
        name if name.starts_with("evaluate:") => {
            let asked = limited(config.evaluate.prompts, data.test) * whole(config.evaluate.samples);
            let length = sizes.chat as f64 + sizes.mean + config.ppo.max_tokens as f64;
            let cost = cost(asked, 3 * asked, length);
            let sampled = asked as f64 * config.ppo.max_tokens as f64;
            Cost { sampled, read: cost.tokens - sampled, ..cost }
        }
        name => match config.policies.iter().find(|policy| name.strip_prefix("policy:") == Some(&policy.name)) {
            Some(policy) => course(&config.ppo_of(policy)?, train, sizes),
            None => cost(0, 0, 0.0),
        },
    })
}

/// A policy's PPO run: each rollout is sampled, scored, read by policy, reference and value, and trained on.
fn course(ppo: &Ppo, train: u64, sizes: &Sizes) -> Cost {
    let batch = ppo.trainer.batch_size as u64;
    let steps = match ppo.steps {
        0 => train.div_ceil(batch.max(1)) * ppo.trainer.num_train_epochs as u64,
        steps => whole(steps),
    };
    let calls = 5 + 2 * ppo.trainer.num_ppo_epochs as u64;
    let length = sizes.chat as f64 + sizes.mean + ppo.max_tokens as f64;
    let cost = cost(steps * batch, steps * batch * calls, length);
    let (rollouts, answer, epochs) = ((steps * batch) as f64, ppo.max_tokens as f64, ppo.trainer.num_ppo_epochs as f64);
    Cost {
        // The prompt before sampling, the reward prompt, and policy, reference and value.
        read: rollouts * (length - answer + 4.0 * length),
        read_logits: rollouts * 2.0 * answer,
        sampled: rollouts * answer,
        trained: rollouts * 2.0 * epochs * length,
        trained_logits: rollouts * epochs * answer,
        ..cost
    }
}

/// How often the toy world's evaluation asks about one pair.
fn wordings(config: &Config, library: &Library) -> Result<u64> {
    let texts = |p: &&Principle| {
        1 + usize::from(p.negative_definition.is_some()) + p.reworded.len() + p.negative_reworded.len()
    };
    let single: usize = library.set("principles", &config.principles.aggregate_set)?.iter().map(texts).sum();
    let combined: usize = config.principles.held_out.iter().map(|names| 1 << names.len().min(8)).sum();
    Ok((single + combined) as u64)
}

/// 1234567 as `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A number of tokens with its unit.
fn short(tokens: f64) -> String {
    match tokens {
        x if x <= 0.0 => "0".into(),
        x if x < 1e6 => format!("{:.1} k", x / 1e3),
        x if x < 1e9 => format!("{:.1} M", x / 1e6),
        x => format!("{:.1} G", x / 1e9),
    }
}
