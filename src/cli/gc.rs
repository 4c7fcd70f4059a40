//! `salmon gc`: what of a run nothing needs any more, and its removal.
//!
//! In: a run. Out: a line for every piece on stdout; with `--yes` the pieces are gone.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{lines, sql};
use crate::store::Store;
use crate::store::gc::{self, Ages, Plan, What};
use crate::{Error, Result};

/// List what of a run nothing needs any more; remove it with --yes.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// The run: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(long, default_value = "runs/main", value_name = "URL")]
    pub run: String,
    /// Remove what is listed
    #[arg(long)]
    pub yes: bool,
    /// Keep versions that were made within so many days, with all that they were made from
    #[arg(long, default_value_t = 7, value_name = "DAYS")]
    pub keep_days: u64,
    /// Leave alone what an attempt wrote within this time, e.g. 90s, 30m, 12h, 2d
    #[arg(long, default_value = "1d", value_name = "AGE", value_parser = lines::age)]
    pub older_than: Duration,
    /// How the list is written
    #[arg(long, value_enum, default_value_t = Listing::Table)]
    pub format: Listing,
}

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// Columns for people.
    Table,
    /// One JSON value.
    Json,
}

/// Runs the command.
///
/// # Errors
/// A store error for a place that holds no run, cannot be read, or does not let things be deleted.
pub async fn run(args: GcArgs) -> Result<()> {
    let store = Store::open_existing(&args.run).await?;
    let versions = Duration::from_secs(args.keep_days.saturating_mul(86_400));
    let ages = Ages { versions, others: args.older_than };
    if !args.yes {
        let plan = gc::plan(&store, &ages).await?;
        show(&plan, args.format)?;
        summary(&plan, "would free", "; --yes removes them");
        return Ok(());
    }
    let lease = gc::begin(&store).await?;
    let done = async {
        // Looked for under the lease: what a run needs that began before is seen, and later ones wait.
        let plan = gc::plan(&store, &ages).await?;
        let bar = lines::bar(plan.litter.len() as u64, "{spinner} removing  {bar:30} {pos}/{len}  {eta} left");
        for litter in &plan.litter {
            gc::clear(&store, &lease, litter).await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(plan)
    };
    let done: Result<Plan> = done.await;
    lease.release().await;
    let plan = done?;
    show(&plan, args.format)?;
    summary(&plan, "freed", "");
    Ok(())
}

fn show(plan: &Plan, format: Listing) -> Result<()> {
    if format == Listing::Json {
        let text = serde_json::to_string_pretty(&plan.litter).map_err(|e| Error::internal("gc", e))?;
        return sql::say(&format!("{text}\n"));
    }
    if plan.litter.is_empty() {
        return Ok(());
    }
    let row = |litter: &gc::Litter| {
        let size = if litter.what == What::Upload { "?".into() } else { lines::bytes(litter.bytes) };
        [litter.what.words(1).to_string(), size, litter.key.clone(), litter.why.clone()]
    };
    let rows: Vec<_> = plan.litter.iter().map(row).collect();
    sql::say(&lines::columns(["what", "bytes", "where", "why"], &rows))
}

/// Sums on stderr.
fn summary(plan: &Plan, verb: &str, end: &str) {
    let mut sums: BTreeMap<What, (usize, u64)> = BTreeMap::new();
    for litter in &plan.litter {
        let sum = sums.entry(litter.what).or_default();
        *sum = (sum.0 + 1, sum.1 + litter.bytes);
    }
    if sums.is_empty() {
        eprintln!("nothing to remove");
    } else {
        let total = sums.values().map(|(_, bytes)| bytes).sum();
        let each: Vec<String> = sums
            .iter()
            .map(|(what, (n, bytes))| format!("{n} {} ({})", what.words(*n), lines::bytes(*bytes)))
            .collect();
        eprintln!("{verb} {}: {}{end}", lines::bytes(total), each.join(", "));
    }
    if plan.young.0 > 0 {
        let (n, bytes) = plan.young;
        let words = What::Version.words(n);
        eprintln!(
            "kept {n} young {words} ({}) that no pointer leads to; --keep-days 0 removes such",
            lines::bytes(bytes)
        );
    }
    if let Some(problem) = &plan.unlisted {
        eprintln!("multipart uploads were not looked for: {problem}");
    }
    for problem in &plan.unreadable {
        eprintln!("no version was removed, for one cannot be read: {problem}");
    }
}
