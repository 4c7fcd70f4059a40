//! Prompt templates: a name and fields in, the text of a prompt out.
//!
//! The templates are Jinja (minijinja), built into the program from `templates/`; a folder of the user's overrides
//! them by file name and may add more. A field that a template names and nobody gives is an error, never an empty
//! string. A tag that stands alone on its line leaves no trace of that line, and one line break at the end of a file
//! is not part of the prompt.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde::Serialize;
use serde_json::{Map, json};

use super::check::Finding;
use super::library::Library;
use crate::{Error, Result};

const BUILT_IN: &[(&str, &str)] = &[
    ("judge", include_str!("../../templates/judge.jinja")),
    ("reward", include_str!("../../templates/reward.jinja")),
    ("reward_rubric", include_str!("../../templates/reward_rubric.jinja")),
    ("self_align", include_str!("../../templates/self_align.jinja")),
    ("chat", include_str!("../../templates/chat.jinja")),
    ("pocket_judge", include_str!("../../templates/pocket_judge.jinja")),
    ("pocket_reward", include_str!("../../templates/pocket_reward.jinja")),
    ("pocket_self_align", include_str!("../../templates/pocket_self_align.jinja")),
    ("pocket_chat", include_str!("../../templates/pocket_chat.jinja")),
];

/// What a field holds, and so what the check tries a template with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A text that the prompt must show.
    Text,
    /// A text that the prompt may leave out.
    Optional,
    /// A whole number.
    Number,
    /// A list of `{name, negated, text}`.
    Principles,
    /// The library's rules, a list of `{name, definition}`; given to every template.
    Rules,
    /// The library's exemplars, a list of `{user, rules: [{number, name}], thoughts, assistant}`; given to every template.
    Exemplars,
}

const JUDGE: &[(&str, Shape)] = &[
    ("instruction", Shape::Text),
    ("output_a", Shape::Text),
    ("output_b", Shape::Text),
    ("principle", Shape::Optional),
    ("definition", Shape::Text),
];
const REWARD: &[(&str, Shape)] =
    &[("response", Shape::Text), ("instruction", Shape::Text), ("principles", Shape::Principles)];
const RUBRIC: &[(&str, Shape)] = &[("response", Shape::Text), ("instruction", Shape::Text)];
const SELF_ALIGN: &[(&str, Shape)] =
    &[("instruction", Shape::Text), ("rules", Shape::Rules), ("exemplars", Shape::Exemplars)];
const POCKET_SELF_ALIGN: &[(&str, Shape)] =
    &[("instruction", Shape::Text), ("rules", Shape::Rules), ("exemplars", Shape::Exemplars), ("pick", Shape::Number)];
const CHAT: &[(&str, Shape)] = &[("instruction", Shape::Text)];

/// The fields of the templates that the pipeline renders. A user's further templates may have any fields.
fn spec(name: &str) -> Option<&'static [(&'static str, Shape)]> {
    Some(match name {
        "judge" | "pocket_judge" => JUDGE,
        "reward" | "pocket_reward" => REWARD,
        "reward_rubric" => RUBRIC,
        "self_align" => SELF_ALIGN,
        "pocket_self_align" => POCKET_SELF_ALIGN,
        "chat" | "pocket_chat" => CHAT,
        _ => return None,
    })
}

#[derive(Debug)]
struct Source {
    file: String,
    text: String,
}

/// The templates of a run, compiled.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    sources: BTreeMap<String, Source>,
}

