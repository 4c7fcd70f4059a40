//! `render(template, values)`: a prompt from a template.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, RecordBatch, StringArray, StringBuilder, StructArray};
use arrow::datatypes::DataType;
use arrow::json::writer::{JsonArray, WriterBuilder};
use datafusion::common::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use serde_json::Value;

use super::{Arguments, SCALAR_SECTION, Shared, documentation};
use crate::principle::Templates;
use crate::{Error, Result};

static DOC: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        SCALAR_SECTION,
        "Fills a prompt template with values. A value that is NULL is `none` in the template; a field that the template \
         needs and the struct lacks is an error.",
        "render(template, values)",
        &[
            ("template", "name of a template, built in or of the run's template folder; NULL gives NULL"),
            ("values", "a struct; its field names are the names in the template, its lists and structs stay such"),
        ],
        "SELECT render('chat', {instruction: instruction}) AS prompt FROM prompts",
    )
});

/// Rows turned into JSON at a time: few enough that long prompts do not pile up beside their columns.
const ROWS: usize = 256;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Render {
    templates: Shared<Templates>,
    signature: Signature,
}

impl Render {
    pub(super) fn new(templates: Shared<Templates>) -> Self {
        Self { templates, signature: Signature::any(2, Volatility::Immutable) }
    }

    fn column(&self, templates: &StringArray, values: &StructArray) -> Result<StringArray> {
        let mut texts = StringBuilder::new();
        for start in (0..values.len()).step_by(ROWS) {
            let part = values.slice(start, ROWS.min(values.len() - start));
            for (i, value) in rows(&part)?.into_iter().enumerate() {
                if part.is_null(i) || templates.is_null(start + i) {
                    texts.append_null();
                } else {
                    texts.append_value(self.templates.render(templates.value(start + i), &value)?);
                }
            }
        }
        Ok(texts.finish())
    }
}

/// One JSON object per row.
fn rows(values: &StructArray) -> Result<Vec<Value>> {
    // The rows' own nulls are looked at by the caller; a batch has none.
    let (fields, columns, _) = values.clone().into_parts();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let batch = RecordBatch::try_new_with_options(
        schema,
        columns,
        &arrow::array::RecordBatchOptions::new().with_row_count(Some(values.len())),
    )?;
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    writer.write(&batch)?;
    writer.finish()?;
    let bytes = writer.into_inner();
    serde_json::from_slice(&bytes).map_err(|error| Error::internal("render", "values became bad JSON").because(error))
}

impl ScalarUDFImpl for Render {
    fn name(&self) -> &str {
        "render"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOC)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let args = Arguments::new("render", ["template", "values"], args)?;
        let templates = args.texts(0, "the template")?;
        let values = args.array(1)?;
        let Some(values) = values.as_struct_opt() else {
            return Err(args.wrong("values", "a struct, e.g. {instruction: instruction}", values.data_type()).into());
        };
        Ok(ColumnarValue::Array(Arc::new(self.column(&templates, values)?)))
    }
}
