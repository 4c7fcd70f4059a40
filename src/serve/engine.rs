//! The one place where queries of every protocol are planned and run.
//!
//! In: a token and a statement. Out: record batches, as they are made, or a failure. Every query has a session of its
//! own over the shared catalog, so that nothing one query does is seen by another; a share of the one memory pool; a
//! deadline; a line in the query log. Queries run on threads of their own: a connection is answered however busy they
//! are.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ParamValues;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::answer::{Answer, Message};
use super::failure::{Failure, Why};
use super::log::{LogTable, QueryLog};
use super::memory::QueryPool;
use super::metrics::Metrics;
use super::statement::{self, Statement};
use super::tokens::Token;
use crate::catalog::Catalog;
use crate::query::SessionOptions;
use crate::{Error, Result};

/// Queries that run at once; more wait, and their time runs.
const AT_ONCE: usize = 64;

/// Batches between a query and its client: a slow client slows its query, and does not fill the memory.
const AHEAD: usize = 2;

/// How long a failure waits for a client that reads nothing.
const LAST_WORD: Duration = Duration::from_secs(10);

/// Most bytes that all queries together may spill to disk, as a multiple of the memory pool.
const SPILL: u64 = 8;

/// Plans and runs queries.
pub(super) struct Engine {
    template: SessionContext,
    catalog: Catalog,
    pool: Arc<dyn MemoryPool>,
    memory: usize,
    log: Arc<QueryLog>,
    pub(super) metrics: Arc<Metrics>,
    running: Arc<Mutex<BTreeMap<u64, Running>>>,
    slots: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
    threads: Option<tokio::runtime::Runtime>,
}

/// A query that runs.
struct Running {
    token: String,
    tag: String,
    cancel: watch::Sender<bool>,
}

/// Where a query comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) protocol: &'static str,
    /// What the protocol cancels it by, besides its number in the log; empty for nothing.
    pub(super) tag: String,
}

impl Origin {
    pub(super) fn new(protocol: &'static str) -> Self {
        Origin { protocol, tag: String::new() }
    }
}

/// A statement that was planned.
pub(super) struct Planned {
    statement: Statement,
    pub(super) plan: LogicalPlan,
    state: SessionState,
}

impl Planned {
    /// The columns of the answer.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(self.plan.schema().inner())
    }
}

