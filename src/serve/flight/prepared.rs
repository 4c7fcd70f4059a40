//! Prepared statements of Flight SQL.
//!
//! In: a statement, then values for its parameters. Out: a handle. The statement is kept as text and planned again
//! when it runs, so that it sees the run as it is then. Only the token that made a handle can use it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::{IpcMessage, SchemaAsIpc};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use tonic::Status;

use crate::serve::tokens::Token;

/// Statements that are remembered; the oldest go first. Many clients never close theirs.
const KEPT: usize = 10_000;

#[derive(Clone)]
pub(super) struct Statement {
    token: String,
    pub(super) sql: String,
    pub(super) values: Option<Vec<ScalarValue>>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Statements(Mutex<(u64, BTreeMap<u64, Statement>)>);

impl Statements {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Statement>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle for a statement.
    pub(super) fn add(&self, token: &Token, sql: String) -> Vec<u8> {
        let mut all = self.lock();
        all.0 += 1;
        let id = all.0;
        all.1.insert(id, Statement { token: token.name.clone(), sql, values: None });
        if all.1.len() > KEPT {
            all.1.pop_first();
        }
        id.to_string().into_bytes()
    }

    pub(super) fn get(&self, token: &Token, handle: &[u8]) -> Result<Statement, Status> {
        let id = number(handle)?;
        self.lock().1.get(&id).filter(|statement| statement.token == token.name).cloned().ok_or_else(unknown)
    }

    pub(super) fn bind(&self, token: &Token, handle: &[u8], values: Vec<ScalarValue>) -> Result<(), Status> {
        let id = number(handle)?;
        let mut all = self.lock();
        let found = all.1.get_mut(&id).filter(|statement| statement.token == token.name).ok_or_else(unknown)?;
        found.values = Some(values);
        Ok(())
    }

    pub(super) fn remove(&self, token: &Token, handle: &[u8]) -> Result<(), Status> {
        self.get(token, handle)?;
        self.lock().1.remove(&number(handle)?);
        Ok(())
    }
}

fn unknown() -> Status {
    Status::not_found("there is no such prepared statement of this token")
}

fn number(handle: &[u8]) -> Result<u64, Status> {
    std::str::from_utf8(handle).ok().and_then(|text| text.parse().ok()).ok_or_else(unknown)
}

/// The parameters of a plan in their order. One whose type nothing decides is a text.
pub(super) fn parameters(plan: &LogicalPlan) -> Result<Schema, Status> {
    let types = plan.get_parameter_types().map_err(crate::serve::failure::Failure::from)?;
    let mut found: Vec<(u32, String, DataType)> = types
        .into_iter()
        .map(|(name, kind)| {
            let place = name.trim_start_matches('$').parse().unwrap_or(u32::MAX);
            (place, name, kind.unwrap_or(DataType::Utf8))
        })
        .collect();
    found.sort_by_key(|(place, ..)| *place);
    Ok(Schema::new(found.into_iter().map(|(_, name, kind)| Field::new(name, kind, true)).collect::<Vec<_>>()))
}

/// A schema as the protocol sends it.
pub(super) fn encoded(schema: &Schema) -> Result<bytes::Bytes, Status> {
    let message: IpcMessage = SchemaAsIpc::new(schema, &Default::default())
        .try_into()
        .map_err(|e| Status::internal(format!("a schema cannot be encoded: {e}")))?;
    Ok(message.0)
}

/// The one row of values that a client sends.
pub(super) async fn values(stream: PeekableFlightDataStream) -> Result<Vec<ScalarValue>, Status> {
    let bad = |e: FlightError| Status::invalid_argument(format!("parameters cannot be read: {e}"));
    let mut batches =
        FlightRecordBatchStream::new_from_flight_data(stream.map_err(|e| FlightError::Tonic(Box::new(e))));
    let mut row = None;
    while let Some(batch) = batches.try_next().await.map_err(bad)? {
        if batch.num_rows() == 0 {
            continue;
        }
        if batch.num_rows() > 1 || row.is_some() {
            return Err(Status::invalid_argument("parameters have one row here; run the statement once for each"));
        }
        let values =
            batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0)).collect::<Result<_, _>>();
        row = Some(values.map_err(crate::serve::failure::Failure::from)?);
    }
    row.ok_or_else(|| Status::invalid_argument("there is no row of parameters"))
}
