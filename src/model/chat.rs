//! Chat layout: from messages to the one string a model reads.
//!
//! In: the template of a model folder (`chat_template.jinja`, or `chat_template` in `tokenizer_config.json`), or a
//! plain `### User` / `### Assistant` layout where the folder has none; and messages. Out: text.
//!
//! Templates are rendered as transformers renders them: blocks trimmed, `raise_exception`, the special tokens by
//! name, the usual Python methods on strings and dictionaries. Not offered: the clock (`strftime_now`), so that a
//! prompt is the same on every day; templates ask whether it is defined.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::value::{ValueKind, from_args};
use minijinja::{Environment, Error as JinjaError, ErrorKind, State, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::config::{ModelConfig, read_object};
use super::tokenizer::{Tokenizer, token_text};
use crate::{Error, Result};

/// The layout of folders without a template.
const DEFAULT: &str = "{% for message in messages %}### {{ message.role | title }}\n{{ message.content }}\n\n\
                       {% endfor %}{% if add_generation_prompt %}### Assistant\n{{ '' }}{% endif %}";

/// The only template of each environment.
const NAME: &str = "chat_template";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of that role.
    pub fn new(role: &str, content: &str) -> Self {
        Message { role: role.to_string(), content: content.to_string() }
    }
}

/// A compiled chat template with the special tokens it may name.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token`, ... -> text.
    tokens: BTreeMap<String, String>,
    /// The file it came from, for errors.
    place: String,
}

impl ChatTemplate {
    /// The template of a model folder, or the plain layout if it has none. `tokenizer` is the folder's: it spells
    /// the bos and eos tokens that only `config.json` names.
    ///
    /// # Errors
    /// A model error that names the file, and the line for a template that does not parse.
    pub fn open(folder: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let path = folder.join("tokenizer_config.json");
        let settings = if path.exists() { read_object(&path)? } else { Default::default() };
        let mut tokens = BTreeMap::new();
        if folder.join("config.json").exists() {
            let config = ModelConfig::open(folder)?;
            let ids = [("bos_token", config.bos_token_id), ("eos_token", config.eos_token_ids.first().copied())];
            for (name, id) in ids {
                tokens.extend(id.and_then(|id| Some((name.to_string(), tokenizer.token_text(id)?))));
            }
        }
        for (name, value) in settings.iter().filter(|(name, _)| name.ends_with("_token")) {
            tokens.extend(token_text(value).map(|text| (name.clone(), text.to_string())));
        }
        let file = folder.join("chat_template.jinja");
        if file.exists() {
            let source = std::fs::read_to_string(&file)
                .map_err(|e| Error::model(file.display(), "cannot read this chat template").because(e))?;
            return ChatTemplate::new(source, tokens, file.display().to_string());
        }
        let place = format!("{} chat_template", path.display());
        match settings.get("chat_template") {
            None | Some(Json::Null) => ChatTemplate::new(DEFAULT.into(), tokens, "built-in chat template".into()),
            Some(Json::String(source)) => ChatTemplate::new(source.clone(), tokens, place),
            // Several templates by name, as some tool-using models have.
            Some(Json::Array(list)) => {
                let default = list.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"));
                match default.and_then(|entry| entry.get("template")?.as_str()) {
                    Some(source) => ChatTemplate::new(source.to_string(), tokens, place),
                    None => Err(Error::model(place, "has no template of the name \"default\"")),
                }
            }
            Some(_) => Err(Error::model(place, "is neither a string nor a list of named templates")),
        }
    }

    /// The plain `### User` / `### Assistant` layout.
    pub fn plain() -> Result<Self> {
        ChatTemplate::new(DEFAULT.into(), BTreeMap::new(), "built-in chat template".into())
    }

    fn new(source: String, tokens: BTreeMap<String, String>, place: String) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(python_method);
        environment.add_function("raise_exception", |text: String| -> Result<Value, JinjaError> {
            Err(JinjaError::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_template_owned(NAME, source).map_err(|e| at(&place, &e, "does not parse"))?;
        Ok(ChatTemplate { environment, tokens, place })
    }

    /// The conversation as the model reads it. With `add_generation_prompt`, it ends where the assistant's answer
    /// begins.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let mut context: BTreeMap<&str, Value> =
            self.tokens.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))).collect();
        context.insert("messages", Value::from_serialize(messages));
        context.insert("add_generation_prompt", Value::from(add_generation_prompt));
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        let template = self.environment.get_template(NAME).map_err(|e| at(&self.place, &e, "does not parse"))?;
        template.render(context).map_err(|e| at(&self.place, &e, "cannot lay these messages out"))
    }
}

