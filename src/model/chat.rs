//! Chat layout: from messages to the one string a model reads.
//!
//! In: the templates of a model folder, or a plain `### User` / `### Assistant` layout where the folder has none; and
//! messages. Out: text.
//!
//! ```text
//! chat_template.jinja, additional_chat_templates/NAME.jinja   ─┐
//! tokenizer_config.json: chat_template (text, or named ones)  ─┴─> ChatTemplate ── messages, tools .. ─> text
//! tokenizer_config.json, special_tokens_map.json: bos_token .. ┘
//! ```
//! Templates are rendered as transformers renders them ([`python`]): blocks trimmed, `break` and `continue`,
//! `raise_exception`, `tojson` as Python writes JSON, the methods of Python's strings and dictionaries, the special
//! tokens by name. A template is a program of whoever made the folder: its steps and its output are bounded. The
//! clock (`strftime_now`) is there only for a caller that gives the time, so that a prompt is the same on every day;
//! templates ask whether it is defined.

mod python;

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::{Environment, Error as JinjaError, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::config::{ModelConfig, read_object};
use super::tokenizer::{Tokenizer, token_text};
use crate::{Error, Result};

/// The layout of folders without a template.
const PLAIN: &str = "{% for message in messages %}### {{ message.role | title }}\n{{ message.content }}\n\n\
                     {% endfor %}{% if add_generation_prompt %}### Assistant\n{{ '' }}{% endif %}";
/// The template that renders unless tools are given and there is [`TOOLS`].
const DEFAULT: &str = "default";
const TOOLS: &str = "tool_use";
/// Steps of a template; a conversation of a thousand turns takes some hundred thousand.
const FUEL: u64 = 5_000_000;
/// Bytes that a template may write.
const MAX_OUTPUT: usize = 64 << 20;

/// One turn of a conversation: `role`, `content` and whatever else a template reads, such as `tool_calls`. Keys keep
/// their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(Map<String, Json>);

impl Message {
    /// A message of that role (`system`, `user`, `assistant`, `tool`).
    pub fn new(role: &str, content: &str) -> Self {
        Message(Map::from_iter([("role".to_string(), role.into()), ("content".to_string(), content.into())]))
    }
}

/// The compiled chat templates of a folder with the special tokens they may name.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token`, ... -> text, and `additional_special_tokens`.
    tokens: BTreeMap<String, Value>,
    /// Template -> the file it came from, for errors.
    places: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// The templates of a model folder, or the plain layout if it has none. `tokenizer` is the folder's: it spells
    /// the bos and eos tokens that only `config.json` names.
    ///
    /// # Errors
    /// A model error that names the file, and the line for a template that does not parse.
    pub fn open(folder: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let path = folder.join("tokenizer_config.json");
        let settings = if path.exists() { read_object(&path)? } else { Map::new() };
        let tokens = special_tokens(folder, &settings, tokenizer)?;
        let mut sources = Vec::new();
        let place = format!("{} chat_template", path.display());
        match settings.get("chat_template") {
            None | Some(Json::Null) => {}
            Some(Json::String(source)) => sources.push((DEFAULT.to_string(), source.clone(), place.clone())),
            // Several templates by name, as some tool-using models have.
            Some(Json::Array(list)) => {
                for entry in list {
                    let text = |key| entry.get(key).and_then(Json::as_str).map(str::to_string);
                    match (text("name"), text("template")) {
                        (Some(name), Some(source)) => sources.push((name, source, place.clone())),
                        _ => return Err(Error::model(place, "has an entry without a name or a template")),
                    }
                }
            }
            Some(_) => return Err(Error::model(place, "is neither a string nor a list of named templates")),
        }
        let more = folder.join("additional_chat_templates");
        for (name, file) in
            jinja_files(&more)?.into_iter().chain([(DEFAULT.into(), folder.join("chat_template.jinja"))])
        {
            if file.exists() {
                let source = std::fs::read_to_string(&file)
                    .map_err(|e| Error::model(file.display(), "cannot read this chat template").because(e))?;
                // A file of its own stands above the key of the same name.
                sources.push((name, source, file.display().to_string()));
            }
        }
        if sources.is_empty() {
            return ChatTemplate::plain();
        }
        if sources.iter().all(|(name, ..)| name != DEFAULT) {
            return Err(Error::model(place, "has no template of the name \"default\""));
        }
        ChatTemplate::new(sources, tokens)
    }

    /// The plain `### User` / `### Assistant` layout.
    pub fn plain() -> Result<Self> {
        ChatTemplate::new(vec![(DEFAULT.into(), PLAIN.into(), "built-in chat template".into())], BTreeMap::new())
    }

    fn new(sources: Vec<(String, String, String)>, tokens: BTreeMap<String, Value>) -> Result<Self> {
        let mut environment = Environment::new();
        python::prepare(&mut environment);
        environment.set_fuel(Some(FUEL));
        let mut places = BTreeMap::new();
        for (name, source, place) in sources {
            environment
                .add_template_owned(name.clone(), python::without_generation_tags(&source))
                .map_err(|e| at(&place, &e, "does not parse"))?;
            places.insert(name, place);
        }
        Ok(ChatTemplate { environment, tokens, places })
    }

    /// The same templates with a clock that stands at `seconds` since 1970: `strftime_now` is then defined, in UTC.
    pub fn with_time(mut self, seconds: i64) -> Self {
        self.environment.add_function("strftime_now", move |format: String| python::strftime(&format, seconds));
        self
    }

    /// The conversation as the model reads it. With `add_generation_prompt`, it ends where the assistant's answer
    /// begins. `variables` are what else the template may ask for: `tools`, `documents`, `enable_thinking`, ...
    ///
    /// # Errors
    /// A model error with the template's file and line: what `raise_exception` says, a method that there is not, a
    /// template that does not end.
    pub fn render(
        &self,
        messages: &[Message],
        variables: &Map<String, Json>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let mut context = self.tokens.clone();
        context.insert("tools".into(), Value::from(()));
        context.insert("documents".into(), Value::from(()));
        context.extend(variables.iter().map(|(name, value)| (name.clone(), Value::from_serialize(value))));
        context.insert("messages".into(), Value::from_serialize(messages));
        context.insert("add_generation_prompt".into(), Value::from(add_generation_prompt));
        let tools = variables.get("tools").is_some_and(|tools| !tools.is_null()) && self.places.contains_key(TOOLS);
        let name = if tools { TOOLS } else { DEFAULT };
        let place = self.places.get(name).map_or("", String::as_str);
        let failed = |e: JinjaError| match e.kind() {
            ErrorKind::OutOfFuel => {
                at(place, &e, &format!("does not end within {FUEL} steps; does it loop without an end"))
            }
            ErrorKind::WriteFailure => at(place, &e, &format!("writes more than {} MiB", MAX_OUTPUT >> 20)),
            _ => at(place, &e, "cannot lay these messages out"),
        };
        let template = self.environment.get_template(name).map_err(failed)?;
        let mut out = Bounded(Vec::new());
        // A template can nest values as deep as it has steps, and they are dropped recursively: a stack for that.
        let rendered = std::thread::scope(|scope| {
            let render = || template.render_captured_to(context, &mut out).map(drop).map_err(failed);
            let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK);
            match thread.spawn_scoped(scope, render) {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(Error::model(place, "panicked while it rendered"))),
                Err(e) => Err(Error::internal(place, "cannot start a thread for this chat template").because(e)),
            }
        });
        rendered?;
        String::from_utf8(out.0).map_err(|e| Error::internal(place, e))
    }
}

