//! What a name that is not there was probably meant to be.
//!
//! In: an error of planning. Out: the same, or for an unknown table one that suggests the nearest name. DataFusion does
//! that itself for columns and functions.

use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::prelude::SessionContext;

use crate::Error;
use crate::query::{CATALOG, SCHEMA};

/// The one of `known` that `name` is a slip of, if one is near enough.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let far = |known: &str| levenshtein(&name, &known.to_lowercase());
    let (distance, found) = known.into_iter().map(|known| (far(known), known)).min()?;
    (distance <= (name.chars().count() / 3).max(1)).then_some(found)
}

/// The error, with a suggestion where a table is unknown.
pub(super) fn explain(error: Error, session: &SessionContext) -> Error {
    let text = error.to_string();
    let unknown = text.split_once("table '").and_then(|(_, rest)| rest.split_once("' not found"));
    let Some((full, _)) = unknown else { return error };
    let mut parts: Vec<&str> = full.splitn(3, '.').collect();
    if parts.first() == Some(&CATALOG) {
        parts.remove(0);
    }
    let (schema, table) = match parts.as_slice() {
        [schema, table] => (*schema, *table),
        _ => return error,
    };
    let shown = if schema == SCHEMA { table.to_string() } else { format!("{schema}.{table}") };
    let Some(catalog) = session.catalog(CATALOG) else { return error };
    let schemas = catalog.schema_names();
    let Some(found) = catalog.schema(schema) else {
        let near = match nearest(schema, schemas.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}.{table}?"),
            None => format!("there are {}", schemas.join(", ")),
        };
        return Error::query(format!("table {shown}"), format!("there is no schema {schema}; {near}"));
    };
    let mut names = found.table_names();
    names.sort();
    let (base, version) = table.split_once('@').map_or((table, ""), |(base, version)| (base, version));
    let near = match nearest(base, names.iter().map(String::as_str)) {
        Some(near) if version.is_empty() => format!("did you mean {near}?"),
        Some(near) => format!("did you mean {near}@{version}?"),
        None => format!("there are {}", names.join(", ")),
    };
    Error::query(format!("table {shown}"), format!("is not there; {near}"))
}
