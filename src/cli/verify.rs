//! `salmon verify`: whether a run is what its manifests say.
//!
//! In: a run. Out: a line for every problem on stdout; exit code 5 when there is one.

use clap::Args;

use super::gc::Listing;
use super::{lines, sql};
use crate::audit;
use crate::store::Store;
use crate::{Error, Result};

/// Read everything a run has and compare it with what its manifests say.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The run: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(long, default_value = "runs/main", value_name = "URL")]
    pub run: String,
    /// Look at every version, not only at the current ones
    #[arg(long)]
    pub all: bool,
    /// How problems are written
    #[arg(long, value_enum, default_value_t = Listing::Table)]
    pub format: Listing,
}

/// Runs the command.
///
/// # Errors
/// A store error for a place that holds no run, or when something is wrong with it.
pub async fn run(args: VerifyArgs) -> Result<()> {
    let store = Store::open_existing(&args.run).await?;
    let bar = lines::bar(0, "{spinner} reading  {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
    let read = |done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let verified = audit::verify(&store, args.all, &read).await?;
    bar.finish_and_clear();
    if args.format == Listing::Json {
        let text = serde_json::to_string_pretty(&verified).map_err(|e| Error::internal("verify", e))?;
        sql::say(&format!("{text}\n"))?;
    } else {
        let line = |problem: &audit::Problem| format!("{}: {}\n", problem.place, problem.problem);
        sql::say(&verified.problems.iter().map(line).collect::<String>())?;
    }
    let seen = format!("{} versions, {} files, {}", verified.versions, verified.files, lines::bytes(verified.bytes));
    match verified.problems.len() {
        0 => eprintln!("all is well: {seen}"),
        n => {
            let word = if n == 1 { "problem" } else { "problems" };
            return Err(Error::store(&store, format!("{n} {word} in {seen}; each line above says what to do")));
        }
    }
    Ok(())
}