/// Bytes of stack to render on, of which only what is used becomes memory.
const STACK: usize = 256 << 20;

/// A buffer that refuses to grow without bounds.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(std::io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The special tokens that templates name: those of `config.json`, over them `special_tokens_map.json` of older
/// folders, over them `tokenizer_config.json`.
fn special_tokens(
    folder: &Path,
    settings: &Map<String, Json>,
    tokenizer: &Tokenizer,
) -> Result<BTreeMap<String, Value>> {
    let mut tokens = BTreeMap::new();
    if folder.join("config.json").exists() {
        let config = ModelConfig::open(folder)?;
        let ids = [("bos_token", config.bos_token_id), ("eos_token", config.eos_token_ids.first().copied())];
        for (name, id) in ids {
            tokens.extend(id.and_then(|id| Some((name.to_string(), Value::from(tokenizer.token_text(id)?)))));
        }
    }
    let map = folder.join("special_tokens_map.json");
    let map = if map.exists() { read_object(&map)? } else { Map::new() };
    for (name, value) in map.iter().chain(settings) {
        if name == "additional_special_tokens" {
            let texts = value.as_array().into_iter().flatten().filter_map(token_text).map(str::to_string);
            tokens.insert(name.clone(), texts.collect());
        } else if name.ends_with("_token") {
            tokens.extend(token_text(value).map(|text| (name.clone(), Value::from(text))));
        }
    }
    Ok(tokens)
}

/// The templates of a folder of such files, by name, sorted.
fn jinja_files(folder: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let bad = |e: std::io::Error| Error::model(folder.display(), "cannot list these chat templates").because(e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(bad)? {
        let path = entry.map_err(bad)?.path();
        if path.extension().is_some_and(|extension| extension == "jinja")
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
        {
            files.push((name.to_string(), path));
        }
    }
    files.sort();
    Ok(files)
}

/// A template error with its file and line.
fn at(place: &str, error: &JinjaError, problem: &str) -> Error {
    let line = error.line().map_or(String::new(), |line| format!(":{line}"));
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    Error::model(format!("{place}{line}"), format!("{problem}: {detail}"))
}
