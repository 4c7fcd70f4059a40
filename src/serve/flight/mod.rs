//! Flight SQL, for ADBC and what else speaks it.
//!
//! In: statements and questions about the catalog, over gRPC. Out: Arrow batches as they are made. What Flight SQL has
//! beyond reading (updates, ingestion, Substrait plans, transactions, savepoints) is refused by name.
//!
//! A statement's ticket holds the statement, so that the server remembers nothing between the two calls that a client
//! makes for it; the query runs when the ticket is redeemed.

mod metadata;
mod prepared;
mod replies;
mod service;
mod tickets;

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tonic::service::Routes;
use tonic::{Code, Status};

use self::service::Service;
use super::failure::{Failure, Why};
use super::gate::Gate;
use crate::Result;

pub(super) const PROTOCOL: &str = "flight";

/// The one call without a token: it is there to show one.
const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// Most bytes of a message from a client.
const MESSAGE: usize = 4 << 20;

/// The service behind the gate.
pub(super) fn router(gate: Gate) -> Result<Router> {
    let service = Service::new(gate.clone())?;
    let service = FlightServiceServer::new(service).max_decoding_message_size(MESSAGE);
    Ok(Routes::new(service).into_axum_router().layer(middleware::from_fn_with_state(gate, admit)))
}

async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    if request.uri().path() == HANDSHAKE {
        return next.run(request).await;
    }
    match gate.admit(request.headers(), PROTOCOL) {
        Some(token) => {
            request.extensions_mut().insert(Arc::clone(&token));
            next.run(request).await
        }
        None => Status::from(Failure::unauthenticated()).into_http::<axum::body::Body>().into_response(),
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let code = match failure.why {
            Why::Unauthenticated => Code::Unauthenticated,
            Why::Refused => Code::PermissionDenied,
            Why::Invalid => Code::InvalidArgument,
            Why::Time => Code::DeadlineExceeded,
            Why::Rows | Why::Memory => Code::ResourceExhausted,
            Why::Cancelled => Code::Cancelled,
            Why::Unavailable => Code::Unavailable,
            Why::Internal => Code::Internal,
        };
        Status::new(code, failure.text)
    }
}
