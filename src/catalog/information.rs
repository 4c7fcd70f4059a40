//! `information_schema` without the settings: which tables, columns and functions there are, and nothing about the
//! machine.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::error::Result;
use datafusion::prelude::SessionContext;

pub(super) const INFORMATION_SCHEMA: &str = datafusion::catalog::information_schema::INFORMATION_SCHEMA;
/// The table of settings.
const SETTINGS: &str = "df_settings";

/// The schema.
#[derive(Debug)]
pub(super) struct Information(InformationSchemaProvider);

impl Information {
    pub(super) fn new(ctx: &SessionContext) -> Self {
        Information(InformationSchemaProvider::new(Arc::clone(ctx.state().catalog_list())))
    }
}

#[async_trait]
impl SchemaProvider for Information {
    fn table_names(&self) -> Vec<String> {
        self.0.table_names().into_iter().filter(|name| name != SETTINGS).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name == SETTINGS { Ok(None) } else { self.0.table(name).await }
    }

    fn table_exist(&self, name: &str) -> bool {
        name != SETTINGS && self.0.table_exist(name)
    }
}
