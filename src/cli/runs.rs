//! `salmon runs`: the history of a run, what it cost, and what a table or model was made from.
//!
//! In: the records and manifests of a run. Out: rows on stdout, a tree, or a graph.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::sql::{self, Format};
use crate::store::{self, Artifact, Current, Kind, Manifest, Store, Version, short};
use crate::{Error, Result, audit, catalog};

const SQL: &str = include_str!("../../sql/runs.sql");
const COST: &str = include_str!("../../sql/runs_cost.sql");

/// Show what was run, what it cost, or what a table or model was made from.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// The run: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(long, default_value = "runs/main", value_name = "URL")]
    pub run: String,
    /// Instead of the history: the tree from this table or model back to its inputs; NAME@FINGERPRINT for a version
    /// that is not current (the first characters are enough)
    #[arg(long, value_name = "NAME", conflicts_with = "cost")]
    pub lineage: Option<String>,
    /// Instead of the history: time, rows and sampled tokens of each stage
    #[arg(long)]
    pub cost: bool,
    /// How the answer is written; a lineage is a tree, JSON or a graph for Graphviz (dot)
    #[arg(long, value_enum, default_value_t = Shape::Table)]
    pub format: Shape,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Columns, or a tree, for people.
    Table,
    /// JSON.
    Json,
    /// Comma-separated, with a header; for rows.
    Csv,
    /// Graphviz' language; for a lineage.
    Dot,
}

/// Runs the command.
///
/// # Errors
/// A store error for a place that holds no run; a configuration error for a name that the run does not have.
pub async fn run(args: RunsArgs) -> Result<()> {
    let Some(name) = &args.lineage else {
        let format = match args.format {
            Shape::Table => Format::Table,
            Shape::Json => Format::Json,
            Shape::Csv => Format::Csv,
            Shape::Dot => {
                return Err(Error::config("--format dot", "is for a graph; name a table or model with --lineage"));
            }
        };
        let statement = if args.cost { COST } else { SQL };
        return sql::answer(&catalog::session(&args.run).await?, statement, format).await;
    };
    if args.format == Shape::Csv {
        return Err(Error::config("--format csv", "is for rows; a lineage is written as table, json or dot"));
    }
    let store = Store::open_existing(&args.run).await?;
    let roots = roots(&store, name).await?;
    match args.format {
        Shape::Table => {
            let mut tree = Tree { store: &store, text: String::new(), seen: BTreeSet::new() };
            for root in roots {
                tree.add(root, String::new(), String::new()).await?;
            }
            sql::say(&tree.text)
        }
        Shape::Dot => sql::say(&audit::dot(&audit::ancestry(&store, &roots).await?)),
        _ => {
            let nodes = audit::ancestry(&store, &roots).await?;
            let text = serde_json::to_string_pretty(&nodes).map_err(|e| Error::internal("lineage", e))?;
            sql::say(&format!("{text}\n"))
        }
    }
}

/// The versions that a name means: the current ones, or one by its fingerprint.
async fn roots(store: &Store, name: &str) -> Result<Vec<Manifest>> {
    let mut roots = Vec::new();
    if let Some((bare, print)) = name.split_once('@') {
        let mut found: Vec<Version> = store::versions(store).await?;
        found.retain(|v| v.artifact().name == bare && v.fingerprint().starts_with(print));
        let prints: BTreeSet<&str> = found.iter().map(Version::fingerprint).collect();
        if prints.len() > 1 {
            let prints = Vec::from_iter(prints).join(", ");
            return Err(Error::config("--lineage", format!("`{name}` is any of {prints}; give more of it")));
        }
        for version in &found {
            roots.extend(Manifest::read(store, version).await?);
        }
        if roots.is_empty() {
            let problem = format!("{store} has no version {print} of `{bare}`; `salmon runs` lists those it made");
            return Err(Error::config("--lineage", problem));
        }
        return Ok(roots);
    }
    let current = Current::load(store).await?;
    for artifact in [Artifact::table(name), Artifact::model(name)] {
        roots.extend(current.manifests(store, &artifact).await?);
    }
    if roots.is_empty() {
        let known: BTreeSet<&str> = current.all().map(|(artifact, _, _)| artifact.name.as_str()).collect();
        let known = Vec::from_iter(known).join(", ");
        return Err(Error::config("--lineage", format!("{store} has no `{name}`; it has {known}")));
    }
    Ok(roots)
}

struct Tree<'a> {
    store: &'a Store,
    text: String,
    /// Versions whose inputs were shown already.
    seen: BTreeSet<String>,
}

impl Tree<'_> {
    /// Adds a version and, below it, its inputs; `head` stands before its line, `indent` before those below.
    fn add(&mut self, manifest: Manifest, head: String, indent: String) -> BoxFuture<'_, Result<()>> {
        async move {
            let version = manifest.version()?;
            let again = !self.seen.insert(version.prefix());
            self.text += &format!("{head}{}\n", line(&manifest, &version, again));
            if again {
                return Ok(());
            }
            let inputs = manifest.lineage.versions();
            for (i, version) in inputs.iter().enumerate() {
                let last = i + 1 == inputs.len();
                let head = format!("{indent}{}", if last { "└─ " } else { "├─ " });
                let below = format!("{indent}{}", if last { "   " } else { "│  " });
                match Manifest::read(self.store, version).await? {
                    Some(input) => self.add(input, head, below).await?,
                    // A file or a base model from outside: its hash is all there is.
                    None => self.text += &format!("{head}{version} (from outside the run)\n"),
                }
            }
            Ok(())
        }
        .boxed()
    }
}

fn line(manifest: &Manifest, version: &Version, again: bool) -> String {
    if again {
        return format!("{version} (above)");
    }
    let rows = match version.artifact().kind {
        Kind::Table => format!("{} rows, ", manifest.rows()),
        Kind::Model => String::new(),
    };
    let mut more: Vec<String> =
        audit::files(&manifest.lineage).iter().map(|hash| format!("file {}", short(hash))).collect();
    let principles = audit::principles(&manifest.lineage);
    match principles.len() {
        0 => {}
        1..=3 => more.push(format!("principles {}", principles.join(", "))),
        n => more.push(format!("{n} principles")),
    }
    more.extend(manifest.lineage.templates.keys().map(|name| format!("template {name}")));
    let more = if more.is_empty() { String::new() } else { format!("; {}", more.join(", ")) };
    format!(
        "{version} ({rows}stage {}, {:.1}s, {}{more})",
        manifest.lineage.stage, manifest.info.seconds, manifest.info.started
    )
}
