//! What `salmon check` says about principle files: a [`Library`] in, [`Finding`]s out, each with file, line and advice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::library::{Entry, KINDS, Library, Principle};
use super::source::At;
use crate::{Error, Result};

/// Longest definition, in characters: about 150 tokens. A reward prompt holds several beside the response.
const MAX_DEFINITION: usize = 600;
/// Longest name, in characters.
const MAX_NAME: usize = 60;

/// One thing that is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// File and line.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.problem, self.help)
    }
}

impl Finding {
    pub(crate) fn new(place: impl Into<String>, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Finding { place: place.into(), problem: problem.into(), help: help.into() }
    }

    /// `Ok` without findings.
    ///
    /// # Errors
    /// The first finding, and how many more there are.
    pub fn first(findings: Vec<Finding>) -> Result<()> {
        let more = findings.len().saturating_sub(1);
        match findings.into_iter().next() {
            None => Ok(()),
            Some(Finding { place, problem, help }) if more == 0 => {
                Err(Error::config(place, format!("{problem}; {help}")))
            }
            Some(Finding { place, problem, help }) => {
                Err(Error::config(place, format!("{problem}; {help} (and {more} more: see `salmon check`)")))
            }
        }
    }
}

impl Library {
    /// Everything that is readable but wrong.
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.repetitions(&mut findings);
        self.texts(&mut findings);
        self.unknown_names(&mut findings);
        self.negatives(&mut findings);
        self.weights(&mut findings);
        self.thoughts(&mut findings);
        findings
    }

    /// What is wrong with a list such as `["Concise", "not Humble"]`. `place` is the file and key of the list.
    pub fn check_names<S: AsRef<str>>(&self, place: &str, names: &[S]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut seen = BTreeSet::new();
        for item in names.iter().map(AsRef::as_ref) {
            let (negated, name, principles) = self.named(item);
            if principles.is_empty() {
                let known = quoted(self.principles.iter().map(|p| p.name.as_str()));
                findings.push(Finding::new(
                    place,
                    format!("there is no principle `{name}`"),
                    format!("the loaded principles are: {known}"),
                ));
            }
            for principle in principles {
                if principle.text(negated).is_none() {
                    let at = principle.at.place("name");
                    findings.push(Finding::new(
                        place,
                        format!("`{item}` needs a negative definition, and `{name}` has none"),
                        format!("add negative_definition at {at}, or take the principle as it is"),
                    ));
                }
                if !seen.insert(&principle.name) {
                    findings.push(Finding::new(
                        place,
                        format!("`{}` is named twice", principle.name),
                        "keep one of the two: a principle cannot count double, nor hold together with its opposite",
                    ));
                }
            }
        }
        findings
    }

    /// Whether `count` of these principles can be drawn by weight without replacement, for every kind of prompt:
    /// boosts only add to the weights, so the plain weights decide. `what` names them, `place` asks for the draw.
    pub fn check_draw(place: &str, what: &str, principles: &[&Principle], count: usize) -> Option<Finding> {
        let drawable = principles.iter().filter(|principle| principle.weight > 0.0).count();
        let all = principles.len();
        let problem = if drawable == 0 && count > 0 {
            format!("none of the {all} principles of {what} has a weight over 0")
        } else if drawable < count {
            format!(
                "{count} principles are to be drawn from {what}, and only {drawable} of its {all} have a weight over 0"
            )
        } else {
            return None;
        };
        Some(Finding::new(place, problem, "raise some weights, add principles, or draw fewer"))
    }

    fn repetitions(&self, findings: &mut Vec<Finding>) {
        repeated(findings, "principle", "name", &self.principles);
        repeated(findings, "rule", "name", &self.rules);
        repeated(findings, "exemplar", "user", &self.exemplars);
        repeated(findings, "identity question", "question", &self.identity);
        repeated(findings, "boost", "kind", &self.boosts);
        repeated(findings, "set", "name", &self.sets);

        let mut seen = BTreeMap::new();
        for principle in &self.principles {
            for (key, text) in definitions(principle) {
                same_text(findings, &mut seen, &principle.at, &key, text);
            }
        }
        let mut seen = BTreeMap::new();
        for rule in &self.rules {
            same_text(findings, &mut seen, &rule.at, "definition", &rule.definition);
        }
    }

    fn texts(&self, findings: &mut Vec<Finding>) {
        for principle in &self.principles {
            name(findings, &principle.at, &principle.name);
            for (key, text) in definitions(principle) {
                line(findings, &principle.at, &key, text, MAX_DEFINITION);
            }
        }
        for rule in &self.rules {
            name(findings, &rule.at, &rule.name);
            line(findings, &rule.at, "definition", &rule.definition, MAX_DEFINITION);
        }
        for set in &self.sets {
            name(findings, &set.at, &set.name);
        }
        for exemplar in &self.exemplars {
            filled(findings, &exemplar.at, "user", &exemplar.user);
            if let Some(text) = &exemplar.thoughts {
                filled(findings, &exemplar.at, "thoughts", text);
            }
            filled(findings, &exemplar.at, "assistant", &exemplar.assistant);
        }
        for identity in &self.identity {
            filled(findings, &identity.at, "question", &identity.question);
            filled(findings, &identity.at, "answer", &identity.answer);
        }
    }

    fn unknown_names(&self, findings: &mut Vec<Finding>) {
        let sets: Vec<&str> = self.sets.iter().map(|set| set.name.as_str()).collect();
        let rules: Vec<&str> = self.rules.iter().map(|rule| rule.name.as_str()).collect();
        let tags: BTreeSet<&str> =
            self.principles.iter().flat_map(|principle| principle.tags.iter().map(String::as_str)).collect();
        for principle in &self.principles {
            for (i, set) in principle.sets.iter().enumerate().filter(|(_, set)| !sets.contains(&set.as_str())) {
                findings.push(Finding::new(
                    principle.at.place(&format!("sets[{i}]")),
                    format!("there is no set `{set}`"),
                    format!(
                        "declare it with [[set]] name = \"{set}\", or write one of: {}",
                        quoted(sets.iter().copied())
                    ),
                ));
            }
        }
        for exemplar in &self.exemplars {
            for (i, rule) in exemplar.rules.iter().enumerate().filter(|(_, rule)| !rules.contains(&rule.as_str())) {
                findings.push(Finding::new(
                    exemplar.at.place(&format!("rules[{i}]")),
                    format!("there is no rule `{rule}`"),
                    format!("the rules are: {}", quoted(rules.iter().copied())),
                ));
            }
        }
        for boost in &self.boosts {
            if !KINDS.contains(&boost.kind.as_str()) {
                findings.push(Finding::new(
                    boost.at.place("kind"),
                    format!("there is no kind of prompt `{}`", boost.kind),
                    format!("the kinds are: {}", quoted(KINDS.iter().copied())),
                ));
            }
            if !tags.contains(boost.tag.as_str()) {
                findings.push(Finding::new(
                    boost.at.place("tag"),
                    format!("no principle has the tag `{}`", boost.tag),
                    format!("add it to the `tags` of a principle, or write one of: {}", quoted(tags.iter().copied())),
                ));
            }
        }
    }

    fn negatives(&self, findings: &mut Vec<Finding>) {
        for principle in self.principles.iter().filter(|principle| principle.negative_definition.is_none()) {
            if let Some(set) = self.sets.iter().find(|set| set.negatives && principle.is_in(&set.name)) {
                findings.push(Finding::new(
                    principle.at.place("name"),
                    format!("`{}` has no negative definition, and the set `{}` negates", principle.name, set.name),
                    "add negative_definition = \"...\", saying what a response that does the opposite is like",
                ));
            }
            if !principle.negative_reworded.is_empty() {
                findings.push(Finding::new(
                    principle.at.place("negative_reworded[0]"),
                    format!("`{}` rewords a negative definition that it does not have", principle.name),
                    "add negative_definition",
                ));
            }
        }
    }

    fn weights(&self, findings: &mut Vec<Finding>) {
        let principles = self.principles.iter().map(|principle| (&principle.at, principle.weight));
        let boosts = self.boosts.iter().map(|boost| (&boost.at, boost.weight));
        for (at, weight) in principles.chain(boosts) {
            if !weight.is_finite() || weight < 0.0 {
                findings.push(Finding::new(
                    at.place("weight"),
                    format!("the weight {weight} cannot be drawn with"),
                    "write a number from 0 up; 0 is never drawn",
                ));
            }
        }
        for set in &self.sets {
            let members: Vec<&Principle> = self.principles.iter().filter(|p| p.is_in(&set.name)).collect();
            // A set without members is one whose file was not loaded.
            if let (Some(count), false) = (set.draw, members.is_empty()) {
                let what = format!("the set `{}`", set.name);
                findings.extend(Library::check_draw(&set.at.place("draw"), &what, &members, count));
            }
        }
    }

    /// The self-align prompt ends where the thoughts begin or where the answer begins, not both.
    fn thoughts(&self, findings: &mut Vec<Finding>) {
        let Some(first) = self.exemplars.first() else { return };
        for exemplar in &self.exemplars {
            if exemplar.thoughts.is_some() != first.thoughts.is_some() {
                findings.push(Finding::new(
                    exemplar.at.place("user"),
                    "some exemplars have thoughts and some have none",
                    "give thoughts to all of them, or to none",
                ));
            }
        }
    }
}

