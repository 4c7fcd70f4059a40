//! What a script and the shell understand beside SQL: lines that start with a backslash, as in psql.
//!
//! In: a script, or one command. Out: text on stdout, other settings, or the answers of the statements in between.

use std::fmt::Write;
use std::time::Instant;

use futures::FutureExt;

use super::output::say;
use super::query::Asker;
use super::settings::{Settings, with};
use super::{describe, read};
use crate::catalog::{nearest, text};
use crate::{Error, Result};

/// Every command: how it is written, and what it does.
pub(super) const COMMANDS: [(&str, &str); 17] = [
    ("\\d [NAME]", "tables and views, or the columns of one"),
    ("\\dv [NAME]", "views, or the columns and the text of one"),
    ("\\df [NAME]", "functions of salmon, or what one of any is for"),
    ("\\dm", "models that functions may name"),
    ("\\l", "runs"),
    ("\\timing [on|off]", "say how long every statement took"),
    ("\\x [on|off]", "one line per value in tables"),
    ("\\pager [on|off]", "show long tables with $PAGER"),
    ("\\maxrows N", "rows of a table at most; 0 for all"),
    ("\\modelrows N", "rows that model functions may see without a question; 0 for any number"),
    ("\\format NAME", "table, json, ndjson, csv, tsv or parquet"),
    ("\\o [FILE]", "write the rows of the next statement into a file; without one, show them again"),
    ("\\set [NAME VALUE]", "a value for $NAME in statements, or all values"),
    ("\\i FILE", "run the statements and commands of a file"),
    ("\\conninfo", "the same as \\l"),
    ("\\?", "this list"),
    ("\\q", "leave; so does ctrl-d"),
];

/// Whether the shell goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    Quit,
}

/// Runs statements and commands; the first error ends it.
///
/// # Errors
/// That error.
pub(super) async fn script(asker: &mut Asker, settings: &mut Settings, script: &str) -> Result<()> {
    let mut sql = String::new();
    for line in script.lines() {
        let command = line.trim_start().starts_with('\\');
        if command && text::pieces(&sql).is_ok_and(|pieces| pieces.is_empty()) {
            if run(asker, settings, line.trim()).await? == Next::Quit {
                return Ok(());
            }
            continue;
        }
        sql += line;
        sql.push('\n');
        if line.contains(';')
            && let Some(end) = text::complete(&sql)
        {
            statements(asker, settings, &sql[..end]).await?;
            sql.drain(..end);
        }
    }
    statements(asker, settings, &sql).await
}

/// Answers every statement of a text.
///
/// # Errors
/// That of the first statement that fails.
pub(super) async fn statements(asker: &Asker, settings: &mut Settings, sql: &str) -> Result<()> {
    for statement in text::statements(sql)? {
        let began = Instant::now();
        settings.take_output()?;
        let written = asker.ask(statement, settings).await?;
        settings.taken |= written.asked;
        if written.more {
            eprintln!("the first {} rows; --max-rows 0 or \\maxrows 0 shows all", written.rows);
        } else if settings.interactive && written.asked {
            eprintln!("({} row{})", written.rows, if written.rows == 1 { "" } else { "s" });
        }
        if settings.timing {
            eprintln!("Time: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(())
}

/// Runs one command, with its backslash.
///
/// # Errors
/// A query error for a command that is none, or one that lacks something.
pub(super) async fn run(asker: &mut Asker, settings: &mut Settings, line: &str) -> Result<Next> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (name, rest) = (name.trim_end_matches(';'), rest.trim().trim_end_matches(';').trim_end());
    let wanted = |what: &str| Error::query(name, format!("is written {name} {what}"));
    match name {
        "\\q" | "\\quit" => return Ok(Next::Quit),
        "\\?" | "\\h" | "\\help" => say(&help())?,
        "\\d" | "\\dt" | "\\dt+" | "\\d+" => describe::tables(asker, settings, rest).await?,
        "\\dv" | "\\dv+" => describe::views(asker, settings, rest).await?,
        "\\df" => describe::functions(asker, settings, rest)?,
        "\\dm" => describe::models(asker, settings).await?,
        "\\l" | "\\conninfo" => describe::runs(asker)?,
        "\\modelrows" => settings.model_rows = rest.parse().map_err(|_| wanted("N, a whole number"))?,
        "\\timing" => settings.timing = flag(rest, settings.timing).ok_or_else(|| wanted("[on|off]"))?,
        "\\x" => settings.look.expanded = flag(rest, settings.look.expanded).ok_or_else(|| wanted("[on|off]"))?,
        "\\pager" => settings.pager = flag(rest, settings.pager).ok_or_else(|| wanted("[on|off]"))?,
        "\\maxrows" => settings.look.max_rows = rest.parse().map_err(|_| wanted("N, a whole number"))?,
        "\\format" => {
            settings.format = clap::ValueEnum::from_str(rest, true)
                .map_err(|_| wanted("table, json, ndjson, csv, tsv or parquet"))?;
        }
        "\\o" => settings.set_output((!rest.is_empty()).then(|| rest.into())),
        "\\set" if rest.is_empty() => say(&settings.params.to_string())?,
        "\\set" => {
            let (param, value) = rest.split_once(char::is_whitespace).ok_or_else(|| wanted("NAME VALUE"))?;
            let params = with(settings.params.clone(), param, value.trim());
            settings.params = params.ok_or_else(|| wanted("NAME VALUE, a name of letters, digits and _"))?;
        }
        "\\i" if rest.is_empty() => return Err(wanted("FILE")),
        "\\i" => {
            let text = read(rest.as_ref())?;
            // A file may run another one.
            script(asker, settings, &text).boxed_local().await?;
        }
        _ => {
            let names = COMMANDS.iter().map(|(written, _)| written.split(' ').next().unwrap_or(written));
            let near = nearest(name, names).map(|near| format!("did you mean {near}? ")).unwrap_or_default();
            return Err(Error::query(name, format!("is no command; {near}\\? lists them")));
        }
    }
    Ok(Next::Go)
}

/// `on`, `off`, or the other one of what it is.
fn flag(text: &str, is: bool) -> Option<bool> {
    match text {
        "" => Some(!is),
        "on" | "true" => Some(true),
        "off" | "false" => Some(false),
        _ => None,
    }
}

fn help() -> String {
    let width = COMMANDS.iter().map(|(written, _)| written.len()).max().unwrap_or(0);
    let mut text = String::from("A statement ends with a semicolon. Beside SQL there are:\n");
    for (written, does) in COMMANDS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {written:width$}  {does}");
    }
    text
}
