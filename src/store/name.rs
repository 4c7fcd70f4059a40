//! What a run is made of: tables and models, and the place of each version of them.
//!
//! In: a kind, a name and a fingerprint. Out: keys like `tables/prompts/3f2a.../manifest.json`. Names are checked
//! here, once, so that no name can leave the run's folder.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest name, in bytes; some file systems allow 255 with a suffix.
const LONGEST_NAME: usize = 120;

/// Whether something is rows or a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Parquet parts of one of the tables in [`crate::table`].
    Table,
    /// The files of a model folder.
    Model,
}

impl Kind {
    /// The folder of this kind in a run.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Kind::Table => "tables",
            Kind::Model => "models",
        }
    }
}

/// A table or model of a run, whichever version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Artifact {
    /// Rows or a model.
    pub kind: Kind,
    /// Its name, for a table the one in SQL.
    pub name: String,
}

impl Artifact {
    /// The table of that name.
    pub fn table(name: impl Into<String>) -> Self {
        Artifact { kind: Kind::Table, name: name.into() }
    }

    /// The model of that name.
    pub fn model(name: impl Into<String>) -> Self {
        Artifact { kind: Kind::Model, name: name.into() }
    }
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Table => write!(f, "table {}", self.name),
            Kind::Model => write!(f, "model {}", self.name),
        }
    }
}

/// One version of a table or model: what it was made from decides its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    artifact: Artifact,
    fingerprint: String,
}

impl Version {
    /// The version of `artifact` with that fingerprint.
    ///
    /// # Errors
    /// A configuration error when the name could not be a file name everywhere, see [`check_name`].
    pub fn new(artifact: Artifact, fingerprint: impl Into<String>) -> Result<Self> {
        let fingerprint = fingerprint.into();
        check_name("name", &artifact.name)?;
        check_name("fingerprint", &fingerprint)?;
        Ok(Version { artifact, fingerprint })
    }

    /// The table or model it is a version of.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// What it was made from, hashed.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Where its files are: `tables/<name>/<fingerprint>`.
    pub fn prefix(&self) -> String {
        format!("{}/{}/{}", self.artifact.kind.folder(), self.artifact.name, self.fingerprint)
    }

    /// The key of one of its files.
    pub fn key(&self, file: &str) -> String {
        format!("{}/{file}", self.prefix())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.artifact, super::short(&self.fingerprint))
    }
}

/// Accepts letters and digits of any script, `_`, `-`, `.`, `:` and single spaces inside, up to 120 bytes, not
/// starting with a dot.
///
/// # Errors
/// A configuration error that names the name and what is wrong with it; `what` says what kind of name it is.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let refuse = |why: &str| Err(Error::config(format!("{what} {name:?}"), why));
    if name.is_empty() {
        return refuse("is empty; give it a name");
    }
    if name.len() > LONGEST_NAME {
        return refuse("is longer than 120 bytes; shorten it");
    }
    if name.starts_with('.') {
        return refuse("starts with a dot; start it with a letter or digit");
    }
    if name.starts_with(' ') || name.ends_with(' ') || name.contains("  ") {
        return refuse("has a space at its start or end, or two in a row; remove it");
    }
    match name.chars().find(|c| !(c.is_alphanumeric() || "_-.: ".contains(*c))) {
        Some(bad) => refuse(&format!("holds {bad:?}; use letters, digits, '_', '-', '.', ':' and spaces")),
        None => Ok(()),
    }
}
