//! `salmon init`: a folder to start from.
//!
//! In: a folder. Out: `salmon.toml` and `principles.toml` to change, and `prompts.parquet` so that the first
//! `salmon check` and `salmon run` work as they are.

use std::path::{Path, PathBuf};

use clap::Args;

use super::sql;
use crate::{Error, Result, world};

const CONFIG: &str = include_str!("../../recipes/starter.toml");
const PRINCIPLES: &str = include_str!("../../recipes/starter-principles.toml");
const PROMPTS: &str = "prompts.parquet";

/// Write a starter configuration, principles and prompts.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where to write them
    #[arg(default_value = ".", value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Overwrite files that are there
    #[arg(long)]
    pub force: bool,
}

/// Runs the command.
///
/// # Errors
/// A configuration error when a file is there and `--force` is not given, before anything is written; a store error
/// when the folder cannot be written.
pub fn run(args: &InitArgs) -> Result<()> {
    let folder = &args.folder;
    let files = ["salmon.toml", "principles.toml", PROMPTS].map(|name| folder.join(name));
    if let (Some(there), false) = (files.iter().find(|file| file.exists()), args.force) {
        return Err(Error::config(
            there.display(),
            "is there already; choose another folder, or overwrite with --force",
        ));
    }
    let bad = |path: &Path, e: std::io::Error| Error::store(path.display(), "cannot be written").because(e);
    std::fs::create_dir_all(folder).map_err(|e| bad(folder, e))?;
    let [config, principles, prompts] = &files;
    for (path, text) in [(config, CONFIG), (principles, PRINCIPLES)] {
        std::fs::write(path, text).map_err(|e| bad(path, e))?;
    }
    world::write_prompts(prompts)?;
    for file in &files {
        sql::say(&format!("{}\n", file.display()))?;
    }
    let config = config.display();
    eprintln!("next: `salmon check --config {config}`, then `salmon run --config {config}`");
    Ok(())
}
