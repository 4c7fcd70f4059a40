//! Runs a statement with typed, named parameters.
//!
//! In: SQL text with `$name` placeholders and a value for each. Out: a plan, or a DataFrame. Values are bound in the parsed plan,
//! never pasted into text, so a value cannot change the statement. A read-only session takes queries only.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{DataFrame, SQLOptions, SessionContext};

use super::session::is_read_only;
use crate::{Error, Result};

/// Values by parameter name (without the `$`).
#[derive(Debug, Clone, Default)]
pub struct Params(BTreeMap<String, ScalarValue>);

impl Params {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more: text, i64, f64, bool, or any DataFusion scalar.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<ScalarValue>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The same with a list of texts, for example stop texts or choices.
    pub fn with_texts<T: AsRef<str>>(self, name: impl Into<String>, texts: &[T]) -> Self {
        let items: Vec<ScalarValue> = texts.iter().map(|text| ScalarValue::from(text.as_ref())).collect();
        let list = ScalarValue::List(ScalarValue::new_list_nullable(&items, &DataType::Utf8));
        self.with(name, list)
    }
}

impl fmt::Display for Params {
    /// A line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name} = {value}"))
    }
}

/// Plans one statement and begins it. One that defines something (CREATE VIEW, for example) runs at once; a query runs
/// when its DataFrame is collected or streamed.
///
/// # Errors
/// As [`plan`].
pub async fn sql(context: &SessionContext, text: &str, params: &Params) -> Result<DataFrame> {
    Ok(context.execute_logical_plan(plan(context, text, params).await?).await?)
}

/// Plans one statement. A parameter without a value is an error that names it; a value that the statement does not
/// use is ignored, so that one set of parameters serves a whole pipeline.
///
/// # Errors
/// A query error for a statement that cannot be planned, or that a read-only session does not allow.
pub async fn plan(context: &SessionContext, text: &str, params: &Params) -> Result<LogicalPlan> {
    let plan = context.state().create_logical_plan(text).await?;
    if is_read_only(context) {
        let allowed = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        allowed.verify_plan(&plan).map_err(|error| {
            Error::query("read-only session", "only queries are allowed").because(error.strip_backtrace())
        })?;
    }
    let mut values: HashMap<String, ScalarValue> = HashMap::new();
    for name in plan.get_parameter_names()? {
        let bare = name.trim_start_matches('$');
        let Some(value) = params.0.get(bare) else {
            let known = params.0.keys().map(|name| format!("${name}")).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none are given".to_string() } else { format!("given are {known}") };
            return Err(Error::query("SQL", format!("parameter ${bare} has no value; {known}")));
        };
        values.insert(bare.to_string(), value.clone());
    }
    Ok(if values.is_empty() { plan } else { plan.with_param_values(values)? })
}
