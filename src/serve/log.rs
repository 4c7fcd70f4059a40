//! The query log.
//!
//! In: queries as they begin and end. Out: table `query_log`, of those that run and the last [`KEPT`] that ended. It is
//! kept in memory and is no part of a run. A token sees its own queries, or all of them where the token file says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as SqlResult;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::tokens::Token;

/// Queries that ended and are remembered.
const KEPT: usize = 10_000;

/// Characters of a statement that are remembered.
const SHOWN: usize = 10_000;

/// One query.
#[derive(Debug, Clone)]
struct Entry {
    id: u64,
    started: SystemTime,
    clock: Instant,
    token: String,
    protocol: &'static str,
    sql: String,
    status: &'static str,
    error: Option<String>,
    rows: u64,
    took: Option<Duration>,
}

#[derive(Debug, Default)]
struct Entries {
    running: BTreeMap<u64, Entry>,
    ended: VecDeque<Entry>,
    last: u64,
}

/// Every query that is remembered.
#[derive(Debug, Default)]
pub(super) struct QueryLog(Mutex<Entries>);

impl QueryLog {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a query down that begins; gives its number.
    pub(super) fn begin(&self, token: &Token, protocol: &'static str, sql: &str) -> u64 {
        let mut entries = self.entries();
        entries.last += 1;
        let shown = sql.char_indices().nth(SHOWN).map_or(sql, |(end, _)| &sql[..end]);
        let entry = Entry {
            id: entries.last,
            started: SystemTime::now(),
            clock: Instant::now(),
            token: token.name.clone(),
            protocol,
            sql: crate::secret::scrub(shown).into_owned(),
            status: "running",
            error: None,
            rows: 0,
            took: None,
        };
        let id = entry.id;
        entries.running.insert(id, entry);
        id
    }

    /// Writes down how it ended; gives how long it took.
    pub(super) fn end(&self, id: u64, status: &'static str, error: Option<String>, rows: u64) -> Duration {
        let mut entries = self.entries();
        let Some(mut entry) = entries.running.remove(&id) else { return Duration::ZERO };
        let took = entry.clock.elapsed();
        (entry.status, entry.error, entry.rows, entry.took) = (status, error, rows, Some(took));
        if entries.ended.len() == KEPT {
            entries.ended.pop_front();
        }
        entries.ended.push_back(entry);
        took
    }

    fn rows(&self, token: Option<&Token>) -> SqlResult<RecordBatch> {
        let entries = self.entries();
        let sees = |entry: &&Entry| token.is_some_and(|t| t.all_queries || t.name == entry.token);
        let seen: Vec<&Entry> = entries.ended.iter().chain(entries.running.values()).filter(sees).collect();
        let text = |pick: &dyn Fn(&Entry) -> Option<String>| -> ArrayRef {
            Arc::new(StringArray::from_iter(seen.iter().map(|entry| pick(entry))))
        };
        let micros = |entry: &&Entry| entry.started.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
        let seconds = |entry: &&Entry| entry.took.unwrap_or_else(|| entry.clock.elapsed()).as_secs_f64();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from_iter_values(seen.iter().map(|entry| entry.id))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(seen.iter().map(micros)).with_timezone("UTC")),
            text(&|entry| Some(entry.token.clone())),
            text(&|entry| Some(entry.protocol.to_string())),
            text(&|entry| Some(entry.sql.clone())),
            text(&|entry| Some(entry.status.to_string())),
            text(&|entry| entry.error.clone()),
            Arc::new(Int64Array::from_iter_values(seen.iter().map(|entry| entry.rows as i64))),
            Arc::new(Float64Array::from_iter_values(seen.iter().map(seconds))),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

fn schema() -> SchemaRef {
    let field = |name: &str, kind: DataType| Field::new(name, kind, name == "error");
    Arc::new(Schema::new(vec![
        field("query_id", DataType::UInt64),
        field("started", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        field("token", DataType::Utf8),
        field("protocol", DataType::Utf8),
        field("sql", DataType::Utf8),
        field("status", DataType::Utf8),
        field("error", DataType::Utf8),
        field("rows", DataType::Int64),
        field("seconds", DataType::Float64),
    ]))
}

/// Table `query_log`. Who asks is in the session's configuration.
#[derive(Debug)]
pub(super) struct LogTable(pub(super) Arc<QueryLog>);

#[async_trait]
impl TableProvider for LogTable {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> SqlResult<Arc<dyn ExecutionPlan>> {
        let token = state.config().get_extension::<Token>();
        let rows = self.0.rows(token.as_deref())?;
        MemTable::try_new(schema(), vec![vec![rows]])?.scan(state, projection, filters, limit).await
    }
}
