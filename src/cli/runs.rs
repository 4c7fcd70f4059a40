//! `salmon runs`: the history of a run, and what a table or model was made from.
//!
//! In: the records and manifests of a run. Out: rows on stdout, or a tree.

use std::collections::BTreeSet;

use clap::Args;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::sql::{self, Format};
use crate::store::{Artifact, Current, Kind, Manifest, Store, Version, short};
use crate::{Error, Result};

const SQL: &str = include_str!("../../sql/runs.sql");

/// Show what was run, or what a table or model was made from.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// The run: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(long, default_value = "runs/main", value_name = "URL")]
    pub run: String,
    /// Instead of the history: the tree from this table or model back to its inputs
    #[arg(long, value_name = "NAME", conflicts_with = "format")]
    pub lineage: Option<String>,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// Runs the command.
///
/// # Errors
/// A store error for a place that holds no run; a configuration error for a name that the run does not have.
pub async fn run(args: RunsArgs) -> Result<()> {
    match &args.lineage {
        None => sql::answer(&sql::session(&args.run).await?, SQL, args.format).await,
        Some(name) => sql::say(&lineage(&Store::open_existing(&args.run).await?, name).await?),
    }
}

/// The trees of every current version of that name.
async fn lineage(store: &Store, name: &str) -> Result<String> {
    let current = Current::load(store).await?;
    let mut roots = Vec::new();
    for artifact in [Artifact::table(name), Artifact::model(name)] {
        roots.extend(current.manifests(store, &artifact).await?);
    }
    if roots.is_empty() {
        let known: BTreeSet<&str> = current.all().map(|(artifact, _, _)| artifact.name.as_str()).collect();
        let known = Vec::from_iter(known).join(", ");
        return Err(Error::config("--lineage", format!("{store} has no `{name}`; it has {known}")));
    }
    let mut tree = Tree { store, text: String::new(), seen: BTreeSet::new() };
    for root in roots {
        tree.add(root, String::new(), String::new()).await?;
    }
    Ok(tree.text)
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
            let lineage = &manifest.lineage;
            let tables = lineage.inputs.iter().map(|(name, print)| (Kind::Table, name, print));
            let models = lineage.models.iter().map(|(name, print)| (Kind::Model, name, print));
            let inputs: Vec<_> = tables.chain(models).collect();
            for (i, (kind, name, print)) in inputs.iter().enumerate() {
                let last = i + 1 == inputs.len();
                let head = format!("{indent}{}", if last { "└─ " } else { "├─ " });
                let below = format!("{indent}{}", if last { "   " } else { "│  " });
                // `metrics/sft` is what stage sft made of a table that several stages make.
                let bare = name.split('/').next().unwrap_or(name);
                let version = Version::new(Artifact { kind: *kind, name: bare.into() }, print.as_str())?;
                match Manifest::read(self.store, &version).await? {
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
    let files: Vec<String> = manifest
        .lineage
        .parameters
        .get("files")
        .and_then(serde_json::Value::as_array)
        .map(|hashes| hashes.iter().filter_map(|hash| Some(format!("file {}", short(hash.as_str()?)))).collect())
        .unwrap_or_default();
    let files = if files.is_empty() { String::new() } else { format!("; {}", files.join(", ")) };
    format!(
        "{version} ({rows}stage {}, {:.1}s, {}{files})",
        manifest.lineage.stage, manifest.info.seconds, manifest.info.started
    )
}
