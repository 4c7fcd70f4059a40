//! One source row as named JSON values, with getters that say what is wrong with a field.
//!
//! In: an object parsed from JSON, CSV or Parquet. Out: typed fields, or the [`Refusal`] the row is dropped with.

use serde_json::{Map, Value};

use super::reason::{Reason, Refusal};

/// The fields of a row in the order of the source.
pub(crate) type Fields = Map<String, Value>;

/// A borrowed row, or an object nested in one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a>(pub(crate) &'a Fields);

/// What a value is, for messages.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn wrong_type(name: &str, value: &Value, expected: &str) -> Refusal {
    Refusal::new(Reason::WrongType, format!("`{name}` is {}, not {expected}", kind_of(value)))
}

fn missing(name: &str) -> Refusal {
    Refusal::new(Reason::MissingField, format!("`{name}` is missing or null"))
}

/// The value as an object, for items of lists.
pub(crate) fn object<'a>(name: &str, value: &'a Value) -> Result<Row<'a>, Refusal> {
    value.as_object().map(Row).ok_or_else(|| wrong_type(name, value, "an object"))
}

impl<'a> Row<'a> {
    /// The value, unless it is missing or null.
    pub(crate) fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there and text.
    pub(crate) fn is_text(self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::String(_)))
    }

    /// Whether the field is there and a list.
    pub(crate) fn is_list(self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::Array(_)))
    }

    /// A text field.
    pub(crate) fn text(self, name: &str) -> Result<&'a str, Refusal> {
        self.optional_text(name)?.ok_or_else(|| missing(name))
    }

    /// A text field that may be missing or null.
    pub(crate) fn optional_text(self, name: &str) -> Result<Option<&'a str>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(name, other, "text")),
        }
    }

    /// A list field.
    pub(crate) fn list(self, name: &str) -> Result<&'a [Value], Refusal> {
        match self.get(name) {
            None => Err(missing(name)),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(wrong_type(name, other, "a list")),
        }
    }

    /// A nested object.
    pub(crate) fn object(self, name: &str) -> Result<Row<'a>, Refusal> {
        object(name, self.get(name).ok_or_else(|| missing(name))?)
    }

    /// A number, or text that is one (CSV has only text).
    pub(crate) fn number(self, name: &str) -> Result<f64, Refusal> {
        let value = self.get(name).ok_or_else(|| missing(name))?;
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| wrong_type(name, value, "a number"))
    }

    /// An identifier: text or an integer. Anything else, and empty text, is no identifier.
    pub(crate) fn id(self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => None,
        }
    }
}
