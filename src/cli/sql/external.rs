//! `CREATE EXTERNAL TABLE` of people on their own machine.
//!
//! In: the plan of the statement. Out: a session that knows the store where the files lie, opened as every run is: with
//! the credentials of the environment, which are in no plan and no error.

use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::SessionContext;

use crate::{Error, Result, store};

/// Prepares the session for the files of an external table; any other statement needs nothing.
///
/// # Errors
/// A configuration error for options, which could hold secrets, or a place that cannot be one.
pub(super) fn allow(session: &SessionContext, plan: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) = plan else { return Ok(()) };
    let secret = |key: &&String| {
        let key = key.to_lowercase();
        ["aws.", "gcp.", "azure.", "secret", "key_id", "token", "password"].iter().any(|part| key.contains(part))
    };
    if let Some(key) = table.options.keys().find(secret) {
        let problem = "credentials are taken from the environment as for a run, not from a statement";
        return Err(Error::config(format!("option {key}"), problem));
    }
    for location in &table.locations {
        if store::is_url(location) {
            store::bind_bucket(session, location)?;
        }
    }
    Ok(())
}
