//! Typed access to the fields of a JSON file, with errors that name file and field.
//!
//! In: one object of a `config.json`. Out: checked values, or a model error such as
//! `folder/config.json: rope_scaling.factor: missing; ...`.

use serde_json::{Map, Value};
use tch::Kind;

use crate::{Error, Result};

/// One object of a file.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// The file.
    place: &'a str,
    /// What stands before the names in errors: empty, or `rope_scaling.`.
    within: String,
}

impl<'a> Fields<'a> {
    /// The fields of a whole file; `place` names it in errors.
    pub(super) fn new(map: &'a Map<String, Value>, place: &'a str) -> Self {
        Fields { map, place, within: String::new() }
    }

    /// An error about a field.
    pub(super) fn wrong(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        Error::model(self.place, format!("{}{name}: {problem}", self.within))
    }

    /// The field, with `null` as if it were missing.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether the file has the field, be it `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// The fields of an object within this one.
    pub(super) fn object(&self, name: &str) -> Result<Option<Fields<'a>>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Fields { map, place: self.place, within: format!("{}{name}.", self.within) }))
            }
            Some(value) => Err(self.wrong(name, format!("{value} is not an object"))),
        }
    }

    /// A positive whole number.
    pub(super) fn maybe_size(&self, name: &str) -> Result<Option<usize>> {
        // Sizes above 2^31 are no model; the bound keeps every product of two within i64.
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(size) if (1..=i32::MAX as u64).contains(&size) => Ok(Some(size as usize)),
                _ => Err(self.wrong(name, format!("{value} is not a positive whole number"))),
            },
        }
    }

    /// A positive whole number that must be there.
    pub(super) fn size(&self, name: &str) -> Result<usize> {
        self.maybe_size(name)?.ok_or_else(|| self.wrong(name, "missing; the model needs it"))
    }

    /// A positive whole number; `default` for a file without the field, nothing for `null`.
    pub(super) fn size_or(&self, name: &str, default: usize) -> Result<Option<usize>> {
        if self.has(name) { self.maybe_size(name) } else { Ok(Some(default)) }
    }

    /// A positive number.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number > 0.0 && number.is_finite() => Ok(Some(number)),
                _ => Err(self.wrong(name, format!("{value} is not a positive number"))),
            },
        }
    }

    /// A positive number; `default` for a file without the field, nothing for `null`.
    pub(super) fn number_or(&self, name: &str, default: f64) -> Result<Option<f64>> {
        if self.has(name) { self.number(name) } else { Ok(Some(default)) }
    }

    /// True or false.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => {
                value.as_bool().ok_or_else(|| self.wrong(name, format!("{value} is neither true nor false")))
            }
        }
    }

    /// A list with one item per layer, each read by `item`.
    pub(super) fn per_layer<T>(
        &self,
        name: &str,
        layers: usize,
        item: impl Fn(&Value) -> Option<T>,
        allowed: &str,
    ) -> Result<Option<Vec<T>>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let items = value.as_array().ok_or_else(|| self.wrong(name, format!("{value} is not a list")))?;
        if items.len() != layers {
            let problem = format!("has {} items; num_hidden_layers is {layers}", items.len());
            return Err(self.wrong(name, problem));
        }
        let read = |value| {
            item(value)
                .ok_or_else(|| self.wrong(name, format!("{value} is not supported; this version reads {allowed}")))
        };
        items.iter().map(read).collect::<Result<_>>().map(Some)
    }

    /// A list of positive numbers.
    pub(super) fn numbers(&self, name: &str, count: usize) -> Result<Vec<f64>> {
        let items = self.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let numbers: Vec<f64> = items.iter().filter_map(Value::as_f64).filter(|x| *x > 0.0 && x.is_finite()).collect();
        if numbers.len() != count || items.len() != count {
            return Err(self.wrong(name, format!("is not a list of {count} positive numbers")));
        }
        Ok(numbers)
    }

    /// A token id, a list of them, or nothing.
    pub(super) fn tokens(&self, name: &str, vocab_size: usize) -> Result<Vec<u32>> {
        let values = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let mut ids = Vec::new();
        for value in values {
            // -1 is how some LLaMA folders say "none".
            if value.as_i64() == Some(-1) {
                continue;
            }
            match value.as_u64() {
                Some(id) if id < vocab_size as u64 => ids.push(id as u32),
                _ => return Err(self.wrong(name, format!("{value} is not a token id below vocab_size = {vocab_size}"))),
            }
        }
        Ok(ids)
    }

    /// The type of the checkpoint's weights.
    pub(super) fn dtype(&self) -> Result<Kind> {
        let name = if self.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
        match self.get(name).map(Value::as_str) {
            None | Some(Some("float32")) => Ok(Kind::Float),
            Some(Some("bfloat16")) => Ok(Kind::BFloat16),
            Some(Some("float16")) => Ok(Kind::Half),
            _ => {
                let value = self.get(name).cloned().unwrap_or_default();
                Err(self.wrong(name, format!("{value} is not supported; use float32, bfloat16 or float16")))
            }
        }
    }
}
