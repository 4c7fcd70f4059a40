//! What the Tab key offers.
//!
//! In: the word before the cursor. Out: commands after a backslash, models after a quote, parameters after a `$`, else
//! keywords, tables, columns and functions.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::commands::COMMANDS;
use super::describe::schemas;
use super::query::Asker;
use super::settings::Settings;
use crate::table;

const KEYWORDS: &[&str] = &[
    "select",
    "distinct",
    "from",
    "join",
    "left join",
    "cross join",
    "on",
    "where",
    "group by",
    "having",
    "order by",
    "limit",
    "union all",
    "with",
    "as",
    "as of",
    "case",
    "when",
    "then",
    "else",
    "end",
    "and",
    "or",
    "not",
    "in",
    "is null",
    "is not null",
    "between",
    "like",
    "cast",
    "explain",
    "explain analyze",
    "create external table",
    "create view",
    "stored as",
    "location",
    "over",
    "partition by",
    "asc",
    "desc",
    "nulls last",
    "true",
    "false",
    "null",
];

/// Names that may be offered.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Keywords, tables, columns, functions.
    words: BTreeSet<String>,
    pub(super) models: Vec<String>,
    params: Vec<String>,
}

impl Names {
    /// What the session knows now, without asking the store.
    pub(super) fn refresh(&mut self, asker: &Asker, settings: &Settings) {
        let state = asker.session.state();
        let mut words: BTreeSet<String> = KEYWORDS.iter().map(|word| word.to_string()).collect();
        for (schema, provider) in schemas(asker) {
            for table in provider.table_names() {
                words.insert(format!("{schema}.{table}"));
                words.insert(table);
            }
            words.insert(schema + ".");
        }
        words.extend(table::all().iter().flat_map(|table| &table.columns).map(|column| column.name.to_string()));
        let functions = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
        words.extend(functions.chain(state.window_functions().keys()).map(|name| format!("{name}(")));
        self.words = words;
        self.params = settings.params.names().map(str::to_string).collect();
    }
}

/// Completes words for the line editor.
pub(super) struct Words(pub(super) Arc<RwLock<Names>>);

impl Helper for Words {}
impl Highlighter for Words {}
impl Validator for Words {}

impl Hinter for Words {
    type Hint = String;
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..at).unwrap_or(line);
        let part = |c: char| c.is_alphanumeric() || "_.@:-".contains(c);
        let start = before.char_indices().rev().find(|(_, c)| !part(*c)).map_or(0, |(i, c)| i + c.len_utf8());
        let word = before.get(start..).unwrap_or_default();
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let fits = |name: &str| name.to_lowercase().starts_with(&word.to_lowercase());
        let found: Vec<String> = match before.get(..start).and_then(|rest| rest.chars().next_back()) {
            Some('\\') if before.trim_start().starts_with('\\') => {
                let commands = COMMANDS.iter().filter_map(|(written, _)| written.split(' ').next()?.strip_prefix('\\'));
                commands.filter(|name| name.starts_with(word)).map(str::to_string).collect()
            }
            Some('\'') => names.models.iter().filter(|name| fits(name)).map(|name| format!("{name}'")).collect(),
            Some('$') => names.params.iter().filter(|name| fits(name)).cloned().collect(),
            _ if word.is_empty() => Vec::new(),
            _ => names.words.iter().filter(|name| fits(name)).cloned().collect(),
        };
        Ok((start, found))
    }
}
