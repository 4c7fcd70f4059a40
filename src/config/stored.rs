//! The configuration as a run keeps it: effective values, absolute paths, TOML.
//!
//! In: a checked [`Config`] and the folder its relative paths start in. Out: text that parses to the same settings
//! wherever it is read on this machine.

use std::path::Path;

use super::Config;
use crate::principle::Library;
use crate::{Error, Result};

impl Config {
    /// The same with every relative path made absolute; relative ones start in `folder`.
    ///
    /// # Errors
    /// A configuration error when the working directory is gone.
    pub fn anchored(mut self, folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder)
            .map_err(|e| Error::config(folder.display(), "cannot be made an absolute path").because(e))?;
        let anchor = |path: &mut String| {
            if !path.contains("://") {
                *path = folder.join(&path).display().to_string();
            }
        };
        let built_in = Library::built_in();
        self.data.prompts.iter_mut().chain(&mut self.data.human_preferences).for_each(anchor);
        self.principles.files.iter_mut().filter(|file| !built_in.contains(&file.as_str())).for_each(anchor);
        self.templates.folder.iter_mut().for_each(anchor);
        if !["pocket", "pretrain"].contains(&self.model.base.as_str()) {
            anchor(&mut self.model.base);
        }
        Ok(self)
    }

    /// Every key with its value, defaults included, as TOML.
    ///
    /// # Errors
    /// A configuration error for a number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String> {
        let bad = |e: toml::ser::Error| Error::config("configuration", "cannot be written as TOML").because(e);
        // Through a value, which puts plain keys before sections.
        let tree = toml::Value::try_from(self).map_err(bad)?;
        toml::to_string(&tree).map_err(bad)
    }
}
