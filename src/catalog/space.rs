//! The runs of a catalog, and sessions that know them.
//!
//! In: stores with aliases. Out: a `SessionContext` with a schema per run.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, SchemaProvider};
use datafusion::prelude::SessionContext;
use tokio::sync::OnceCell;

use super::information::{INFORMATION_SCHEMA, Information};
use super::models::{self, Known};
use super::schema::RunSchema;
use super::views::View;
use crate::principle::{Library, Templates};
use crate::query::{self, CATALOG, Models, SCHEMA, SessionOptions};
use crate::store::{self, Store};
use crate::{Error, Result};

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) alias: Option<String>,
    pub(super) store: Store,
}

/// What all sessions of a catalog share.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) runs: Vec<Run>,
    /// Filled by [`Space::known`].
    pub(super) models: Arc<Models>,
    known: OnceCell<Known>,
    built_in: Arc<Templates>,
}

impl Space {
    pub(super) fn new(runs: Vec<(Option<String>, Store)>) -> Result<Self> {
        let several = runs.len() > 1;
        let mut seen: Vec<&str> = Vec::new();
        for (alias, store) in &runs {
            let Some(alias) = alias else {
                if several {
                    return Err(Error::config(store, "of several runs each needs a name of its own: a=URL"));
                }
                continue;
            };
            let place = format!("run {alias}={store}");
            let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if alias.is_empty() || !alias.chars().all(name) || alias.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(Error::config(place, "the name must be lower-case letters, digits and _, a letter first"));
            }
            if [SCHEMA, INFORMATION_SCHEMA, "pg_catalog"].contains(&alias.as_str()) || seen.contains(&alias.as_str()) {
                return Err(Error::config(place, "the name is taken; choose another"));
            }
            seen.push(alias);
        }
        let runs = runs.into_iter().map(|(alias, store)| Run { alias, store }).collect();
        let built_in = Arc::new(Templates::load(None, &Library::default())?);
        Ok(Space { runs, models: Arc::new(Models::new()), known: OnceCell::new(), built_in })
    }

    /// Makes the models of the runs known by their names, the first time.
    pub(super) async fn known(&self) -> Result<&Known> {
        self.known.get_or_try_init(|| models::know(&self.runs, &self.models, &self.built_in)).await
    }

    /// Whether the runs are open that the view reads.
    pub(super) fn has(&self, view: &View) -> bool {
        view.runs().iter().all(|alias| self.runs.iter().any(|run| run.alias.as_deref() == Some(alias)))
    }

    /// A session whose tables without a schema are those of `schema`.
    pub(super) fn session(
        self: &Arc<Self>,
        options: &SessionOptions,
        schema: &str,
        models: bool,
    ) -> Result<SessionContext> {
        let models = if models { Arc::clone(&self.models) } else { Arc::new(Models::new()) };
        let ctx = query::session(models, Arc::clone(&self.built_in), options)?;
        let mut schemas: BTreeMap<String, Arc<dyn SchemaProvider>> = BTreeMap::new();
        for (i, run) in self.runs.iter().enumerate() {
            store::bind_store(&ctx, &run.store);
            let names = (i == 0).then_some(SCHEMA).into_iter().chain(run.alias.as_deref());
            for name in names {
                schemas.insert(name.to_string(), Arc::new(RunSchema::new(name, run.store.clone(), Arc::clone(self))));
            }
        }
        let information = Arc::new(Information::new(&ctx));
        schemas.insert(INFORMATION_SCHEMA.into(), information);
        ctx.register_catalog(CATALOG, Arc::new(Schemas(schemas)));
        if schema != SCHEMA {
            let state = ctx.state_ref();
            state.write().config_mut().options_mut().catalog.default_schema = schema.into();
        }
        Ok(ctx)
    }
}

/// The catalog of one session.
#[derive(Debug)]
struct Schemas(BTreeMap<String, Arc<dyn SchemaProvider>>);

impl CatalogProvider for Schemas {
    fn schema_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.0.get(name).cloned()
    }
}
