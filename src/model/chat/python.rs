//! What chat templates take from Python and from transformers, for a Jinja that is not written in Python.
//!
//! In: an environment. Out: the same with trimmed blocks, values written as Python's `str` writes them, `tojson` as
//! `json.dumps` does, `raise_exception`, and the methods of `str`, `dict` and `list`: those of `minijinja-contrib`, except where they count bytes, not characters,
//! or differ for the empty string.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::Value as Json;

/// Levels of a value that `tojson` writes, as many as Python has for it.
const MAX_DEPTH: usize = 900;

/// Makes the environment that of transformers.
pub(super) fn prepare(environment: &mut Environment<'_>) {
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, state, value| match plain(value) {
        true => escape_formatter(out, state, value),
        false => Ok(out.write_str(&text_of(value)?)?),
    });
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", |value: Value| text_of(&value));
    environment.add_filter("trim", |value: Value, chars: Option<String>| -> Result<String, Error> {
        let text = text_of(&value)?;
        Ok(match chars {
            Some(chars) => text.trim_matches(|c| chars.contains(c)).to_string(),
            None => text.trim().to_string(),
        })
    });
    environment.add_function("raise_exception", |text: String| -> Result<Value, Error> { Err(invalid(text)) });
}

/// Whether Jinja in Rust writes the value as Python does.
fn plain(value: &Value) -> bool {
    !value.is_none() && !matches!(value.kind(), ValueKind::Bool | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
}

/// Python's `str(value)`.
fn text_of(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    match value.as_str() {
        Some(text) => out.push_str(text),
        None => repr(&mut out, value, 0)?,
    }
    Ok(out)
}

/// Python's `repr(value)`.
fn repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(invalid("is nested too deeply to be written"));
    }
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(out, &key, depth + 1)?;
                out.push_str(": ");
                repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(out, &item, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.push_str(&python_float(number)),
            Err(_) => out.push_str(&value.to_string()),
        },
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// A text as Python quotes it.
fn quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c < ' ' || c == '\u{7f}' => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.into())
}

/// `{% generation %}` marks what the assistant says, for masks of tokens. It is a scope of its own and changes no text.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out += before;
        rest = tag;
        let signed = tag.strip_prefix(['-', '+']).unwrap_or(tag);
        let inner = signed.trim_start();
        for (word, ours) in [("generation", "with"), ("endgeneration", "endwith")] {
            if let Some(end) = inner.strip_prefix(word)
                && end.trim_start().trim_start_matches(['-', '+']).starts_with("%}")
            {
                out += &tag[..tag.len() - inner.len()];
                out += ours;
                rest = end;
            }
        }
    }
    out + rest
}

/// `strftime` of C, as Python's `datetime.strftime`, in UTC.
pub(super) fn strftime(format: &str, seconds: i64) -> Result<String, Error> {
    let bad = || invalid("strftime_now cannot write this format");
    // A space, because an empty result and one that does not fit are both 0 bytes.
    let format = std::ffi::CString::new(format!("{format} ")).map_err(|_| bad())?;
    let mut text = vec![0u8; 4096];
    // SAFETY: `tm` is plain data, filled by `gmtime_r`; the buffer is as long as said, the format ends with a NUL.
    let length = unsafe {
        let mut time: libc::tm = std::mem::zeroed();
        if libc::gmtime_r(&seconds, &mut time).is_null() {
            return Err(bad());
        }
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &time)
    };
    text.truncate(length.checked_sub(1).ok_or_else(bad)?);
    String::from_utf8(text).map_err(|_| bad())
}