impl Templates {
    /// Compiles the built-in templates and those of `folder` (`judge.jinja` overrides `judge`). All of them see the
    /// library's `rules` and `exemplars`.
    ///
    /// # Errors
    /// A folder or file that cannot be read, or a template that is not Jinja, with its line.
    pub fn load(folder: Option<&Path>, library: &Library) -> Result<Self> {
        let mut sources = BTreeMap::new();
        for (name, text) in BUILT_IN {
            let file = format!("built-in {name}.jinja");
            sources.insert(name.to_string(), Source { file, text: text.to_string() });
        }
        if let Some(folder) = folder {
            sources.extend(read_folder(folder)?);
        }

        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        // Errors then know which expression failed.
        environment.set_debug(true);
        environment.add_global("rules", Value::from_serialize(rules(library)));
        environment.add_global("exemplars", Value::from_serialize(exemplars(library)));
        for (name, source) in &sources {
            environment.add_template_owned(name.clone(), source.text.clone()).map_err(|error| {
                let place = format!("{}:{}", source.file, error.line().unwrap_or(1));
                Error::config(place, describe(&error))
            })?;
        }
        Ok(Templates { environment, sources })
    }

    /// The names of the templates, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// The text of a template, for fingerprints.
    pub fn source(&self, name: &str) -> Option<&str> {
        self.sources.get(name).map(|source| source.text.as_str())
    }

    /// The fields that a template of the pipeline is given; `None` for a template of the user's own.
    pub fn fields(name: &str) -> Option<Vec<&'static str>> {
        spec(name).map(|fields| fields.iter().map(|(field, _)| *field).collect())
    }

    /// The prompt that a template makes of these fields.
    ///
    /// # Errors
    /// No template of that name, or one that names a field which is not there; with file and line.
    pub fn render(&self, name: &str, fields: impl Serialize) -> Result<String> {
        if !self.sources.contains_key(name) {
            let known = self.names().collect::<Vec<_>>().join(", ");
            return Err(Error::config("templates", format!("there is no template `{name}`; there are: {known}")));
        }
        let rendered = self.environment.get_template(name).and_then(|template| template.render(fields));
        rendered.map_err(|error| {
            let error = innermost(&error);
            let given =
                Self::fields(name).map_or(String::new(), |fields| format!("; its fields are: {}", fields.join(", ")));
            Error::config(self.place(name, error), format!("{}{given}", describe(error)))
        })
    }

    /// What is wrong with the templates of the pipeline: fields that nobody gives, and fields that do not reach the
    /// prompt. Each one is rendered once on marked text.
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, source) in &self.sources {
            if let Some(fields) = spec(name) {
                self.check_one(name, source, fields, &mut findings);
            }
        }
        findings
    }

    fn check_one(&self, name: &str, source: &Source, fields: &[(&str, Shape)], findings: &mut Vec<Finding>) {
        let given: Vec<&str> = fields.iter().map(|(field, _)| *field).collect();
        let known = format!("the fields of `{name}` are: {}", given.join(", "));
        let Ok(template) = self.environment.get_template(name) else { return };
        let globals: BTreeSet<&str> = self.environment.globals().map(|(global, _)| global).collect();
        let mut unknown: Vec<(usize, String)> = template
            .undeclared_variables(false)
            .into_iter()
            .filter(|variable| !given.contains(&variable.as_str()) && !globals.contains(variable.as_str()))
            .map(|variable| (line_of_word(&source.text, &variable), variable))
            .collect();
        unknown.sort();
        if !unknown.is_empty() {
            findings.extend(unknown.into_iter().map(|(line, variable)| {
                Finding::new(
                    format!("{}:{line}", source.file),
                    format!("there is no field `{variable}`"),
                    known.clone(),
                )
            }));
            return;
        }

        let sample: Map<String, serde_json::Value> =
            fields.iter().map(|(field, shape)| (field.to_string(), sample(field, *shape))).collect();
        match template.render(&sample) {
            Err(error) => {
                let error = innermost(&error);
                findings.push(Finding::new(self.place(name, error), describe(error), known));
            }
            Ok(text) => {
                for (field, shape) in fields {
                    let free = matches!(shape, Shape::Optional | Shape::Number);
                    if !free && !text.contains(&marker(field)) {
                        findings.push(Finding::new(
                            source.file.clone(),
                            format!("the field `{field}` does not reach the prompt"),
                            format!("show it with {{{{ {field} }}}}; {known}"),
                        ));
                    }
                }
            }
        }
    }

    /// `file:line` of an error, in the template that it happened in (an included one, for example).
    fn place(&self, name: &str, error: &minijinja::Error) -> String {
        let name = error.name().unwrap_or(name);
        let file = self.sources.get(name).map_or(name, |source| source.file.as_str());
        error.line().map_or(file.to_string(), |line| format!("{file}:{line}"))
    }
}

