//! A run as one HTML page: figures, plots and sample answers, in a file that needs nothing else.
//!
//! ```text
//! sql/report/*.sql ─> facts (rows as JSON) ─┬─> plot: inline SVG ─┐
//! config.toml of the run ───────────────────┘                     ├─> page.jinja ─> HTML
//!                         rows ───────────────────────────────────┘
//! ```
//! In: a session over the run's tables, and the run's configuration. Out: the page. Everything that comes from the
//! run is escaped; a section without data says so.

mod facts;
mod plot;
mod view;

use datafusion::prelude::SessionContext;
use minijinja::{AutoEscape, Environment};

use crate::config::Config;
use crate::{Error, Result};
use facts::Facts;

const PAGE: &str = include_str!("page.jinja");

/// The page of a run; `url` is what it is called, `config` what it was made with, where that is known.
///
/// # Errors
/// A query or store error when the run's tables cannot be read.
pub async fn page(ctx: &SessionContext, url: &str, config: Option<&Config>) -> Result<String> {
    let facts = Facts::gather(ctx).await?;
    let bad = |e: minijinja::Error| Error::internal("report", "the page cannot be rendered").because(e);
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.add_template("page", PAGE).map_err(bad)?;
    let view = view::view(&facts, url, config)?;
    environment.get_template("page").and_then(|page| page.render(view)).map_err(bad)
}