/// A template error with its file and line.
fn at(place: &str, error: &JinjaError, problem: &str) -> Error {
    let line = error.line().map_or(String::new(), |line| format!(":{line}"));
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    Error::model(format!("{place}{line}"), format!("{problem}: {detail}"))
}

/// The methods of Python's `str` and `dict` that chat templates use.
fn python_method(_: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, JinjaError> {
    match (value.kind(), value.as_str()) {
        (_, Some(text)) => string_method(text, method, args),
        (ValueKind::Map, _) => dict_method(value, method, args),
        _ => Err(JinjaError::from(ErrorKind::UnknownMethod)),
    }
}

fn dict_method(value: &Value, method: &str, args: &[Value]) -> Result<Value, JinjaError> {
    let item = |key: &Value| value.get_item(key).ok().filter(|item| !item.is_undefined());
    match method {
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(args)?;
            Ok(item(&key).or(default).unwrap_or(Value::from(())))
        }
        "keys" => from_args::<()>(args).and_then(|()| Ok(value.try_iter()?.collect())),
        "values" => from_args::<()>(args).and_then(|()| Ok(value.try_iter()?.filter_map(|key| item(&key)).collect())),
        "items" => from_args::<()>(args).and_then(|()| {
            Ok(value.try_iter()?.filter_map(|key| Some(Value::from(vec![key.clone(), item(&key)?]))).collect())
        }),
        _ => Err(JinjaError::from(ErrorKind::UnknownMethod)),
    }
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Value, JinjaError> {
    // `strip` without characters trims white space.
    let stripped = |left: bool, right: bool| -> Result<Value, JinjaError> {
        let (chars,): (Option<String>,) = from_args(args)?;
        let unwanted = |c: char| chars.as_ref().map_or(c.is_whitespace(), |chars| chars.contains(c));
        let text = if left { text.trim_start_matches(unwanted) } else { text };
        Ok(Value::from(if right { text.trim_end_matches(unwanted) } else { text }))
    };
    match method {
        "strip" => stripped(true, true),
        "lstrip" => stripped(true, false),
        "rstrip" => stripped(false, true),
        "upper" => from_args::<()>(args).map(|()| Value::from(text.to_uppercase())),
        "lower" => from_args::<()>(args).map(|()| Value::from(text.to_lowercase())),
        "title" => from_args::<()>(args).map(|()| Value::from(title(text))),
        "capitalize" => from_args::<()>(args).map(|()| Value::from(capitalize(text))),
        "startswith" => from_args(args).map(|(part,): (String,)| Value::from(text.starts_with(&part))),
        "endswith" => from_args(args).map(|(part,): (String,)| Value::from(text.ends_with(&part))),
        "find" => from_args(args)
            .map(|(part,): (String,)| Value::from(text.find(&part).map_or(-1, |at| text[..at].chars().count() as i64))),
        "count" => from_args(args).map(|(part,): (String,)| Value::from(text.matches(&part).count())),
        "replace" => from_args(args).map(|(old, new, count): (String, String, Option<i64>)| {
            let replaced = match count.and_then(|count| usize::try_from(count).ok()) {
                Some(count) => text.replacen(&old, &new, count),
                None => text.replace(&old, &new),
            };
            Value::from(replaced)
        }),
        "split" => from_args(args).map(|(separator, most): (Option<String>, Option<i64>)| {
            let most =
                most.and_then(|most| usize::try_from(most).ok()).map_or(usize::MAX, |most| most.saturating_add(1));
            match separator {
                Some(separator) => text.splitn(most, separator.as_str()).map(Value::from).collect(),
                None => text.split_whitespace().map(Value::from).collect(),
            }
        }),
        "splitlines" => from_args::<()>(args).map(|()| text.lines().map(Value::from).collect()),
        "join" => {
            let (parts,): (Value,) = from_args(args)?;
            let parts: Vec<String> = parts.try_iter()?.map(|part| part.to_string()).collect();
            Ok(Value::from(parts.join(text)))
        }
        _ => Err(JinjaError::from(ErrorKind::UnknownMethod)),
    }
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect())
}

/// Python's `title`: the first letter of every run of letters in upper case, the rest in lower case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphabetic();
    }
    out
}
