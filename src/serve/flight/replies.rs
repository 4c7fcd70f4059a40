//! What the calls of Flight SQL answer with.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tonic::{Request, Response, Status};

use crate::serve::answer::Answer;

pub(super) type Result<T> = std::result::Result<T, Status>;
pub(super) type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;
pub(super) type Info = Result<Response<FlightInfo>>;
pub(super) type Rows = Result<Response<Boxed<FlightData>>>;

/// What a client asks for, with the ticket to get it by.
pub(super) fn info(request: Request<FlightDescriptor>, ticket: Vec<u8>, schema: &Schema) -> Info {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|e| Status::internal(format!("a schema cannot be encoded: {e}")))?
        .with_endpoint(endpoint)
        .with_descriptor(request.into_inner());
    Ok(Response::new(info))
}

pub(super) fn answered(answer: Answer) -> Response<Boxed<FlightData>> {
    let schema = Arc::clone(&answer.schema);
    let batches = answer.map_err(|failure| FlightError::Tonic(Box::new(failure.into())));
    encoded(schema, batches)
}

pub(super) fn batch(built: std::result::Result<RecordBatch, impl std::fmt::Display>) -> Rows {
    let batch = built.map_err(|e| Status::internal(format!("the catalog cannot be listed: {e}")))?;
    Ok(encoded(batch.schema(), stream::iter([Ok(batch)])))
}

fn encoded(
    schema: SchemaRef,
    batches: impl Stream<Item = std::result::Result<RecordBatch, FlightError>> + Send + 'static,
) -> Response<Boxed<FlightData>> {
    let data = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    Response::new(data.map_err(Status::from).boxed())
}

/// No rows of these columns: runs have no keys.
pub(super) fn none(schema: SchemaRef) -> Rows {
    Ok(encoded(schema, stream::empty()))
}
