//! How rows are written over HTTP.
//!
//! In: an `Accept` header and record batches. Out: pieces of a body, one for each batch.

use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder as Csv;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder as Json;
use arrow::json::writer::{JsonArray, LineDelimited};
use bytes::Bytes;
use http::HeaderMap;
use http::header::ACCEPT;

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Ndjson,
    Csv,
    Arrow,
}

impl Format {
    const ALL: [Format; 4] = [Format::Json, Format::Ndjson, Format::Csv, Format::Arrow];

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv",
            Format::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// The first format of the header that is known; JSON when it names none, nothing when all are unknown.
    pub(super) fn accepted(headers: &HeaderMap) -> Option<Format> {
        let text = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
        text.split(',').find_map(|part| {
            let name = part.split(';').next().unwrap_or_default().trim();
            let any = ["*/*", "application/*"].contains(&name);
            Format::ALL.into_iter().find(|format| any || format.media_type() == name)
        })
    }
}

/// Writes batches in one format.
pub(super) enum Writer {
    Json(Box<arrow::json::Writer<Vec<u8>, JsonArray>>),
    Ndjson,
    Csv { header: bool, schema: SchemaRef },
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Writer {
    pub(super) fn new(format: Format, schema: SchemaRef) -> Result<Self, ArrowError> {
        let nested = schema.fields().iter().find(|field| field.data_type().is_nested());
        if let Some(field) = nested.filter(|_| format == Format::Csv) {
            let problem =
                format!("column {} holds lists or structs, which CSV has none of; ask for JSON", field.name());
            return Err(ArrowError::InvalidArgumentError(problem));
        }
        Ok(match format {
            Format::Json => Writer::Json(Box::new(Json::new().with_explicit_nulls(true).build(Vec::new()))),
            Format::Ndjson => Writer::Ndjson,
            Format::Csv => Writer::Csv { header: true, schema },
            Format::Arrow => Writer::Arrow(Box::new(StreamWriter::try_new(Vec::new(), &schema)?)),
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<Bytes, ArrowError> {
        let bytes = match self {
            Writer::Json(writer) => {
                writer.write(batch)?;
                std::mem::take(writer.get_mut())
            }
            Writer::Ndjson => {
                let mut bytes = Vec::new();
                let mut writer = Json::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
                writer.write(batch)?;
                writer.finish()?;
                drop(writer);
                bytes
            }
            Writer::Csv { header, .. } => csv(std::mem::take(header), batch)?,
            Writer::Arrow(writer) => {
                writer.write(batch)?;
                std::mem::take(writer.get_mut())
            }
        };
        Ok(bytes.into())
    }

    /// What stands at the end.
    pub(super) fn finish(&mut self) -> Result<Bytes, ArrowError> {
        let bytes = match self {
            Writer::Json(writer) => {
                writer.finish()?;
                std::mem::take(writer.get_mut())
            }
            Writer::Ndjson => Vec::new(),
            // The names of the columns also where there are no rows.
            Writer::Csv { header: true, schema } => csv(true, &RecordBatch::new_empty(SchemaRef::clone(schema)))?,
            Writer::Csv { .. } => Vec::new(),
            Writer::Arrow(writer) => {
                writer.finish()?;
                std::mem::take(writer.get_mut())
            }
        };
        Ok(bytes.into())
    }
}

fn csv(header: bool, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    Csv::new().with_header(header).build(&mut bytes).write(batch)?;
    Ok(bytes)
}
