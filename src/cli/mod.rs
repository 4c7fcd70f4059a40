//! The commands: one file each.
//!
//! In: arguments. Out: data on stdout, everything else on stderr, and an exit code by kind of error
//! (`docs/errors.md`).

mod at_hand;
pub mod chat;
pub mod check;
pub mod demo;
pub mod diff;
pub mod export;
pub mod gc;
pub mod generate;
pub mod import;
pub mod init;
mod lines;
pub mod logprobs;
pub mod progress;
mod reference;
pub mod report;
pub mod run;
pub mod runs;
pub mod score;
pub mod sql;
pub mod verify;

pub use reference::reference;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::{Error, Result};

/// Align a language model with written principles.
#[derive(Debug, Parser)]
#[command(name = "salmon", version, max_term_width = 100)]
pub struct Cli {
    /// How log lines look on stderr
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One subcommand each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole pipeline on the embedded toy world, then show what came of it
    Demo(demo::DemoArgs),
    /// Write a starter configuration, principles and prompts
    Init(init::InitArgs),
    /// Look at everything that a run will read, without running, and say what it will cost
    Check(check::CheckArgs),
    /// Turn prompt or preference files of any known format into clean Parquet
    Import(import::ImportArgs),
    /// Run the stages that are missing or changed
    Run(run::RunArgs),
    /// Ask a run's tables, with SQL
    Sql(sql::SqlArgs),
    /// Score responses under principles, with a run's reward model
    Score(score::ScoreArgs),
    /// Talk to a run's policy
    Chat(chat::ChatArgs),
    /// Let a model folder go on from a prompt
    Generate(generate::GenerateArgs),
    /// Show how likely a model folder finds every token of a text
    Logprobs(logprobs::LogprobsArgs),
    /// Show what was run, what it cost, or what a table or model was made from
    Runs(runs::RunsArgs),
    /// Compare two runs: what they are made from, and what came of it
    Diff(diff::DiffArgs),
    /// List or remove what of a run nothing needs any more
    Gc(gc::GcArgs),
    /// Read everything a run has and compare it with what its manifests say
    Verify(verify::VerifyArgs),
    /// Write everything about a run as one HTML page
    Report(report::ReportArgs),
    /// Write models, preferences or training curves of a run for other tools
    #[command(subcommand)]
    Export(export::ExportCommand),
}

/// Parses the arguments, runs the command, prints its error on one line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&Error::internal("runtime", "cannot start").because(e), cli.log_format),
    };
    let done = runtime.block_on(execute(cli.command));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, cli.log_format),
    }
}

async fn execute(command: Command) -> Result<()> {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Run(args) => run::run(args).await,
        Command::Sql(args) => sql::run(args).await,
        Command::Init(args) => init::run(&args),
        Command::Check(args) => check::run(args).await,
        Command::Score(args) => score::run(args).await,
        Command::Chat(args) => chat::run(args).await,
        Command::Generate(args) => generate::run(args).await,
        Command::Logprobs(args) => logprobs::run(args).await,
        Command::Runs(args) => runs::run(args).await,
        Command::Diff(args) => diff::run(args).await,
        Command::Gc(args) => gc::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Report(args) => report::run(args).await,
        Command::Export(command) => export::run(command).await,
    }
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("SALMON_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // What asks for credentials logs whom it got them for, before anybody knows that they must not be seen.
    let filter = match "aws_=error".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    // Libraries log what they send when they are asked for everything.
    let stderr = || crate::secret::Scrubbed(std::io::stderr());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => lines.json().init(),
    }
}

fn fail(error: &Error, format: LogFormat) -> ExitCode {
    match format {
        LogFormat::Text => eprintln!("salmon: {error}"),
        LogFormat::Json => {
            let line = serde_json::json!({"level": "ERROR", "message": error.to_string(),
                "kind": format!("{:?}", error.kind()).to_lowercase(), "exit_code": error.kind().exit_code()});
            eprintln!("{line}");
        }
    }
    ExitCode::from(error.kind().exit_code())
}