impl Engine {
    /// Over the runs of `catalog`, with `memory` bytes for all queries together; `models` for tokens that may ask some.
    ///
    /// # Errors
    /// An error for a session that cannot be made.
    pub(super) async fn start(catalog: Catalog, memory: usize, models: bool) -> Result<Arc<Self>> {
        let threads = std::thread::available_parallelism().map_or(2, NonZero::get);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("query")
            .enable_all()
            .build()
            .map_err(|e| Error::internal("query threads", "cannot start").because(e))?;
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(memory));
        let shared = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::clone(&pool))
            .with_max_temp_directory_size(SPILL * memory as u64)
            .build_arc()?;
        let options = SessionOptions { read_only: true, runtime: Some(shared), ..SessionOptions::default() };
        let catalog = catalog.with_models(models);
        let template = catalog.session_with(&options)?;
        if models {
            catalog.know_models(&template).await?;
        }
        super::postgres::prepare_session(&template)?;
        super::bounded::replace_functions(&template);
        let log = Arc::new(QueryLog::default());
        template.register_table("query_log", Arc::new(LogTable(Arc::clone(&log))))?;
        Ok(Arc::new(Engine {
            template,
            catalog,
            pool,
            memory,
            log,
            metrics: Arc::default(),
            running: Arc::default(),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            stopping: watch::Sender::new(false),
            threads: Some(runtime),
        }))
    }

    /// The runs that are served.
    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// A session to look into the catalog with; queries have others.
    pub(super) fn session(&self) -> &SessionContext {
        &self.template
    }

    /// Whether queries are taken.
    pub(super) fn is_ready(&self) -> bool {
        !*self.stopping.borrow()
    }

    /// The figures of this moment for Prometheus.
    pub(super) fn metrics_text(&self) -> String {
        self.metrics.text(self.running().len(), self.pool.reserved(), self.memory)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> Result<&tokio::runtime::Runtime, Failure> {
        self.threads.as_ref().ok_or_else(|| Failure::new(Why::Unavailable, "the server is ending"))
    }

    /// A session of its own for one query of `token`.
    fn state(&self, token: &Arc<Token>) -> SessionState {
        let state = self.template.state();
        let limit = token.memory.unwrap_or(self.memory).min(self.memory);
        let pool = Arc::new(QueryPool::new(Arc::clone(&self.pool), limit));
        let runtime = RuntimeEnv { memory_pool: pool, ..state.runtime_env().as_ref().clone() };
        let config = state.config().clone().with_extension(Arc::clone(token));
        SessionStateBuilder::new_from_existing(state).with_config(config).with_runtime_env(Arc::new(runtime)).build()
    }

    /// Plans a statement, within the token's time.
    pub(super) async fn plan(&self, token: &Arc<Token>, statement: Statement) -> Result<Planned, Failure> {
        if token.has_expired() {
            return Err(Failure::unauthenticated());
        }
        let (state, session, asker) = (self.state(token), self.template.clone(), Arc::clone(token));
        let work = self.threads()?.spawn(async move {
            let plan = super::plan::plan(&state, statement.parsed.clone(), &session).await?;
            statement::verify(&plan)?;
            super::plan::allow_models(&plan, &asker)?;
            Ok(Planned { statement, plan, state })
        });
        match tokio::time::timeout(token.time, work).await {
            Ok(Ok(planned)) => planned,
            Ok(Err(_)) => Err(Failure::new(Why::Internal, "planning the statement failed")),
            Err(_) => Err(out_of_time(token)),
        }
    }

    /// Runs a planned statement with values for its parameters; the answer's first batch has been made, or there is
    /// none, so that most failures are known before anything is sent.
    pub(super) async fn run(
        &self,
        token: &Arc<Token>,
        planned: Planned,
        values: Option<ParamValues>,
        origin: Origin,
    ) -> Result<Answer, Failure> {
        if !self.is_ready() {
            return Err(Failure::new(Why::Unavailable, "the server is ending"));
        }
        let Planned { statement, plan, state } = planned;
        let plan = match values {
            Some(values) => plan.replace_params_with_values(&values)?,
            None => plan,
        };
        let Origin { protocol, tag } = origin;
        let id = self.log.begin(token, protocol, &statement.text);
        let (cancel, cancelled) = watch::channel(false);
        self.running().insert(id, Running { token: token.name.clone(), tag, cancel });
        let end = End {
            id,
            protocol,
            log: Arc::clone(&self.log),
            metrics: Arc::clone(&self.metrics),
            running: Arc::clone(&self.running),
            outcome: None,
            rows: 0,
        };
        let schema = Arc::clone(plan.schema().inner());
        let (sender, receiver) = mpsc::channel(AHEAD);
        let work = Work { plan, state, token: Arc::clone(token), sender, slots: Arc::clone(&self.slots) };
        self.threads()?.spawn(work.run(end, cancelled));
        Answer::begin(id, schema, receiver).await
    }

    /// Plans and runs a statement.
    pub(super) async fn ask(
        &self,
        token: &Arc<Token>,
        text: &str,
        values: Option<ParamValues>,
        origin: Origin,
    ) -> Result<Answer, Failure> {
        let planned = self.plan(token, Statement::parse(text)?).await?;
        self.run(token, planned, values, origin).await
    }

    /// Cancels a query of this token; whether it was there.
    pub(super) fn cancel(&self, token: &Token, id: u64) -> bool {
        let running = self.running();
        let found = running.get(&id).filter(|query| query.token == token.name);
        found.inspect(|query| _ = query.cancel.send(true)).is_some()
    }

    /// Cancels the queries with this tag; whether there was one. Whoever knows the tag may.
    pub(super) fn cancel_tagged(&self, tag: &str) -> bool {
        let running = self.running();
        let found = running.values().filter(|query| !tag.is_empty() && query.tag == tag);
        found.inspect(|query| _ = query.cancel.send(true)).count() > 0
    }

    /// Takes no more queries, waits `patience` for those that run, then cancels them.
    pub(super) async fn stop(&self, patience: Duration) {
        self.stopping.send_replace(true);
        let until = Instant::now() + patience;
        while !self.running().is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.running().values().for_each(|query| _ = query.cancel.send(true));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Waiting for its threads is forbidden where others wait for this one.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

fn out_of_time(token: &Token) -> Failure {
    Failure::new(
        Why::Time,
        format!("the query took longer than the {} s of token {}", token.time.as_secs(), token.name),
    )
}

/// What is left to do when a query ends, however it ends.
struct End {
    id: u64,
    protocol: &'static str,
    log: Arc<QueryLog>,
    metrics: Arc<Metrics>,
    running: Arc<Mutex<BTreeMap<u64, Running>>>,
    outcome: Option<Result<(), Failure>>,
    rows: u64,
}

impl Drop for End {
    fn drop(&mut self) {
        let (status, error) = match self.outcome.take() {
            Some(Ok(())) => ("done", None),
            Some(Err(failure)) if failure.why == Why::Cancelled => ("cancelled", None),
            Some(Err(failure)) => ("failed", Some(failure.text)),
            None => ("failed", Some("the query ended unexpectedly".into())),
        };
        let took = self.log.end(self.id, status, error, self.rows);
        self.metrics.ended(self.protocol, status, self.rows, took);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// A query on its thread.
struct Work {
    plan: LogicalPlan,
    state: SessionState,
    token: Arc<Token>,
    sender: mpsc::Sender<Message>,
    slots: Arc<Semaphore>,
}

impl Work {
    async fn run(self, mut end: End, mut cancelled: watch::Receiver<bool>) {
        let (sender, token) = (self.sender.clone(), Arc::clone(&self.token));
        let deadline = Instant::now() + token.time;
        let outcome = tokio::select! {
            outcome = self.stream(&mut end.rows) => outcome,
            () = tokio::time::sleep_until(deadline) => Err(out_of_time(&token)),
            _ = cancelled.wait_for(|cancelled| *cancelled) => Err(Failure::new(Why::Cancelled, "the query was cancelled")),
            () = sender.closed() => Err(Failure::new(Why::Cancelled, "nobody waits for the answer")),
        };
        end.outcome = Some(outcome.clone());
        drop(end);
        let last = match outcome {
            Ok(()) => Message::End,
            Err(failure) => Message::Failed(failure),
        };
        let _ = tokio::time::timeout(LAST_WORD, sender.send(last)).await;
    }

    async fn stream(self, rows: &mut u64) -> Result<(), Failure> {
        let busy = |_| Failure::new(Why::Unavailable, "the server is ending");
        let _slot = self.slots.acquire().await.map_err(busy)?;
        let plan = self.state.create_physical_plan(&self.plan).await?;
        let mut stream = datafusion::physical_plan::execute_stream(plan, self.state.task_ctx())?;
        while let Some(batch) = stream.next().await {
            let batch: RecordBatch = batch?;
            *rows += batch.num_rows() as u64;
            if self.token.rows.is_some_and(|most| *rows > most) {
                let most = self.token.rows.unwrap_or_default();
                let text =
                    format!("the answer has more than the {most} rows of token {}; add a LIMIT", self.token.name);
                return Err(Failure::new(Why::Rows, text));
            }
            if self.sender.send(Message::Rows(batch)).await.is_err() {
                return Err(Failure::new(Why::Cancelled, "nobody waits for the answer"));
            }
        }
        Ok(())
    }
}