/// Every definition of a principle with its key.
fn definitions(principle: &Principle) -> Vec<(String, &str)> {
    let list = |key: &str, texts: &'_ [String]| (0..texts.len()).map(|i| format!("{key}[{i}]")).collect::<Vec<_>>();
    let mut all = vec![("definition".to_string(), principle.definition.as_str())];
    all.extend(principle.negative_definition.as_deref().map(|text| ("negative_definition".to_string(), text)));
    for (key, texts) in [("reworded", &principle.reworded), ("negative_reworded", &principle.negative_reworded)] {
        all.extend(list(key, texts).into_iter().zip(texts.iter().map(String::as_str)));
    }
    all
}

fn repeated<T: Entry>(findings: &mut Vec<Finding>, what: &str, key: &str, entries: &[T]) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for entry in entries {
        let (id, place) = (entry.id(), entry.at().place(key));
        match seen.get(&id) {
            Some(first) => findings.push(Finding::new(
                place,
                format!("the {what} `{id}` is there twice, first at {first}"),
                "rename or remove one; only a built-in one can be replaced by writing it again",
            )),
            None => {
                seen.insert(id, place);
            }
        }
    }
}

/// Two definitions in the same words, whatever their case and spacing: one of them was not finished.
fn same_text(findings: &mut Vec<Finding>, seen: &mut BTreeMap<String, String>, at: &At, key: &str, text: &str) {
    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    if plain.is_empty() {
        return;
    }
    let place = at.place(key);
    match seen.get(&plain) {
        Some(first) => findings.push(Finding::new(
            place,
            format!("{} has the same words as {first}", key_name(key)),
            "say what makes the two different, or remove one",
        )),
        None => {
            seen.insert(plain, place);
        }
    }
}

