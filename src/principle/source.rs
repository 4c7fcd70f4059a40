//! One principle file: TOML text in, entries out that remember the line of each of their keys.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::library::{Boost, Exemplar, Identity, Principle, Rule, Set};
use crate::{Error, Result};

/// Where an entry stands, so that a finding can name file and line.
#[derive(Debug, Clone)]
pub(crate) struct At {
    file: Arc<str>,
    line: usize,
    keys: BTreeMap<String, usize>,
    /// Whether the file is part of the program; a user's entry of the same name then takes its place.
    pub(crate) built_in: bool,
}

impl At {
    /// A row of a table.
    pub(crate) fn stored(table: &str, row: usize) -> At {
        At { file: table.into(), line: row, keys: BTreeMap::new(), built_in: false }
    }

    /// `file:line` of a key (`"weight"`, `"sets[1]"`), or of the entry's header where it has no such key.
    pub(crate) fn place(&self, key: &str) -> String {
        format!("{}:{}", self.file, self.keys.get(key).unwrap_or(&self.line))
    }
}

/// What one file holds, in its order.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Files to load before this one, each with the place that names it.
    pub(crate) uses: Vec<(String, String)>,
    pub(crate) principles: Vec<Principle>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) exemplars: Vec<Exemplar>,
    pub(crate) identity: Vec<Identity>,
    pub(crate) boosts: Vec<Boost>,
    pub(crate) sets: Vec<Set>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    uses: Vec<Spanned<String>>,
    #[serde(default)]
    principle: Vec<Spanned<RawPrinciple>>,
    #[serde(default)]
    rule: Vec<Spanned<RawRule>>,
    #[serde(default)]
    exemplar: Vec<Spanned<RawExemplar>>,
    #[serde(default)]
    identity: Vec<Spanned<RawIdentity>>,
    #[serde(default)]
    boost: Vec<Spanned<RawBoost>>,
    #[serde(default)]
    set: Vec<Spanned<RawSet>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPrinciple {
    name: Spanned<String>,
    definition: Spanned<String>,
    negative_definition: Option<Spanned<String>>,
    weight: Option<Spanned<f64>>,
    #[serde(default)]
    sets: Vec<Spanned<String>>,
    #[serde(default)]
    tags: Vec<Spanned<String>>,
    #[serde(default)]
    reworded: Vec<Spanned<String>>,
    #[serde(default)]
    negative_reworded: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: Spanned<String>,
    definition: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExemplar {
    user: Spanned<String>,
    #[serde(default)]
    rules: Vec<Spanned<String>>,
    thoughts: Option<Spanned<String>>,
    assistant: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIdentity {
    question: Spanned<String>,
    answer: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBoost {
    kind: Spanned<String>,
    tag: Spanned<String>,
    weight: Spanned<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSet {
    name: Spanned<String>,
    about: Spanned<String>,
    #[serde(default)]
    negatives: bool,
    draw: Option<Spanned<usize>>,
}

/// Parses one file. `file` is how messages call it.
///
/// # Errors
/// Text that is not TOML, a missing or unknown key, or a value of the wrong type, with its line.
pub(crate) fn parse(file: &str, text: &str, built_in: bool) -> Result<Entries> {
    let raw: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        Error::config(format!("{file}:{line}"), error.message())
    })?;
    let lines = Lines { file: file.into(), text, built_in };
    Ok(Entries {
        uses: raw
            .uses
            .into_iter()
            .map(|name| {
                let place = format!("{file}:{}", line_of(text, name.span().start));
                (name.into_inner(), place)
            })
            .collect(),
        principles: raw.principle.into_iter().map(|entry| lines.principle(entry)).collect(),
        rules: raw.rule.into_iter().map(|entry| lines.rule(entry)).collect(),
        exemplars: raw.exemplar.into_iter().map(|entry| lines.exemplar(entry)).collect(),
        identity: raw.identity.into_iter().map(|entry| lines.identity(entry)).collect(),
        boosts: raw.boost.into_iter().map(|entry| lines.boost(entry)).collect(),
        sets: raw.set.into_iter().map(|entry| lines.set(entry)).collect(),
    })
}

/// The line, from 1, of a byte of the text.
fn line_of(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|b| *b == b'\n').count()
}

struct Lines<'a> {
    file: Arc<str>,
    text: &'a str,
    built_in: bool,
}