/// The templates in a folder by name.
fn read_folder(folder: &Path) -> Result<BTreeMap<String, Source>> {
    let unreadable = |error| Error::config(folder.display(), "cannot list the template folder").because(error);
    let mut sources = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_string);
        let (true, Some(name)) = (path.extension().is_some_and(|extension| extension == "jinja"), name) else {
            continue;
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::config(path.display(), "cannot read the template").because(error))?;
        sources.insert(name, Source { file: path.display().to_string(), text });
    }
    Ok(sources)
}

/// What `rules` holds in a template.
fn rules(library: &Library) -> serde_json::Value {
    library.rules.iter().map(|rule| json!({ "name": rule.name, "definition": rule.definition })).collect()
}

/// What `exemplars` holds in a template: rules appear with the number that the prompt gives them.
fn exemplars(library: &Library) -> serde_json::Value {
    let number = |name: &str| library.rules.iter().position(|rule| rule.name == name).map(|i| i + 1);
    library
        .exemplars
        .iter()
        .map(|exemplar| {
            let rules = exemplar.rules.iter().map(|name| json!({ "number": number(name), "name": name }));
            json!({
                "user": exemplar.user,
                "rules": rules.collect::<Vec<_>>(),
                "thoughts": exemplar.thoughts,
                "assistant": exemplar.assistant,
            })
        })
        .collect()
}

/// A text that no template holds by itself.
fn marker(field: &str) -> String {
    format!("\u{27e6}{field}\u{27e7}")
}

fn sample(field: &str, shape: Shape) -> serde_json::Value {
    let text = marker(field);
    match shape {
        Shape::Text | Shape::Optional => json!(text),
        Shape::Number => json!(0),
        Shape::Principles => json!([{ "name": text, "negated": false, "text": text }]),
        Shape::Rules => json!([{ "name": text, "definition": text }]),
        Shape::Exemplars => json!([{
            "user": text, "rules": [{ "number": 1, "name": text }], "thoughts": text, "assistant": text,
        }]),
    }
}

/// The error in the included template, where an include failed because of it.
fn innermost(error: &minijinja::Error) -> &minijinja::Error {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.map_or(error, innermost)
}

/// The message of a template error with the tag it is about.
fn describe(error: &minijinja::Error) -> String {
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::UndefinedError, None) => "there is no such field".to_string(),
        (kind, None) => kind.to_string(),
        (_, Some(detail)) => detail.to_string(),
    };
    // minijinja's range of `rules[0].name` covers only its end, so the whole tag is shown.
    let tag = error.template_source().zip(error.range()).and_then(|(source, range)| {
        let before = source.get(..range.end)?;
        let start = before.rfind("{{").max(before.rfind("{%"))?;
        let after = source.get(range.end..)?;
        let end = after.find("}}").into_iter().chain(after.find("%}")).min()?;
        source.get(start..range.end + end + 2)
    });
    tag.map_or(what.clone(), |tag| format!("{what}: `{tag}`"))
}

/// The first line outside the opening comment that has a word in it.
fn line_of_word(text: &str, word: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let start = text.strip_prefix("{#").and_then(|rest| rest.find("#}")).map_or(0, |end| end + 4);
    let body = text.get(start..).unwrap_or(text);
    let found = body.match_indices(word).find(|(at, _)| {
        let before = body[..*at].chars().next_back().is_some_and(is_word);
        let after = body[at + word.len()..].chars().next().is_some_and(is_word);
        !before && !after
    });
    let byte = found.map_or(0, |(at, _)| start + at);
    1 + text.bytes().take(byte).filter(|b| *b == b'\n').count()
}
