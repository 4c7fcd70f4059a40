//! The tables and views of the runs, for every protocol that lists them.
//!
//! In: a session. Out: one [`Listed`] for each, without those of the schemas that describe others.

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::TableType;
use datafusion::prelude::SessionContext;

use super::failure::Failure;

/// The schemas that only describe others.
const DESCRIBING: [&str; 2] = ["information_schema", "pg_catalog"];

/// A table or view.
pub(super) struct Listed {
    pub(super) catalog: String,
    pub(super) schema: String,
    pub(super) name: String,
    /// `TABLE` or `VIEW`.
    pub(super) kind: &'static str,
    pub(super) columns: SchemaRef,
}

/// Catalogs and their schemas.
pub(super) fn schemas(session: &SessionContext) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for catalog in session.catalog_names() {
        let names = session.catalog(&catalog).map(|catalog| catalog.schema_names()).unwrap_or_default();
        let names = names.into_iter().filter(|name| !DESCRIBING.contains(&name.as_str()));
        found.extend(names.map(|schema| (catalog.clone(), schema)));
    }
    found.sort();
    found
}

/// Everything that can be asked.
pub(super) async fn list(session: &SessionContext) -> Result<Vec<Listed>, Failure> {
    let mut found = Vec::new();
    for (catalog, schema) in schemas(session) {
        let Some(provider) = session.catalog(&catalog).and_then(|catalog| catalog.schema(&schema)) else { continue };
        let mut names = provider.table_names();
        names.sort();
        for name in names {
            let Some(table) = provider.table(&name).await? else { continue };
            let kind = if table.table_type() == TableType::View { "VIEW" } else { "TABLE" };
            found.push(Listed {
                catalog: catalog.clone(),
                schema: schema.clone(),
                name,
                kind,
                columns: table.schema(),
            });
        }
    }
    Ok(found)
}
