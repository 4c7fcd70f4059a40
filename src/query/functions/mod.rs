//! The scalar functions of the method: pure, one row at a time, NULL in gives NULL out.
//!
//! In: columns of a batch. Out: one column of the same length. Each function has its own file with its plain Rust
//! form and its documentation; [`markdown`] is the page of all of them (`docs/sql-functions.md`).

mod contains_any;
mod count_tokens;
mod cut_at;
mod cut_repetition;
mod detect_language;
mod render;
mod truncate_tokens;
mod uniform;

use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListArray, StringArray};
use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, DocSection, Documentation, ScalarFunctionArgs, ScalarUDF};

pub use contains_any::contains_any;
pub use cut_at::cut_at;
pub use cut_repetition::cut_repetition;
pub use detect_language::detect_language;
pub use truncate_tokens::{Side, truncate_tokens};

use super::markers;
use super::models::Models;
use crate::principle::Templates;
use crate::{Error, Result};

/// Every scalar function.
pub(super) fn all(models: &Arc<Models>, templates: &Arc<Templates>) -> Vec<ScalarUDF> {
    vec![
        ScalarUDF::new_from_impl(uniform::Uniform::new()),
        render(templates),
        ScalarUDF::new_from_impl(count_tokens::CountTokens::new(Shared(Arc::clone(models)))),
        truncation(models),
        ScalarUDF::new_from_impl(detect_language::DetectLanguage::new()),
        ScalarUDF::new_from_impl(cut_repetition::CutRepetition::new()),
        ScalarUDF::new_from_impl(cut_at::CutAt::new()),
        ScalarUDF::new_from_impl(contains_any::ContainsAny::new()),
    ]
}

/// `render` with these templates.
pub(super) fn render(templates: &Arc<Templates>) -> ScalarUDF {
    ScalarUDF::new_from_impl(render::Render::new(Shared(Arc::clone(templates))))
}

/// `truncate_tokens` with the tokenizers of these models.
pub(super) fn truncation(models: &Arc<Models>) -> ScalarUDF {
    ScalarUDF::new_from_impl(truncate_tokens::TruncateTokens::new(Shared(Arc::clone(models))))
}

/// Whether a function is one of those that [`markdown`] lists.
pub fn is_ours(documentation: &Documentation) -> bool {
    [MODEL_SECTION.label, SCALAR_SECTION.label].contains(&documentation.doc_section.label)
}

pub(super) const MODEL_SECTION: DocSection = DocSection {
    include: true,
    label: "Model functions",
    description: Some(
        "They run as operators: rows stream through the model in batches, several batches at once, in input order, and \
         LIMIT or cancelling stops the model. Write them in SELECT, WHERE or ORDER BY; elsewhere (GROUP BY, aggregates, \
         windows, join conditions) compute them in a subquery first. The same call written twice in a SELECT runs once. \
         A CTE used twice runs twice: write it to a table. CASE does not guard a call: give it a NULL prompt where it \
         should not run. Rows come back in input order within a partition; end a statement in ORDER BY where the order \
         of its rows matters.",
    ),
};

pub(super) const SCALAR_SECTION: DocSection = DocSection {
    include: true,
    label: "Scalar functions",
    description: Some("Pure functions of their arguments. NULL in gives NULL out."),
};

pub(super) fn documentation(
    section: DocSection,
    description: &str,
    syntax: &str,
    arguments: &[(&str, &str)],
    example: &str,
) -> Documentation {
    let mut builder = Documentation::builder(section, description, syntax).with_sql_example(example);
    for (name, meaning) in arguments {
        builder = builder.with_argument(*name, *meaning);
    }
    builder.build()
}

/// The documentation of every function of ours, as Markdown.
pub fn markdown(models: &Arc<Models>, templates: &Arc<Templates>) -> Result<String> {
    let mut page = String::from(
        "# SQL functions\n\nBeside everything [DataFusion](https://datafusion.apache.org/user-guide/sql/) has. This \
         page is made from the program.\n",
    );
    for (section, functions) in [(MODEL_SECTION, markers::all()), (SCALAR_SECTION, all(models, templates))] {
        let line = |page: &mut String, text: &str| writeln!(page, "{text}").map_err(|e| Error::internal("docs", e));
        line(&mut page, &format!("\n## {}\n\n{}", section.label, section.description.unwrap_or_default()))?;
        for function in functions {
            let Some(doc) = function.documentation() else { continue };
            line(&mut page, &format!("\n### `{}`\n\n{}\n", doc.syntax_example, doc.description))?;
            for (name, meaning) in doc.arguments.iter().flatten() {
                line(&mut page, &format!("- `{name}`: {meaning}"))?;
            }
            if let Some(example) = &doc.sql_example {
                line(&mut page, &format!("\n```sql\n{example}\n```"))?;
            }
        }
    }
    Ok(page)
}

