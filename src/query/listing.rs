//! Makes tables of files and of batches.
//!
//! In: the Parquet files that a manifest names, in any object store, or record batches. Out: a table of that name.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::prelude::SessionContext;
use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::{Error, Result};

/// Registers the Parquet `files` of `store` as table `name`, in place of one of that name. `root` is the URL of the
/// store's root (paths are relative to it); it need only be unique per store in this session. Files are read in the
/// given order. No files: an empty table.
pub fn register_files(
    context: &SessionContext,
    name: &str,
    root: &Url,
    store: Arc<dyn ObjectStore>,
    files: &[Path],
    schema: SchemaRef,
) -> Result<()> {
    if files.is_empty() {
        return register_batches(context, name, schema, Vec::new());
    }
    context.register_object_store(root, store);
    let mut urls = Vec::with_capacity(files.len());
    for file in files {
        let url =
            root.join(&format!("/{file}")).map_err(|error| Error::store(root, "not a store URL").because(error))?;
        urls.push(ListingTableUrl::parse(&url)?);
    }
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension("");
    let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(schema);
    put(context, name, Arc::new(ListingTable::try_new(config)?))
}

/// Registers record batches as table `name`, in place of one of that name; they form one partition, in order.
pub fn register_batches(
    context: &SessionContext,
    name: &str,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
) -> Result<()> {
    put(context, name, Arc::new(MemTable::try_new(schema, vec![batches])?))
}

pub(super) fn put(
    context: &SessionContext,
    name: &str,
    table: Arc<dyn datafusion::datasource::TableProvider>,
) -> Result<()> {
    // Quoted, so that a name is taken as it is.
    let name = datafusion::common::TableReference::bare(name);
    context.deregister_table(name.clone())?;
    context.register_table(name, table)?;
    Ok(())
}
