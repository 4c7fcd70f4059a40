//! One run as a schema.
//!
//! In: a table's name as SQL writes it. Out: the table of that name: a declared one, a past version of it, a view, or
//! what the session added.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::datasource::{TableType, ViewTable};
use datafusion::error::Result;

use super::space::Space;
use super::versions;
use super::views::{self, View};
use crate::query::SessionOptions;
use crate::store::{self, Store};
use crate::{Error, table};

/// The schema of one run, under one of its names.
#[derive(Debug)]
pub(super) struct RunSchema {
    name: String,
    store: Store,
    space: Arc<Space>,
    /// What `CREATE EXTERNAL TABLE` and `CREATE VIEW` made.
    added: MemorySchemaProvider,
}

impl RunSchema {
    pub(super) fn new(name: &str, store: Store, space: Arc<Space>) -> Self {
        RunSchema { name: name.into(), store, space, added: MemorySchemaProvider::new() }
    }

    /// Planned where the names in it mean this run's tables.
    async fn view(&self, view: &View) -> crate::Result<Arc<dyn TableProvider>> {
        if !self.space.has(view) {
            let open = view.runs().iter().map(|alias| format!("--run {alias}=URL")).collect::<Vec<_>>().join(" ");
            return Err(Error::query(format!("view {}", view.name), format!("compares runs; open them with {open}")));
        }
        let bad = |e: Error| Error::query(format!("view {}", view.name), "cannot be planned").because(e);
        let ctx = self.space.session(&SessionOptions::default(), &self.name, false)?;
        let plan = ctx.state().create_logical_plan(view.sql).await.map_err(|e| bad(e.into()))?;
        Ok(Arc::new(ViewTable::new(plan, Some(view.sql.to_string()))))
    }

    /// Names that are the run's own stay what they are.
    fn free(&self, name: &str) -> Result<()> {
        if name.contains('@') || table::by_name(name).is_some() || views::by_name(name).is_some() {
            return Err(Error::query(format!("table {name}"), "is the run's own; choose another name").into());
        }
        Ok(())
    }
}

#[async_trait]
impl SchemaProvider for RunSchema {
    fn table_names(&self) -> Vec<String> {
        let tables = table::all().into_iter().map(|table| table.name.to_string());
        let views = views::all().iter().filter(|view| self.space.has(view)).map(|view| view.name.to_string());
        tables.chain(views).chain(self.added.table_names()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(added) = self.added.table(name).await? {
            return Ok(Some(added));
        }
        if let Some((base, version)) = name.split_once('@') {
            let Some(table) = table::by_name(base) else { return Ok(None) };
            return Ok(Some(versions::find(&self.store, &table, version).await?));
        }
        if let Some(table) = table::by_name(name) {
            return Ok(Some(store::current_table(&self.store, table)));
        }
        match views::by_name(name) {
            Some(view) => Ok(Some(self.view(view).await?)),
            None => Ok(None),
        }
    }

    /// Without planning a view.
    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        if views::by_name(name).is_some() {
            return Ok(Some(TableType::View));
        }
        Ok(self.table(name).await?.map(|table| table.table_type()))
    }

    fn register_table(&self, name: String, table: Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableProvider>>> {
        self.free(&name)?;
        self.added.register_table(name, table)
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.free(name)?;
        self.added.deregister_table(name)
    }

    fn table_exist(&self, name: &str) -> bool {
        let base = name.split_once('@').map_or(name, |(base, _)| base);
        self.added.table_exist(name) || table::by_name(base).is_some() || views::by_name(name).is_some()
    }
}
