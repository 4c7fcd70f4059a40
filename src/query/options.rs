//! The options of `generate`: a struct with named fields, each with one meaning.
//!
//! In: the expression `{temperature: 0.7, row: prompt_id}` (the same as `named_struct('temperature', 0.7, ...)`).
//! Out: [`Options`]. Every value but `row` is a constant: a literal, a constant expression or a bound `$parameter`.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use crate::engine::Sampling;
use crate::{Error, Result};

const PLACE: &str = "generate";

/// The seed where none is given.
pub(super) const DEFAULT_SEED: u64 = 0;

/// Every option with its meaning, in the order in which the documentation lists them.
pub(super) const OPTIONS: [(&str, &str); 7] = [
    ("temperature", "softmax temperature, 0 = always the most likely token; default 1.0"),
    ("top_p", "nucleus: sample from the smallest set of tokens that holds this probability; default 1.0"),
    ("top_k", "sample from the k most likely tokens, 0 = all; default 0"),
    ("max_tokens", "at most this many tokens; default 256"),
    ("stop", "a text or a list of texts that end the response and are cut off; default none"),
    ("seed", "seed of the random draws; default 0"),
    ("row", "expression that names the row: seed and row decide its draws; default the prompt itself"),
];

/// What `generate` does when it is not told.
pub(super) fn default_sampling() -> Sampling {
    Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, max_tokens: 256, stop: Vec::new() }
}

/// The options of one call.
pub(super) struct Options {
    pub(super) sampling: Sampling,
    pub(super) seed: u64,
    /// The row key, any type; `None` = the prompt.
    pub(super) row: Option<Expr>,
}

/// Reads the options; an unknown name is an error that lists the known ones.
pub(super) fn parse(given: &Expr, schema: &DFSchemaRef) -> Result<Options> {
    let Expr::ScalarFunction(function) = given else { return Err(not_a_struct()) };
    if function.func.name() != "named_struct" {
        return Err(not_a_struct());
    }
    let mut options = Options { sampling: default_sampling(), seed: DEFAULT_SEED, row: None };
    let mut seen: Vec<String> = Vec::new();
    for pair in function.args.chunks(2) {
        let [name, value] = pair else { return Err(not_a_struct()) };
        let name = match fold(name, schema, PLACE, "an option name")? {
            ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)) => name,
            other => return Err(wrong(PLACE, "an option name", "a text", &other)),
        };
        if seen.contains(&name) {
            return Err(Error::query(PLACE, format!("option {name} is given twice")));
        }
        set(&mut options, &name, value, schema)?;
        seen.push(name);
    }
    Ok(options)
}

fn set(options: &mut Options, name: &str, value: &Expr, schema: &DFSchemaRef) -> Result<()> {
    if name == "row" {
        options.row = Some(value.clone());
        return Ok(());
    }
    if !OPTIONS.iter().any(|(known, _)| *known == name) {
        let known: Vec<&str> = OPTIONS.iter().map(|(known, _)| *known).collect();
        return Err(Error::query(PLACE, format!("unknown option {name}; known are {}", known.join(", "))));
    }
    let what = format!("option {name}");
    let value = fold(value, schema, PLACE, &what)?;
    let sampling = &mut options.sampling;
    match name {
        "temperature" => sampling.temperature = real(&what, &value, "a number from 0", |x| x >= 0.0)?,
        "top_p" => sampling.top_p = real(&what, &value, "a number above 0, at most 1", |x| x > 0.0 && x <= 1.0)?,
        "top_k" => sampling.top_k = integer(&what, &value, 0)? as usize,
        "max_tokens" => sampling.max_tokens = integer(&what, &value, 1)? as usize,
        "stop" => sampling.stop = stops(&what, &value)?,
        _ => options.seed = integer(&what, &value, 0)?,
    }
    Ok(())
}

fn stops(what: &str, value: &ScalarValue) -> Result<Vec<String>> {
    let stops = match value {
        ScalarValue::Utf8(Some(one)) | ScalarValue::Utf8View(Some(one)) | ScalarValue::LargeUtf8(Some(one)) => {
            vec![one.clone()]
        }
        list => texts(PLACE, what, list)?,
    };
    if stops.iter().any(String::is_empty) {
        return Err(Error::query(PLACE, format!("{what} must not hold an empty text")));
    }
    Ok(stops)
}

fn not_a_struct() -> Error {
    Error::query(PLACE, "the options are a struct with named fields, e.g. {temperature: 0.7, row: prompt_id}")
}

fn real(what: &str, value: &ScalarValue, expected: &str, valid: impl Fn(f64) -> bool) -> Result<f64> {
    if value.data_type().is_numeric()
        && let Ok(ScalarValue::Float64(Some(number))) = value.cast_to(&DataType::Float64)
        && number.is_finite()
        && valid(number)
    {
        return Ok(number);
    }
    Err(wrong(PLACE, what, expected, value))
}

fn integer(what: &str, value: &ScalarValue, least: u64) -> Result<u64> {
    if value.data_type().is_integer()
        && let Ok(ScalarValue::UInt64(Some(number))) = value.cast_to(&DataType::UInt64)
        && number >= least
    {
        return Ok(number);
    }
    Err(wrong(PLACE, what, &format!("a whole number from {least}"), value))
}

/// A constant list of texts.
pub(super) fn texts(place: &str, what: &str, value: &ScalarValue) -> Result<Vec<String>> {
    let bad = || wrong(place, what, "a list of texts, e.g. ['a', 'b']", value);
    let ScalarValue::List(list) = value else { return Err(bad()) };
    if list.is_empty() || !list.is_valid(0) {
        return Err(bad());
    }
    let items = list.value(0);
    if items.is_empty() {
        return Ok(Vec::new());
    }
    if !items.data_type().is_string() {
        return Err(bad());
    }
    let items = arrow::compute::cast(&items, &DataType::Utf8)?;
    items.as_string::<i32>().iter().map(|item| item.map(str::to_string).ok_or_else(bad)).collect()
}

pub(super) fn wrong(place: &str, what: &str, expected: &str, got: &ScalarValue) -> Error {
    Error::query(place, format!("{what} must be {expected}, not {got}"))
}

/// The value of a constant expression; a column or an unbound parameter is an error that names `what`.
pub(super) fn fold(expression: &Expr, schema: &DFSchemaRef, place: &str, what: &str) -> Result<ScalarValue> {
    if let Expr::Literal(value, _) = expression {
        return Ok(value.clone());
    }
    if let Some(name) = placeholder(expression)? {
        return Err(Error::query(place, format!("{what}: parameter {name} has no value")));
    }
    let context = SimplifyContext::builder().with_schema(schema.clone()).build();
    match ExprSimplifier::new(context).simplify(expression.clone())? {
        Expr::Literal(value, _) => Ok(value),
        other => Err(Error::query(place, format!("{what} must be a literal or a $parameter, not {other}"))),
    }
}

fn placeholder(expression: &Expr) -> Result<Option<String>> {
    let mut found = None;
    expression.apply(|part| {
        if let Expr::Placeholder(placeholder) = part {
            found = Some(placeholder.id.clone());
            return Ok(datafusion::common::tree_node::TreeNodeRecursion::Stop);
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
