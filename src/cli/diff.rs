//! `salmon diff`: how two runs differ.
//!
//! In: two runs. Out: stages, principles, rows, models and figures that are not the same, on stdout.

use clap::Args;

use super::gc::Listing;
use super::{lines, sql};
use crate::audit::{self, Difference, Figure};
use crate::store::Store;
use crate::{Error, Result};

/// The longest value of a changed row that is shown in full.
const LONGEST: usize = 60;

/// Compare two runs: what they are made from, and what came of it.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The first run: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(value_name = "RUN")]
    pub before: String,
    /// The second run
    #[arg(value_name = "RUN")]
    pub after: String,
    /// Show so many changed rows of each table
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub rows: usize,
    /// How differences are written
    #[arg(long, value_enum, default_value_t = Listing::Table)]
    pub format: Listing,
}

/// Runs the command.
///
/// # Errors
/// A store error for a place that holds no run or cannot be read.
pub async fn run(args: DiffArgs) -> Result<()> {
    let (before, after) = (Store::open_existing(&args.before).await?, Store::open_existing(&args.after).await?);
    let found = audit::diff(&before, &after, args.rows).await?;
    if args.format == Listing::Json {
        let text = serde_json::to_string_pretty(&found).map_err(|e| Error::internal("diff", e))?;
        return sql::say(&format!("{text}\n"));
    }
    sql::say(&page(&found))
}

fn page(found: &Difference) -> String {
    if found.is_empty() {
        return "no difference\n".into();
    }
    let mut text = String::new();
    let mut section = |title: &str, body: String| {
        if !body.is_empty() {
            let gap = if text.is_empty() { "" } else { "\n" };
            text += &format!("{gap}{title}\n{body}");
        }
    };
    section("cannot be read", found.unreadable.iter().map(|line| format!("  {line}\n")).collect());
    section("stages", found.stages.iter().map(|s| format!("  {}: {}\n", s.stage, s.why)).collect());
    let principle = |p: &audit::PrincipleChange| {
        let mut lines = format!("  {} {}\n", p.name, p.change);
        for (sign, words, other) in [
            ("-", &p.before, &p.after),
            ("+", &p.after, &p.before),
            ("- not:", &p.negative_before, &p.negative_after),
            ("+ not:", &p.negative_after, &p.negative_before),
        ] {
            if words != other && !words.is_empty() {
                lines += &format!("    {sign} {words}\n");
            }
        }
        lines
    };
    section("principles", found.principles.iter().map(principle).collect());
    let number = |n: i64| n.to_string();
    let rows: Vec<_> = found
        .tables
        .iter()
        .map(|t| {
            [t.table.clone(), number(t.before), number(t.after), number(t.added), number(t.removed), number(t.changed)]
        })
        .collect();
    if !rows.is_empty() {
        section("rows", lines::columns(["table", "first", "second", "added", "removed", "changed"], &rows));
    }
    // The rows of the others are shown side by side anyway.
    let shown = |table: &&audit::TableChange| !["principles", "metrics", "evaluations"].contains(&table.table.as_str());
    for table in found.tables.iter().filter(shown).filter(|table| !table.sample.is_empty()) {
        let mut body = String::new();
        for row in &table.sample {
            let key: Vec<String> = row.key.iter().map(|(name, value)| format!("{name} {}", short(value))).collect();
            body += &format!("  {}\n", key.join(", "));
            for (column, (before, after)) in &row.columns {
                body += &format!("    {column}: {} -> {}\n", short(before), short(after));
            }
        }
        section(&format!("{} of {} changed rows of {}", table.sample.len(), table.changed, table.table), body);
    }
    section("models with other files", found.models.iter().map(|name| format!("  {name}\n")).collect());
    for (title, figures) in [("metrics, last values", &found.metrics), ("evaluations", &found.evaluations)] {
        if !figures.is_empty() {
            let rows: Vec<_> = figures.iter().map(figure).collect();
            section(title, lines::columns(["of", "figure", "first", "second", "difference"], &rows));
        }
    }
    text
}

fn figure(figure: &Figure) -> [String; 5] {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_string(), plain);
    let delta = figure.before.zip(figure.after).map(|(before, after)| {
        let text = plain(after - before);
        if text.starts_with('-') { text } else { format!("+{text}") }
    });
    [figure.what.clone(), figure.name.clone(), number(figure.before), number(figure.after), delta.unwrap_or_default()]
}

/// Four places, or two that count for what is smaller.
fn plain(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.001 { format!("{value:.1e}") } else { format!("{value:.4}") }
}

/// A value on one line.
fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
