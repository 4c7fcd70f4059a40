//! Tickets, and what queries are cancelled by.
//!
//! In: a statement, or what a client gives back. Out: the ticket of a statement holds it whole, behind a number.

use arrow_flight::sql::{Any, CommandPreparedStatementQuery, TicketStatementQuery};
use arrow_flight::{CancelStatus, FlightInfo};
use prost::Message;
use tonic::Status;

use super::replies::Result;
use crate::serve::engine::Engine;
use crate::serve::tokens::Token;

pub(super) fn invalid(what: &str) -> Status {
    Status::invalid_argument(what)
}

/// `12:select 1`
pub(super) fn ticket(number: u64, sql: &str) -> Vec<u8> {
    format!("{number}:{sql}").into_bytes()
}

pub(super) fn split(handle: &[u8]) -> Result<(&str, &str)> {
    std::str::from_utf8(handle)
        .ok()
        .and_then(|text| text.split_once(':'))
        .ok_or_else(|| invalid("a ticket of another server"))
}

pub(super) fn tag(token: &Token, ticket: &str) -> String {
    format!("flight {} {ticket}", token.name)
}

pub(super) fn prepared_tag(token: &Token, handle: &[u8]) -> String {
    format!("flight {} prepared {}", token.name, String::from_utf8_lossy(handle))
}

/// Ends the query of a FlightInfo, if it runs.
pub(super) fn cancel(engine: &Engine, token: &Token, info: Option<FlightInfo>) -> Result<CancelStatus> {
    let endpoint = info.and_then(|info| info.endpoint.into_iter().next());
    let ticket =
        endpoint.and_then(|endpoint| endpoint.ticket).ok_or_else(|| invalid("a FlightInfo without a ticket"))?;
    let any = Any::decode(ticket.ticket).map_err(|_| invalid("a ticket of another server"))?;
    let bad = |_| invalid("a ticket of another server");
    let tag = if let Some(ticket) = any.unpack::<TicketStatementQuery>().map_err(bad)? {
        tag(token, split(&ticket.statement_handle)?.0)
    } else if let Some(query) = any.unpack::<CommandPreparedStatementQuery>().map_err(bad)? {
        prepared_tag(token, &query.prepared_statement_handle)
    } else {
        return Err(invalid("only the query of a statement can be cancelled"));
    };
    Ok(if engine.cancel_tagged(&tag) { CancelStatus::Cancelled } else { CancelStatus::NotCancellable })
}
