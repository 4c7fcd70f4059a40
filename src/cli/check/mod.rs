//! `salmon check`: everything that a run will read, looked at without running.
//!
//! In: `salmon.toml`. Out: a line on stdout for each part that is as it should be, then what a run costs; on stderr a
//! line for each finding, with file and line, and an exit code of 2 when there is one.

mod cost;
mod data;
mod estimate;
mod hardware;
mod model;
mod names;
mod place;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::sql;
use crate::config::{self, Config};
use crate::pipeline::{self, Setup};
use crate::principle::{Finding, Library, Templates};
use crate::stage::{self, Options, Planned};
use crate::store::Store;
use crate::{Error, Result};
use estimate::Anatomy;
use hardware::Hardware;
use model::Model;
use place::Places;

/// Look at everything that a run will read, without running, and say what it will cost.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration
    #[arg(long, short, default_value = "salmon.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Change a value of the configuration for this check, e.g. --set ppo.steps=20
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Also say which stages this run has already: a folder, or a URL such as s3://bucket/team/run-7
    #[arg(long, value_name = "URL")]
    pub run: Option<String>,
    /// Also say what FLOPs, memory and time the run takes on this hardware: e.g. 8xA100-80GB, or `this` for this machine
    #[arg(long, value_name = "DEVICES")]
    pub hardware: Option<String>,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Report {
    findings: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    /// A part that is as it should be.
    fn ok(&self, line: impl std::fmt::Display) -> Result<()> {
        sql::say(&format!("ok  {line}\n"))
    }

    fn finding(&mut self, line: impl std::fmt::Display) {
        self.findings.push(line.to_string());
    }

    fn findings(&mut self, found: impl IntoIterator<Item = Finding>) {
        self.findings.extend(found.into_iter().map(|finding| finding.to_string()));
    }

    /// Something that works and may not be meant.
    fn note(&mut self, line: impl std::fmt::Display) {
        self.notes.push(line.to_string());
    }

    /// Says `line` unless something was found since `before`.
    fn done(&self, before: usize, line: impl std::fmt::Display) -> Result<()> {
        if self.findings.len() == before { self.ok(line) } else { Ok(()) }
    }
}

/// Runs the command.
///
/// # Errors
/// A configuration error that counts the findings, which are on stderr by then.
pub async fn run(args: CheckArgs) -> Result<()> {
    let mut report = Report::default();
    if let Err(error) = look(&args, &mut report).await {
        report.finding(error);
    }
    report.notes.iter().for_each(|note| eprintln!("note: {note}"));
    report.findings.iter().for_each(|finding| eprintln!("{finding}"));
    match report.findings.len() {
        0 => Ok(()),
        n => Err(Error::config(args.config.display(), format!("{n} finding{}", if n == 1 { "" } else { "s" }))),
    }
}

/// Looks at one part after the other; an error ends the parts that need what failed.
async fn look(args: &CheckArgs, report: &mut Report) -> Result<()> {
    let config = config::read(&args.config, &args.set)?;
    let folder = args.config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    report.ok(format!("{}: every key and value", args.config.display()))?;
    let places = Places::read(&args.config, &args.set)?;

    let library = principles(&config, folder, &places, report)?;
    let templates = match &library {
        Some(library) => templates(&config, folder, library, &places, report)?,
        None => None,
    };
    let data = data::check(&config, folder, &places, report).await?;
    let model = model::check(&config, folder, &places, report).await?;
    let (Some(library), Some(templates)) = (library, templates) else { return Ok(()) };
    let sizes = cost::Sizes::measure(&config, &library, &templates, &data, model.as_ref(), report);
    if !report.findings.is_empty() {
        return Ok(());
    }
    if let Some(Model { unfetched: Some(size), .. }) = &model {
        let mb = *size as f64 / 1e6;
        let problem = "was never fetched; what a run costs can be said when its first `salmon run` has fetched it";
        report.note(format!("{}: {mb:.1} MB {problem}", config.model.base));
        return Ok(());
    }
    let planned = plan(config.clone(), folder, args.run.as_deref()).await?;
    if let Some(sizes) = sizes {
        sql::say(&cost::table(&config, &library, &data, &sizes, &planned, args.run.is_some())?)?;
        if let (Some(name), Some(model)) = (&args.hardware, &model) {
            let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
            let workers = if config.model.workers == 0 { cores } else { config.model.workers };
            let hardware = Hardware::parse(name, workers)?;
            // A GPU is one worker with all of its cores.
            let anatomy = Anatomy::new(&config, &model.config, if hardware.own { workers } else { 1 })?;
            sql::say(&estimate::table(&config, &library, &data, &sizes, &planned, &anatomy, &hardware)?)?;
        }
    }
    Ok(())
}

/// The principle files and every name that the configuration takes from them.
fn principles(config: &Config, folder: &Path, places: &Places, report: &mut Report) -> Result<Option<Library>> {
    let library = match Library::load(folder, &config.principles.files) {
        Ok(library) => library,
        Err(error) => {
            report.finding(error);
            return Ok(None);
        }
    };
    let before = report.findings.len();
    report.findings(library.check());
    names::check(config, &library, places, report);
    let files = config.principles.files.join(", ");
    let counts = format!("{} principles, {} rules", library.principles.len(), library.rules.len());
    report.done(before, format!("principles: {counts} and {} exemplars from {files}", library.exemplars.len()))?;
    Ok(Some(library))
}

/// The templates and every name that the configuration takes from them.
fn templates(
    config: &Config,
    folder: &Path,
    library: &Library,
    places: &Places,
    report: &mut Report,
) -> Result<Option<Templates>> {
    let own = config.templates.folder.as_ref().map(|path| folder.join(path));
    let templates = match Templates::load(own.as_deref(), library) {
        Ok(templates) => templates,
        Err(error) => {
            report.finding(error);
            return Ok(None);
        }
    };
    let before = report.findings.len();
    report.findings(templates.check());
    let c = &config.templates;
    let used = [
        ("self_align", &c.self_align),
        ("chat", &c.chat),
        ("judge", &c.judge),
        ("reward", &c.reward),
        ("reward_rubric", &c.reward_rubric),
    ];
    for (key, name) in used {
        if templates.source(name).is_none() {
            let known: Vec<&str> = templates.names().collect();
            let place = places.of(&format!("templates.{key}"));
            report.finding(format!("{place}: there is no template `{name}`; there are {}", known.join(", ")));
        }
    }
    report.done(before, format!("templates: {}", used.map(|(_, name)| name.as_str()).join(", ")))?;
    Ok(if report.findings.len() == before { Some(templates) } else { None })
}

/// Every stage, and whether the run has it; nothing is written.
async fn plan(config: Config, folder: &Path, run: Option<&str>) -> Result<Vec<Planned>> {
    let setup = Arc::new(Setup::load(config, folder).await?);
    let graph = pipeline::graph(&setup)?;
    let store = match run {
        // A folder that is not there yet is an empty run.
        Some(url) if url.contains("://") || Path::new(url).exists() => Store::open_existing(url).await?,
        _ => Store::open("memory://")?,
    };
    stage::plan(&graph, &store, &Options::default()).await
}