impl Lines<'_> {
    fn at(&self, entry: Range<usize>) -> At {
        At {
            file: Arc::clone(&self.file),
            line: line_of(self.text, entry.start),
            keys: BTreeMap::new(),
            built_in: self.built_in,
        }
    }

    /// Takes a value out and notes its line under `key`.
    fn take<T>(&self, at: &mut At, key: &str, value: Spanned<T>) -> T {
        at.keys.insert(key.to_string(), line_of(self.text, value.span().start));
        value.into_inner()
    }

    /// Takes a list out and notes the line of item `i` under `key[i]`.
    fn list(&self, at: &mut At, key: &str, values: Vec<Spanned<String>>) -> Vec<String> {
        values.into_iter().enumerate().map(|(i, value)| self.take(at, &format!("{key}[{i}]"), value)).collect()
    }

    fn principle(&self, entry: Spanned<RawPrinciple>) -> Principle {
        let mut at = self.at(entry.span());
        let raw = entry.into_inner();
        Principle {
            name: self.take(&mut at, "name", raw.name),
            definition: self.take(&mut at, "definition", raw.definition),
            negative_definition: raw.negative_definition.map(|text| self.take(&mut at, "negative_definition", text)),
            weight: raw.weight.map_or(1.0, |weight| self.take(&mut at, "weight", weight)),
            sets: self.list(&mut at, "sets", raw.sets),
            tags: self.list(&mut at, "tags", raw.tags),
            reworded: self.list(&mut at, "reworded", raw.reworded),
            negative_reworded: self.list(&mut at, "negative_reworded", raw.negative_reworded),
            at,
        }
    }

    fn rule(&self, entry: Spanned<RawRule>) -> Rule {
        let mut at = self.at(entry.span());
        let raw = entry.into_inner();
        Rule {
            name: self.take(&mut at, "name", raw.name),
            definition: self.take(&mut at, "definition", raw.definition),
            at,
        }
    }

    fn exemplar(&self, entry: Spanned<RawExemplar>) -> Exemplar {
        let mut at = self.at(entry.span());
        let raw = entry.into_inner();
        Exemplar {
            user: self.take(&mut at, "user", raw.user),
            rules: self.list(&mut at, "rules", raw.rules),
            thoughts: raw.thoughts.map(|text| self.take(&mut at, "thoughts", text)),
            assistant: self.take(&mut at, "assistant", raw.assistant),
            at,
        }
    }

    fn identity(&self, entry: Spanned<RawIdentity>) -> Identity {
        let mut at = self.at(entry.span());
        let raw = entry.into_inner();
        Identity {
            question: self.take(&mut at, "question", raw.question),
            answer: self.take(&mut at, "answer", raw.answer),
            at,
        }
    }

    fn boost(&self, entry: Spanned<RawBoost>) -> Boost {
        let mut at = self.at(entry.span());
        let raw = entry.into_inner();
        Boost {
            kind: self.take(&mut at, "kind", raw.kind),
            tag: self.take(&mut at, "tag", raw.tag),
            weight: self.take(&mut at, "weight", raw.weight),
            at,
        }
    }

    fn set(&self, entry: Spanned<RawSet>) -> Set {
        let mut at = self.at(entry.span());
        let raw = entry.into_inner();
        Set {
            name: self.take(&mut at, "name", raw.name),
            about: self.take(&mut at, "about", raw.about),
            negatives: raw.negatives,
            draw: raw.draw.map(|count| self.take(&mut at, "draw", count)),
            at,
        }
    }
}
