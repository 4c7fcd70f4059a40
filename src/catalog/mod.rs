//! Runs as SQL: the tables of one or several runs, their past versions, the shipped views, the models.
//!
//! In: stores, each with an alias where there are several. Out: sessions that know them, and plans of statements.
//!
//! ```text
//! salmon
//! ├─ public                  the first run
//! │  ├─ judgments            as its last commits make it, looked up when it is scanned
//! │  ├─ judgments@5f0c1a     the version with this fingerprint
//! │  ├─ judgments@2026-11-27T10:00:00Z    what had been made by then; SQL writes `judgments as of '2026-..'`
//! │  └─ (views)              one for each file of sql/views/
//! ├─ a, b                    each run under its alias
//! └─ information_schema      tables, columns and functions; no settings
//! ```
//! Models answer to `sft`, `reward`, `policy:brief`; those of a run with an alias also to `a.sft`. Nothing of a store is read
//! before a statement names it, and no model is loaded before it is asked. A session is made in a millisecond, so that a server can give
//! each request its own, with its own limits.

mod estimate;
mod information;
mod models;
mod nearest;
pub(crate) mod opened;
mod schema;
mod space;
pub mod text;
mod versions;
pub mod views;

pub use estimate::Estimate;
pub(crate) use models::MODEL_FUNCTIONS;
pub(crate) use nearest::explain;
pub use nearest::nearest;

use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{DataFrame, SessionContext};

use crate::query::{self, Params, SessionOptions};
use crate::store::Store;
use crate::{Error, Result};
use space::Space;

/// A read-only session over one run.
///
/// # Errors
/// A store error where there is no run.
pub async fn session(url: &str) -> Result<SessionContext> {
    session_with(url, &SessionOptions::default()).await
}

/// The same with other options.
///
/// # Errors
/// As [`session`].
pub async fn session_with(url: &str, options: &SessionOptions) -> Result<SessionContext> {
    let session = SessionOptions { read_only: true, ..options.clone() };
    Catalog::open(&[(None, url.to_string())], &Options { session, models: false }).await?.session()
}

/// What the sessions of a catalog may do.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How they run; `read_only` for SQL of people who may only look.
    pub session: SessionOptions,
    /// Whether statements may ask the models of the runs; false by default.
    pub models: bool,
}

/// One or several runs. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Catalog {
    space: Arc<Space>,
    options: Options,
}

impl Catalog {
    /// Opens runs for reading: (alias, URL) of each. The first one is the default schema, and may have no alias.
    ///
    /// # Errors
    /// A store error where there is no run; a configuration error for an alias that is missing, no name, or there twice.
    pub async fn open(runs: &[(Option<String>, String)], options: &Options) -> Result<Self> {
        let mut stores = Vec::with_capacity(runs.len());
        for (alias, url) in runs {
            stores.push((alias.clone(), Store::open_existing(url).await?));
        }
        Catalog::of(stores, options)
    }

    /// The same for stores that are open already.
    ///
    /// # Errors
    /// A configuration error for an alias, as [`Catalog::open`].
    pub fn of(runs: Vec<(Option<String>, Store)>, options: &Options) -> Result<Self> {
        Ok(Catalog { space: Arc::new(Space::new(runs)?), options: options.clone() })
    }

    /// The runs with their aliases, the default one first.
    pub fn runs(&self) -> impl Iterator<Item = (Option<&str>, &Store)> {
        self.space.runs.iter().map(|run| (run.alias.as_deref(), &run.store))
    }

    /// A session over the runs.
    ///
    /// # Errors
    /// A configuration error for options that cannot be.
    pub fn session(&self) -> Result<SessionContext> {
        self.session_with(&self.options.session)
    }

    /// The same with other options, for example the limits of one request.
    ///
    /// # Errors
    /// As [`Catalog::session`].
    pub fn session_with(&self, options: &SessionOptions) -> Result<SessionContext> {
        self.space.session(options, query::SCHEMA, self.options.models)
    }

    /// The same runs for sessions that may, or may not, ask models. Loaded models are shared.
    pub fn with_models(&self, models: bool) -> Catalog {
        Catalog { space: Arc::clone(&self.space), options: Options { models, ..self.options.clone() } }
    }

    /// The names of the models that statements may ask.
    ///
    /// # Errors
    /// A store error when a run cannot be read.
    pub async fn models(&self) -> Result<Vec<String>> {
        if !self.options.models {
            return Ok(Vec::new());
        }
        self.space.known().await?;
        Ok(self.space.models.names())
    }

    /// Tells a session of the runs' models and templates. None is loaded before it is asked.
    ///
    /// # Errors
    /// A store error when a run cannot be read.
    pub async fn know_models(&self, session: &SessionContext) -> Result<()> {
        query::set_templates(session, &self.space.known().await?.templates);
        Ok(())
    }

    /// Plans one statement in a session of this catalog: a query, or something that only this session keeps (a view, an
    /// external table), which a read-only session refuses.
    ///
    /// # Errors
    /// A query error, which suggests the nearest name for one that is not there; a store error for a version that is
    /// not there.
    pub async fn plan(&self, session: &SessionContext, text: &str, params: &Params) -> Result<LogicalPlan> {
        let text = text::as_of(text)?;
        if self.options.models && text::calls(&text)?.iter().any(|name| models::needs_run(name)) {
            self.know_models(session).await?;
        }
        let plan = query::plan(session, &text, params).await.map_err(|error| nearest::explain(error, session))?;
        let allowed = datafusion::prelude::SQLOptions::new().with_allow_dml(false).with_allow_statements(false);
        allowed.verify_plan(&plan).map_err(|error| {
            Error::query("SQL", "runs are only read here, and settings stay as they are")
                .because(error.strip_backtrace())
        })?;
        Ok(plan)
    }

    /// Plans one statement and begins it; a query runs when the rows are asked for.
    ///
    /// # Errors
    /// As [`Catalog::plan`].
    pub async fn sql(&self, session: &SessionContext, text: &str, params: &Params) -> Result<DataFrame> {
        let plan = self.plan(session, text, params).await?;
        self.begin(session, plan).await
    }

    /// Begins a statement that [`Catalog::plan`] planned. `EXPLAIN` of one that asks models also says what they will do.
    ///
    /// # Errors
    /// A query error.
    pub async fn begin(&self, session: &SessionContext, plan: LogicalPlan) -> Result<DataFrame> {
        match &plan {
            LogicalPlan::Explain(explain) if self.options.models => {
                let asked = session.state().create_physical_plan(&explain.plan).await?;
                let estimate = self.estimate(&asked, &session.task_ctx()).await?;
                let shown = session.execute_logical_plan(plan).await?;
                estimate.beside(session, shown).await
            }
            _ => Ok(session.execute_logical_plan(plan).await?),
        }
    }

    /// What the models of a physical plan will have to do; nothing for a plan that asks none. The rows that they would
    /// see are counted, and the first of them encoded.
    ///
    /// # Errors
    /// Those of the operators below the models.
    pub async fn estimate(&self, plan: &Arc<dyn ExecutionPlan>, task: &Arc<TaskContext>) -> Result<Estimate> {
        if !query::asks_models(plan) {
            return Ok(Estimate::default());
        }
        let work = query::work(plan, task).await?;
        Estimate::of(work, self.space.known().await?).await
    }
}
