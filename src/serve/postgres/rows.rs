//! Rows as Postgres sends them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch};
use futures::{StreamExt, stream};
use pgwire::api::ClientInfo;
use pgwire::api::portal::Format;
use pgwire::api::results::{QueryResponse, Response};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::data::DataRow;
use pgwire::types::format::FormatOptions;

use crate::serve::answer::Answer;

/// The rows of an answer whose plan has these columns, as they are made.
pub(super) fn response<C: ClientInfo>(
    client: &C,
    schema: &SchemaRef,
    format: &Format,
    answer: Answer,
) -> PgWireResult<Response> {
    let options = Arc::new(FormatOptions::from_client_metadata(client.metadata()));
    let fields = Arc::new(arrow_schema_to_pg_fields(schema, format, Some(options))?);
    let encoded = Arc::clone(&fields);
    let rows = answer.flat_map(move |batch| {
        let rows: Box<dyn Iterator<Item = PgWireResult<DataRow>> + Send + Sync> = match batch {
            Ok(batch) => encode_recordbatch(Arc::clone(&encoded), batch),
            Err(failure) => Box::new(std::iter::once(Err(PgWireError::from(failure)))),
        };
        stream::iter(rows)
    });
    Ok(Response::Query(QueryResponse::new(fields, rows)))
}