/// Something shared that a function carries: equal when it is the same object.
#[derive(Debug)]
struct Shared<T>(Arc<T>);

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Shared<T> {}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// The arguments of one call of a function over one batch, with errors that name the function and the argument.
struct Arguments {
    function: &'static str,
    values: Vec<ColumnarValue>,
    /// The names of columns, or how an expression is written.
    written: Vec<String>,
    rows: usize,
}

impl Arguments {
    /// Checks the number of arguments; `names` are those of the documentation.
    fn new<const N: usize>(function: &'static str, names: [&str; N], args: ScalarFunctionArgs) -> Result<Self> {
        if args.args.len() != N {
            let problem = format!("takes {N} arguments ({}), not {}", names.join(", "), args.args.len());
            return Err(Error::query(function, problem));
        }
        let written = args.arg_fields.iter().map(|field| field.name().clone()).collect();
        Ok(Self { function, values: args.args, written, rows: args.number_rows })
    }

    fn array(&self, index: usize) -> Result<ArrayRef> {
        match self.values.get(index) {
            Some(value) => Ok(value.to_array(self.rows)?),
            None => Err(Error::internal(self.function, "an argument is missing")),
        }
    }

    fn wrong(&self, name: &str, expected: &str, got: &DataType) -> Error {
        Error::query(self.function, format!("{name} must be {expected}, not {got}"))
    }

    /// The argument as an error names it: what it is for, and how it was written.
    fn named(&self, index: usize, name: &str) -> String {
        match (self.values.get(index), self.written.get(index)) {
            // A constant has no name.
            (Some(ColumnarValue::Array(_)), Some(written)) => format!("{name} ({written})"),
            _ => name.to_string(),
        }
    }

    /// A text column.
    fn texts(&self, index: usize, name: &str) -> Result<StringArray> {
        let array = self.array(index)?;
        if !array.data_type().is_string() && !array.data_type().is_null() {
            return Err(self.wrong(&self.named(index, name), "text", array.data_type()));
        }
        let array = arrow::compute::cast(&array, &DataType::Utf8)?;
        Ok(array.as_string::<i32>().clone())
    }

    /// A column of lists of texts.
    fn lists(&self, index: usize, name: &str) -> Result<ListArray> {
        let array = self.array(index)?;
        let is_texts = match array.data_type() {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                item.data_type().is_string() || item.data_type().is_null()
            }
            other => other.is_null(),
        };
        if !is_texts {
            return Err(self.wrong(&self.named(index, name), "a list of texts", array.data_type()));
        }
        let to = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        let array = arrow::compute::cast(&array, &to)?;
        Ok(array.as_list::<i32>().clone())
    }

    /// A constant text: the same for every row, not a column.
    fn constant(&self, index: usize, name: &str) -> Result<String> {
        let value = match self.values.get(index) {
            Some(ColumnarValue::Scalar(value)) => value.clone(),
            // A batch of one value may come as an array; so may a constant that went through a projection.
            Some(ColumnarValue::Array(array)) => same(array)?
                .ok_or_else(|| Error::query(self.function, format!("{name} must be the same text in every row")))?,
            None => return Err(Error::internal(self.function, "an argument is missing")),
        };
        match value {
            ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => {
                Ok(text)
            }
            other => Err(self.wrong(name, "a text", &other.data_type())),
        }
    }
}

/// The one value that all rows hold, if they do.
fn same(array: &ArrayRef) -> Result<Option<ScalarValue>> {
    if array.is_empty() {
        return Ok(None);
    }
    let first = ScalarValue::try_from_array(array, 0)?;
    for row in 1..array.len() {
        if ScalarValue::try_from_array(array, row)? != first {
            return Ok(None);
        }
    }
    Ok(Some(first))
}

/// The texts of one list; NULL items are left out.
fn items(list: &ArrayRef) -> Vec<&str> {
    list.as_string_opt::<i32>().map(|texts| texts.iter().flatten().collect()).unwrap_or_default()
}
