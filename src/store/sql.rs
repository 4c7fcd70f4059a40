//! The tables of a run in a SQL session.
//!
//! In: manifests, or a run and the name of a table in it. Out: table providers that scan exactly the files which
//! manifests name (no directory listing), with exact row counts for the optimizer. The session knows the object store
//! under the run's scheme and bucket; credentials stay inside the store and are in no option, plan or
//! `information_schema` row. A table that the run does not have yet is there without rows, so that SQL over it gives no
//! rows rather than an error.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::datasource::TableType;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemTable;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as SqlResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use object_store::ObjectMeta;

use super::{Artifact, Current, FileEntry, Manifest, Store, Version, history, place};
use crate::table::Table;
use crate::{Error, Result};

/// Tells a session where the run's objects lie, for tables that name files of it.
pub fn bind_store(ctx: &SessionContext, store: &Store) {
    ctx.register_object_store(store.root(), store.named());
}

/// Tells a session where the files lie that the URL of an external table names.
///
/// # Errors
/// As [`Store::open`].
pub fn bind_bucket(ctx: &SessionContext, url: &str) -> Result<()> {
    let place = place::find(url, false)?;
    ctx.register_object_store(&place.root, place.objects);
    Ok(())
}

/// A table of the run as its last commits make it. Which versions that are is looked up when it is scanned, so having
/// it costs nothing, and a run that is being written shows what is committed then. The session must know the store
/// ([`bind_store`]).
pub fn current_table(store: &Store, table: Table) -> Arc<dyn TableProvider> {
    let (store, schema) = (store.clone(), table.schema());
    match table.name {
        "runs" => Arc::new(HistoryTable { store, schema }),
        _ => Arc::new(CurrentTable { store, table, schema }),
    }
}

/// Registers `table` as the union of the versions in `manifests`; empty when there are none. A table of that
/// name that is registered already is replaced.
///
/// # Errors
/// As [`provider`].
pub fn bind(ctx: &SessionContext, store: &Store, table: &Table, manifests: &[Manifest]) -> Result<()> {
    bind_as(ctx, store, table, manifests, table.name)
}

/// The same under another name.
///
/// # Errors
/// As [`provider`].
pub fn bind_as(ctx: &SessionContext, store: &Store, table: &Table, manifests: &[Manifest], name: &str) -> Result<()> {
    replace(ctx, name, provider(ctx, store, table, manifests)?)
}

/// The union of the versions in `manifests` for scans in `ctx`, without a name there.
///
/// # Errors
/// A store error when a version has other columns than `table` declares.
pub fn provider(
    ctx: &SessionContext,
    store: &Store,
    table: &Table,
    manifests: &[Manifest],
) -> Result<Arc<dyn TableProvider>> {
    bind_store(ctx, store);
    versions_table(store, table, manifests)
}

/// The same for a session that knows the store already.
///
/// # Errors
/// As [`provider`].
pub fn versions_table(store: &Store, table: &Table, manifests: &[Manifest]) -> Result<Arc<dyn TableProvider>> {
    let schema = table.schema();
    let mut parts = Vec::new();
    for manifest in manifests {
        if !manifest.has_columns(&schema) {
            return Err(Error::store(
                store.name_of(&manifest.version()?.key("manifest.json")),
                format!(
                    "was written with other columns than table {} has in this salmon; run its stage again",
                    table.name
                ),
            ));
        }
        let version = manifest.version()?;
        parts.extend(manifest.files.iter().filter(|file| file.rows > 0).map(|file| (version.clone(), file.clone())));
    }
    if parts.is_empty() {
        return Ok(Arc::new(EmptyTable::new(schema)));
    }
    Ok(Arc::new(VersionTable { store: store.clone(), schema, parts }))
}

/// Registers rows in memory as table `name`, replacing one of that name.
///
/// # Errors
/// A query error when a batch has other columns than `schema`.
pub fn bind_batches(ctx: &SessionContext, name: &str, schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<()> {
    replace(ctx, name, Arc::new(MemTable::try_new(schema, vec![batches])?))
}

fn replace(ctx: &SessionContext, name: &str, provider: Arc<dyn TableProvider>) -> Result<()> {
    ctx.deregister_table(name)?;
    ctx.register_table(name, provider)?;
    Ok(())
}

/// The parts of one or more versions as one table.
#[derive(Debug)]
struct VersionTable {
    store: Store,
    schema: SchemaRef,
    parts: Vec<(Version, FileEntry)>,
}

#[async_trait]
impl TableProvider for VersionTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(counted(&self.schema, self.parts.iter().map(|(_, file)| file.rows).sum()))
    }

    /// Checks that every part is there with its size, then scans the parts in order.
    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> SqlResult<Arc<dyn ExecutionPlan>> {
        let check = |(version, file): (Version, FileEntry)| async move { file.present(&self.store, &version).await };
        Store::each(self.parts.clone(), check).await?;
        let mut files = Vec::with_capacity(self.parts.len());
        for (version, file) in &self.parts {
            let meta = ObjectMeta {
                location: self.store.path(&version.key(&file.path))?,
                last_modified: Default::default(),
                size: file.size,
                e_tag: None,
                version: None,
            };
            let statistics = counted(&self.schema, file.rows);
            files.push(PartitionedFile::new_from_meta(meta).with_statistics(Arc::new(statistics)));
        }
        let source = Arc::new(ParquetSource::new(Arc::clone(&self.schema)));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(self.store.root())?, source)
            .with_file_group(FileGroup::new(files))
            .with_statistics(self.statistics().unwrap_or_else(|| Statistics::new_unknown(&self.schema)))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

fn counted(schema: &Schema, rows: u64) -> Statistics {
    Statistics { num_rows: Precision::Exact(rows as usize), ..Statistics::new_unknown(schema) }
}

/// The current versions, found when they are asked for.
#[derive(Debug)]
struct CurrentTable {
    store: Store,
    table: Table,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for CurrentTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> SqlResult<Arc<dyn ExecutionPlan>> {
        let artifact = Artifact::table(self.table.name);
        let manifests = Current::of(&self.store, &artifact).await?.manifests(&self.store, &artifact).await?;
        versions_table(&self.store, &self.table, &manifests)?.scan(state, projection, filters, limit).await
    }
}

/// The history, read when it is asked for: it grows with every run and no stage needs it.
#[derive(Debug)]
struct HistoryTable {
    store: Store,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for HistoryTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> SqlResult<Arc<dyn ExecutionPlan>> {
        let rows = history::table(&history::records(&self.store).await?)?;
        MemTable::try_new(self.schema(), vec![vec![rows]])?.scan(state, projection, filters, limit).await
    }
}
