//! The interactive shell.
//!
//! In: lines from a terminal. Out: the answers of statements and commands. A statement may take several lines and is one
//! entry of the history, which is kept in a file; an error ends the statement and not the shell.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Editor};

use super::commands::{self, Next};
use super::complete::{Names, Words};
use super::query::Asker;
use super::settings::Settings;
use crate::catalog::text;
use crate::{Error, Result};

/// Entries of the history that are kept.
const HISTORY: usize = 10_000;

/// Reads and answers until somebody leaves; `rc` says whether to read the user's file of commands first.
///
/// # Errors
/// Where the terminal cannot be read.
pub(super) async fn run(mut asker: Asker, mut settings: Settings, rc: bool) -> Result<()> {
    settings.interactive = true;
    let names = Arc::new(RwLock::new(Names::default()));
    let mut editor: Editor<Words, DefaultHistory> = Editor::new().map_err(unreadable)?;
    editor.set_completion_type(CompletionType::List);
    editor.set_max_history_size(HISTORY).map_err(unreadable)?;
    editor.set_helper(Some(Words(Arc::clone(&names))));
    let history = history();
    if let Some(path) = &history {
        // The first time there is none.
        let _ = editor.load_history(path);
    }
    if let Some(path) = settings_file("sqlrc").filter(|path| rc && path.exists())
        && let Err(error) = commands::script(&mut asker, &mut settings, &super::read(&path)?).await
    {
        eprintln!("salmon: {}: {error}", path.display());
    }
    // A run's models are looked up while the first line is typed.
    let (catalog, known) = (asker.catalog.clone(), Arc::clone(&names));
    tokio::spawn(async move {
        if let Ok(models) = catalog.models().await {
            known.write().unwrap_or_else(PoisonError::into_inner).models = models;
        }
    });
    let runs: Vec<String> = asker.catalog.runs().map(|(_, store)| store.to_string()).collect();
    eprintln!(
        "salmon {}: {}; \\? shows the commands, \\d the tables, \\q leaves",
        env!("CARGO_PKG_VERSION"),
        runs.join(", ")
    );
    let mut sql = String::new();
    loop {
        names.write().unwrap_or_else(PoisonError::into_inner).refresh(&asker, &settings);
        match editor.readline(if sql.is_empty() { "salmon=> " } else { "salmon-> " }) {
            Ok(line) if sql.is_empty() && line.trim_start().starts_with('\\') => {
                let _ = editor.add_history_entry(line.trim());
                match commands::run(&mut asker, &mut settings, line.trim()).await {
                    Ok(Next::Quit) => break,
                    Ok(Next::Go) => {}
                    Err(error) => eprintln!("salmon: {error}"),
                }
            }
            Ok(line) => {
                sql += &line;
                sql.push('\n');
                if text::pieces(&sql).is_ok_and(|pieces| pieces.is_empty()) {
                    sql.clear();
                }
                // What is behind the last semicolon is the start of the next statement.
                let Some(end) = text::complete(&sql) else { continue };
                let _ = editor.add_history_entry(sql[..end].trim());
                if let Err(error) = commands::statements(&asker, &mut settings, &sql[..end]).await {
                    eprintln!("salmon: {error}");
                }
                sql = sql[end..].trim_start().to_string();
            }
            Err(ReadlineError::Interrupted) => sql.clear(),
            Err(ReadlineError::Eof) => break,
            Err(e) => return Err(unreadable(e)),
        }
        save(&mut editor, history.as_ref());
    }
    save(&mut editor, history.as_ref());
    Ok(())
}

fn unreadable(e: ReadlineError) -> Error {
    Error::internal("shell", "the terminal cannot be read").because(e)
}

/// Keeps the history; a shell whose home cannot be written goes on without.
fn save(editor: &mut Editor<Words, DefaultHistory>, path: Option<&PathBuf>) {
    let Some(path) = path else { return };
    if let Some(folder) = path.parent() {
        let _ = std::fs::create_dir_all(folder);
    }
    if let Err(e) = editor.append_history(path) {
        tracing::debug!("the history cannot be kept: {e}");
    }
}

/// `$XDG_STATE_HOME/salmon/sql_history`, or `.local/state/salmon/sql_history` in the home folder.
fn history() -> Option<PathBuf> {
    home("XDG_STATE_HOME", ".local/state").map(|folder| folder.join("sql_history"))
}

/// A file of `$XDG_CONFIG_HOME/salmon`, or of `.config/salmon` in the home folder.
fn settings_file(name: &str) -> Option<PathBuf> {
    home("XDG_CONFIG_HOME", ".config").map(|folder| folder.join(name))
}

fn home(variable: &str, otherwise: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set(variable).or_else(|| set("HOME").map(|home| home.join(otherwise)))?;
    Some(base.join("salmon"))
}
