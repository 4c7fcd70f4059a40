//! Reads `salmon.toml`, applies `--set`, checks values. In: text. Out: a [`Config`] or one line that says what is wrong.

use std::path::Path;

use super::{Config, Ppo};
use crate::{Error, Result};

/// Reads a configuration file and applies `key=value` overrides.
///
/// # Errors
/// A missing file, malformed TOML, an unknown key or a value out of range; the place is the file and the key.
pub fn read(path: &Path, overrides: &[String]) -> Result<Config> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::config(path.display(), "cannot be read; `salmon init` writes a starter configuration").because(e)
    })?;
    parse(&path.display().to_string(), &text, overrides)
}

/// The same for text that is already in memory; `place` names it in errors.
pub fn parse(place: &str, text: &str, overrides: &[String]) -> Result<Config> {
    let mut tree: toml::Table = toml::from_str(text).map_err(|e| located(place, text, &e))?;
    for set in overrides {
        apply(&mut tree, set)?;
    }
    let config: Config = if overrides.is_empty() {
        toml::from_str(text).map_err(|e| located(place, text, &e))?
    } else {
        toml::Value::Table(tree).try_into().map_err(|e: toml::de::Error| {
            // What is wrong without the overrides as well is on a line of the file.
            let file = toml::from_str::<Config>(text).err().filter(|file| file.message() == e.message());
            let overridden = || Error::config(format!("{place} with --set"), first_line(&e));
            file.map_or_else(overridden, |file| located(place, text, &file))
        })?
    };
    config.check(place)?;
    Ok(config)
}

fn first_line(error: &toml::de::Error) -> String {
    error.message().lines().next().unwrap_or_default().to_string()
}

/// `file:line: message`.
fn located(place: &str, text: &str, error: &toml::de::Error) -> Error {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    match line {
        Some(line) => Error::config(format!("{place}:{line}"), first_line(error)),
        None => Error::config(place, first_line(error)),
    }
}

/// Applies `a.b.c=value`; the value is TOML, or a plain string when it is not.
fn apply(tree: &mut toml::Table, set: &str) -> Result<()> {
    let (key, value) = set
        .split_once('=')
        .ok_or_else(|| Error::config(format!("--set {set}"), "expected key=value, e.g. ppo.kl_coef=0.05"))?;
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_string()));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let mut at = tree;
    for part in parts {
        at = at
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| Error::config(format!("--set {set}"), format!("`{part}` is not a section")))?;
    }
    at.insert(last.to_string(), value);
    Ok(())
}

/// Puts `over` on top of `base`, section by section.
fn overlay(base: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => overlay(inner, value),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

impl Config {
    /// The `[ppo]` settings of one policy: the shared section with the policy's own values on top.
    pub fn ppo_of(&self, policy: &super::Policy) -> Result<Ppo> {
        let place = format!("policies.{}.ppo", policy.name);
        let shared = toml::Value::try_from(&self.ppo).map_err(|e| Error::internal("config", e))?;
        let mut table = shared.as_table().cloned().unwrap_or_default();
        overlay(&mut table, &policy.ppo);
        toml::Value::Table(table).try_into().map_err(|e: toml::de::Error| Error::config(place, first_line(&e)))
    }

    /// The policy of that name.
    pub fn policy(&self, name: &str) -> Result<&super::Policy> {
        self.policies.iter().find(|p| p.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.policies.iter().map(|p| p.name.as_str()).collect();
            Error::config("policies", format!("no policy `{name}`; the configuration has {}", known.join(", ")))
        })
    }

    fn check(&self, place: &str) -> Result<()> {
        let bad = |key: &str, problem: &str| Err(Error::config(format!("{place}: {key}"), problem));
        let probabilities = [
            ("preferences.negation", self.preferences.negation),
            ("preferences.noise", self.preferences.noise),
            ("preferences.rule_noise", self.preferences.rule_noise),
            ("preferences.boilerplate_rate", self.preferences.boilerplate_rate),
        ];
        for (key, value) in probabilities {
            if !(0.0..=1.0).contains(&value) {
                return bad(key, "must lie between 0 and 1");
            }
        }
        if !(self.preferences.geometric > 0.0 && self.preferences.geometric < 1.0) {
            return bad("preferences.geometric", "must lie between 0 and 1, both excluded");
        }
        let positive = [
            ("preferences.passes", self.preferences.passes),
            ("preferences.max_principles", self.preferences.max_principles),
            ("responses.rounds", self.responses.rounds),
            ("responses.max_tokens", self.responses.max_tokens),
            ("self_align.samples", self.self_align.samples),
            ("self_align.max_tokens", self.self_align.max_tokens),
            ("evaluate.samples", self.evaluate.samples),
        ];
        for (key, value) in positive {
            if value < 1 {
                return bad(key, "must be at least 1");
            }
        }
        if self.responses.samples < 2 {
            return bad("responses.samples", "must be at least 2: a preference needs two responses");
        }
        let temperatures = [
            ("responses.temperature", self.responses.temperature),
            ("self_align.temperature", self.self_align.temperature),
            ("evaluate.temperature", self.evaluate.temperature),
        ];
        for (key, value) in temperatures {
            if !(value >= 0.0 && value.is_finite()) {
                return bad(key, "must be 0 (greedy) or positive");
            }
        }
        if let Some(lora) = &self.model.lora {
            lora.check(&format!("{place}: model.lora"))?;
        }
        if let Some(quantization) = &self.model.quantization_config {
            quantization.check(&format!("{place}: model.quantization_config"))?;
            if quantization.is_on() && self.model.lora.is_none() {
                return bad("model.quantization_config", "quantised weights do not train; add a section [model.lora]");
            }
        }
        if !["sft", "base"].contains(&self.judge.model.as_str()) {
            return bad("judge.model", "must be `sft` or `base`");
        }
        if !["none", "pocket"].contains(&self.evaluate.world.as_str()) {
            return bad("evaluate.world", "must be `none` or `pocket`");
        }
        let mut names = std::collections::BTreeSet::new();
        for policy in &self.policies {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            if policy.name.is_empty() || !policy.name.chars().all(plain) {
                return bad("policies.name", &format!("`{}` must be letters, digits, - and _", policy.name));
            }
            if !names.insert(&policy.name) {
                return bad("policies.name", &format!("`{}` is used twice", policy.name));
            }
            if policy.principles.is_empty() && (policy.draw == 0 || policy.draw_set.is_none()) {
                return bad(&format!("policies.{}", policy.name), "needs `principles`, or `draw_set` and `draw`");
            }
            self.ppo_of(policy)?.trainer.check(&format!("{place}: policies.{}.ppo.trainer", policy.name))?;
        }
        self.sft.check(&format!("{place}: sft"))?;
        self.reward.trainer.check(&format!("{place}: reward.trainer"))?;
        if let Some(pretraining) = &self.reward_pretraining {
            pretraining.trainer.check(&format!("{place}: reward_pretraining.trainer"))?;
        }
        if self.reward.head == super::RewardHead::YesNo && self.reward.answers.is_none() {
            return bad("reward.answers", "the yes_no head needs two tokens, e.g. [\"Yes\", \"No\"]");
        }
        Ok(())
    }
}
