//! What the commands of the shell change.

use std::path::PathBuf;

use super::SqlArgs;
use super::output::{Format, Look};
use crate::query::Params;
use crate::{Error, Result};

/// How statements are answered from here on.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) format: Format,
    pub(super) look: Look,
    pub(super) timing: bool,
    /// Whether somebody sits at a terminal and can be told and asked things.
    pub(super) interactive: bool,
    /// Rows that a model function may see without being asked about; 0 for any number.
    pub(super) model_rows: u64,
    pub(super) pager: bool,
    /// Where rows go instead of standard output.
    pub(super) output: Option<PathBuf>,
    /// Whether it holds rows already.
    pub(super) taken: bool,
    pub(super) params: Params,
}

impl Settings {
    pub(super) fn new(args: &SqlArgs) -> Result<Self> {
        let mut params = Params::new();
        for param in &args.params {
            let bad =
                || Error::config(format!("--param {param}"), "must be NAME=VALUE, a name of letters, digits and _");
            let (name, value) = param.split_once('=').ok_or_else(bad)?;
            params = with(params, name, value).ok_or_else(bad)?;
        }
        Ok(Settings {
            format: args.format,
            look: Look { max_rows: args.max_rows, expanded: false },
            timing: false,
            interactive: false,
            model_rows: args.model_rows,
            pager: true,
            output: args.output.clone(),
            taken: false,
            params,
        })
    }

    /// Sends rows to a file from here on, or back to standard output.
    pub(super) fn set_output(&mut self, path: Option<PathBuf>) {
        (self.output, self.taken) = (path, false);
    }

    /// Keeps a statement from writing over the rows of another.
    pub(super) fn take_output(&mut self) -> Result<()> {
        match (&self.output, self.taken) {
            (Some(path), true) => {
                let problem = "holds the rows of an earlier statement; name another file with \\o FILE before this one";
                Err(Error::config(path.display(), problem))
            }
            _ => Ok(()),
        }
    }
}

/// The parameters with one more; `None` for a name that cannot be one.
pub(super) fn with(params: Params, name: &str, value: &str) -> Option<Params> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    Some(match (value.parse::<i64>(), value.parse::<f64>(), value.parse::<bool>()) {
        (Ok(whole), _, _) => params.with(name, whole),
        (_, Ok(real), _) if real.is_finite() => params.with(name, real),
        (_, _, Ok(flag)) => params.with(name, flag),
        _ => params.with(name, value),
    })
}
