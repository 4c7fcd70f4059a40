//! The parameters of a statement: what SQL sees as `$name`, and what the fingerprint covers.

use datafusion::common::ScalarValue;
use serde_json::{Map, Value};

use crate::query::Params;

/// Named values, in both forms.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings(Map<String, Value>);

impl Settings {
    /// With one more value: a number, a text, a flag or a list of texts.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_string(), value.into());
        self
    }

    /// For the lineage.
    pub(crate) fn json(&self) -> Map<String, Value> {
        self.0.clone()
    }

    /// For the statement.
    pub(crate) fn params(&self) -> Params {
        self.0.iter().fold(Params::new(), |params, (name, value)| match value {
            Value::Bool(flag) => params.with(name, *flag),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => params.with(name, whole),
                None => params.with(name, number.as_f64()),
            },
            Value::String(text) => params.with(name, text.as_str()),
            Value::Array(items) => {
                let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                params.with_texts(name, &texts)
            }
            Value::Null => params.with(name, ScalarValue::Float64(None)),
            // A list of structs and the like: for the fingerprint only.
            Value::Object(_) => params,
        })
    }
}