fn name(findings: &mut Vec<Finding>, at: &At, name: &str) {
    line(findings, at, "name", name, MAX_NAME);
    if name.starts_with("not ") {
        findings.push(Finding::new(
            at.place("name"),
            format!("the name `{name}` would be read as the opposite of `{}`", name.trim_start_matches("not ")),
            "choose a name that does not begin with \"not \"",
        ));
    }
}

/// A text of any length.
fn filled(findings: &mut Vec<Finding>, at: &At, key: &str, text: &str) {
    if text.trim().is_empty() {
        findings.push(Finding::new(at.place(key), format!("{key} is empty"), "write the text, or remove the entry"));
    }
}

/// A text that prompts show on one line.
fn line(findings: &mut Vec<Finding>, at: &At, key: &str, text: &str, longest: usize) {
    let what = key_name(key);
    let length = text.chars().count();
    let (problem, help) = if text.trim().is_empty() {
        (format!("{what} is empty"), "write the text, or remove the entry".to_string())
    } else if text.chars().any(char::is_control) {
        (format!("{what} has a line break or another control character"), "write it on one line".to_string())
    } else if text.trim() != text {
        (format!("{what} has white space around it"), "remove it".to_string())
    } else if length > longest {
        (format!("{what} is {length} characters long"), format!("cut it to {longest}; prompts hold several"))
    } else {
        return;
    };
    findings.push(Finding::new(at.place(key), problem, help));
}

/// `reworded[1]` is called `reworded` in messages: the line says which.
fn key_name(key: &str) -> &str {
    key.split('[').next().unwrap_or(key)
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
