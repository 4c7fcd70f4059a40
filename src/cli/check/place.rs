//! Where a key stands in `salmon.toml`.
//!
//! In: the file's text. Out: `file:line: key`, or the `--set` that gave the value.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{Error, Result};

/// The lines of a configuration's keys.
pub(super) struct Places {
    file: String,
    text: String,
    overrides: Vec<String>,
}

impl Places {
    /// Of a file that parses.
    pub(super) fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|e| Error::config(path.display(), "cannot be read").because(e))?;
        Ok(Places { file: path.display().to_string(), text, overrides: overrides.to_vec() })
    }

    /// The place of a dotted key; a number is a position in a list, as in `policies.0.principles`.
    pub(super) fn of(&self, key: &str) -> String {
        for set in &self.overrides {
            let name = set.split('=').next().unwrap_or(set).trim();
            if key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')) {
                return format!("--set {name}: {key}");
            }
        }
        match self.line(key) {
            Some(line) => format!("{}:{line}: {key}", self.file),
            None => format!("{}: {key}", self.file),
        }
    }

    fn line(&self, key: &str) -> Option<usize> {
        let root = DeTable::parse(&self.text).ok()?;
        let mut table = root.get_ref();
        let mut list: Option<&[Spanned<DeValue<'_>>]> = None;
        let mut start = None;
        for part in key.split('.') {
            let value = match list.take() {
                Some(items) => {
                    let item = items.get(part.parse::<usize>().ok()?)?;
                    start = Some(item.span().start);
                    item.get_ref()
                }
                None => {
                    let (found, value) = table.iter().find(|(name, _)| name.get_ref() == part)?;
                    start = Some(found.span().start);
                    value.get_ref()
                }
            };
            match value {
                DeValue::Table(inner) => table = inner,
                DeValue::Array(items) => list = Some(items),
                _ => {}
            }
        }
        start.map(|start| self.text.get(..start).unwrap_or_default().matches('\n').count() + 1)
    }
}