fn method(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, method, args) };
    let place = |at: Option<usize>| Value::from(at.map_or(-1, |at| text[..at].chars().count() as i64));
    let every = |all: fn(&str) -> bool| from_args::<()>(args).map(|()| Value::from(!text.is_empty() && all(text)));
    let has_case = |c: char| c.is_lowercase() || c.is_uppercase();
    match method {
        "find" => from_args(args).map(|(part,): (&str,)| place(text.find(part))),
        "rfind" => from_args(args).map(|(part,): (&str,)| place(text.rfind(part))),
        "count" => from_args(args).map(|(part,): (&str,)| Value::from(text.matches(part).count())),
        "title" => from_args::<()>(args).map(|()| Value::from(title(text))),
        "isdigit" | "isnumeric" => every(|text| text.chars().all(char::is_numeric)),
        "isalnum" => every(|text| text.chars().all(char::is_alphanumeric)),
        "isalpha" => every(|text| text.chars().all(char::is_alphabetic)),
        "isspace" => every(|text| text.chars().all(char::is_whitespace)),
        "islower" => from_args::<()>(args)
            .map(|()| Value::from(text.chars().any(has_case) && !text.chars().any(char::is_uppercase))),
        "isupper" => from_args::<()>(args)
            .map(|()| Value::from(text.chars().any(has_case) && !text.chars().any(char::is_lowercase))),
        "removeprefix" => from_args(args).map(|(part,): (&str,)| Value::from(text.strip_prefix(part).unwrap_or(text))),
        "removesuffix" => from_args(args).map(|(part,): (&str,)| Value::from(text.strip_suffix(part).unwrap_or(text))),
        _ => unknown_method_callback(state, value, method, args),
    }
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

/// `json.dumps` with the arguments that transformers hands through.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let json = serde_json::to_value(value).map_err(|e| invalid("cannot be written as JSON").with_source(e))?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let indent: Option<Value> = options.get("indent")?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(width) => Some(match (width.as_str(), width.as_usize()) {
            (Some(text), _) => text.to_string(),
            (None, Some(width)) if width <= 64 => " ".repeat(width),
            _ => return Err(invalid("indent of tojson is neither a text nor a small number")),
        }),
    };
    let (comma, colon) = match separators.as_deref() {
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        Some(_) => return Err(invalid("separators of tojson are not two texts")),
        None => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
    };
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let dumps = Dumps { comma, colon, indent, ascii: ascii == Some(true), sort_keys: sort_keys == Some(true) };
    let mut out = String::new();
    dumps.value(&mut out, &json, 0)?;
    Ok(out)
}

/// The arguments of `json.dumps`.
struct Dumps {
    comma: String,
    colon: String,
    indent: Option<String>,
    ascii: bool,
    sort_keys: bool,
}

impl Dumps {
    fn value(&self, out: &mut String, value: &Json, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid("is nested too deeply for JSON"));
        }
        match value {
            Json::Null => out.push_str("null"),
            Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Json::Number(number) => out.push_str(&python_number(number)),
            Json::String(text) => self.text(out, text),
            Json::Array(items) => self.items(out, "[]", items, depth, |out, item| self.value(out, item, depth + 1))?,
            Json::Object(map) => {
                let mut pairs: Vec<(&String, &Json)> = map.iter().collect();
                if self.sort_keys {
                    pairs.sort_by_key(|(key, _)| *key);
                }
                self.items(out, "{}", &pairs, depth, |out, (key, value)| {
                    self.text(out, key);
                    out.push_str(&self.colon);
                    self.value(out, value, depth + 1)
                })?
            }
        }
        Ok(())
    }

    fn items<T>(
        &self,
        out: &mut String,
        brackets: &str,
        items: &[T],
        depth: usize,
        write: impl Fn(&mut String, &T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push_str(&brackets[..1]);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.comma);
            }
            self.line(out, depth + 1);
            write(out, item)?;
        }
        if !items.is_empty() {
            self.line(out, depth);
        }
        out.push_str(&brackets[1..]);
        Ok(())
    }

    fn line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn text(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a String does not fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A number as Python's `repr` has it.
fn python_number(number: &serde_json::Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(value) => python_float(value),
        None => number.to_string(),
    }
}

/// `1e+16` and `1e-05`, where Rust has `1e16` and `1e-5`.
fn python_float(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "nan"
        } else if value > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_string();
    }
    let size = value.abs();
    if value == 0.0 || (1e-4..1e16).contains(&size) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let scientific = format!("{value:e}");
    match scientific.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => scientific,
    }
}
