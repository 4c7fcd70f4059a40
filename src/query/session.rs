//! The DataFusion session that every stage, command and service queries through.
//!
//! In: the models, the templates, a few options. Out: a `SessionContext` with our settings, functions and
//! operators. Text columns are plain Utf8, so that what a stage writes is what its table says.

use std::num::NonZero;
use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::exec::Pace;
use super::extract::ExtractModelCalls;
use super::functions;
use super::markers;
use super::models::Models;
use super::optimize::{DropUnusedCalls, SortBelowModel};
use super::planner::ModelQueryPlanner;
use crate::principle::Templates;
use crate::{Error, Result};

/// How a session runs.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Partitions that run at once; the processors by default. With 1, rows keep their order without ORDER BY.
    pub target_partitions: usize,
    /// Rows per record batch; 8192 by default. Results do not depend on it.
    pub batch_size: usize,
    /// Bytes that operators may hold before they spill to disk or fail; no limit by default.
    pub memory_limit: Option<usize>,
    /// What several sessions share: the memory pool, spill files, object stores. One of its own by default; with one
    /// that is given, `memory_limit` is not looked at.
    pub runtime: Option<Arc<RuntimeEnv>>,
    /// Refuse everything but queries, for SQL from people who may only look; false by default.
    pub read_only: bool,
    /// Rows sent to a model at a time, at most; 64 by default. The first pieces are smaller. Results do not depend
    /// on it.
    pub micro_batch: usize,
    /// Micro-batches with a model at once, per partition; 4 by default, at least 2.
    pub in_flight: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        SessionOptions {
            target_partitions: processors,
            batch_size: 8192,
            memory_limit: None,
            runtime: None,
            read_only: false,
            micro_batch: 64,
            in_flight: 4,
        }
    }
}

/// Rows in the first micro-batch: enough to use the model, few enough to come back soon.
const FIRST_MICRO_BATCH: usize = 8;

/// The catalog of every session, and the schema where tables without one are looked for.
pub const CATALOG: &str = "salmon";
/// See [`CATALOG`].
pub const SCHEMA: &str = "public";

/// Marks a session as read-only; `super::params::sql` looks for it.
struct ReadOnly;

/// A session over `models`; `templates` are what `render` fills.
pub fn session(models: Arc<Models>, templates: Arc<Templates>, options: &SessionOptions) -> Result<SessionContext> {
    for (name, value) in [
        ("target_partitions", options.target_partitions),
        ("batch_size", options.batch_size),
        ("micro_batch", options.micro_batch),
    ] {
        if value == 0 {
            return Err(Error::config(format!("session option {name}"), "must be at least 1"));
        }
    }
    let mut config = SessionConfig::new()
        .with_target_partitions(options.target_partitions)
        .with_batch_size(options.batch_size)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_information_schema(false)
        // Spreading one partition over several would shuffle rows that came in order, and read ahead of a LIMIT.
        .with_round_robin_repartition(false);
    let settings = config.options_mut();
    settings.execution.parquet.schema_force_view_types = false;
    settings.sql_parser.map_string_types_to_utf8view = false;
    if options.read_only {
        config = config.with_extension(Arc::new(ReadOnly));
    }
    let runtime = match (&options.runtime, options.memory_limit) {
        (Some(runtime), _) => Arc::clone(runtime),
        (None, Some(bytes)) => RuntimeEnvBuilder::new().with_memory_limit(bytes, 1.0).build_arc()?,
        (None, None) => RuntimeEnvBuilder::new().build_arc()?,
    };
    let pace = Pace {
        first: FIRST_MICRO_BATCH.min(options.micro_batch),
        most: options.micro_batch,
        in_flight: options.in_flight.max(2),
    };
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_query_planner(Arc::new(ModelQueryPlanner { models: Arc::clone(&models), pace }))
        .with_analyzer_rule(Arc::new(ExtractModelCalls { models: Arc::clone(&models) }))
        .with_optimizer_rule(Arc::new(SortBelowModel))
        .with_optimizer_rule(Arc::new(DropUnusedCalls))
        .build();
    let context = SessionContext::new_with_state(state);
    for function in markers::all().into_iter().chain(functions::all(&models, &templates)) {
        context.register_udf(function);
    }
    Ok(context)
}

/// Gives `render` other templates in this session; statements that are planned keep theirs.
pub fn set_templates(context: &SessionContext, templates: &Arc<Templates>) {
    context.register_udf(functions::render(templates));
}

pub(super) fn is_read_only(context: &SessionContext) -> bool {
    context.state().config().get_extension::<ReadOnly>().is_some()
}
