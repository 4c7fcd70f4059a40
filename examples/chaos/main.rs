//! `make chaos`: the real program, killed and hindered, against a run that nobody touched.
//!
//! ```text
//! disk     kills over all stages; every second run with a wall clock that jumps by hours
//! s3       the same against an S3 server; every second run with a clock that jumps by minutes
//! faults   the same behind a proxy that lets one of ten requests fail
//! full     a disk that is full at every point of a run
//! work     what a kill costs where stages have a hundred shards or steps
//! ```
//! In: `CHAOS_KILLS`, the kills of each of the first three (200); `CHAOS_SEED` (1); `CHAOS_ONLY`, some of the five,
//! separated by commas. Out: progress on stderr; as the last line on stdout the counts, and an exit code that is not 0
//! unless nothing was lost, doubled or half visible and nothing unexpected happened. Logs of all attempts are in a
//! temporary folder, which stays when something failed.

mod attempt;
mod campaign;
mod check;
mod clock;
mod full;
mod place;
mod plan;
mod proxy;
mod said;
mod server;
mod stale;
mod tally;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use salmon::draw;

use crate::campaign::{Kind, World};
use crate::clock::Clock;
use crate::place::{Configuration, Place};
use crate::proxy::Proxy;
use crate::server::{BUCKET, Server, variables};
use crate::tally::Tally;

/// Whatever keeps chaos itself from working.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The share of requests that meet a fault.
const FAULTS: f64 = 0.1;
/// Behind the proxy a request is given up after this time: silence is one of the faults.
const TIMEOUT: &str = "1500ms";
/// Jumps of the wall clock on disk, in seconds.
const HOURS: u64 = 6 * 3600;
/// Against a server that checks signatures they must be small: it refuses a clock that is off by a quarter of an hour.
const MINUTES: u64 = 120;

/// What to do.
struct Options {
    kills: u64,
    seed: u64,
    only: Vec<String>,
}

impl Options {
    fn read() -> Result<Options, Failure> {
        let number = |name: &str, otherwise: u64| match std::env::var(name) {
            Ok(text) => text.parse().map_err(|_| format!("{name}={text} is not a number")),
            Err(_) => Ok(otherwise),
        };
        let only = std::env::var("CHAOS_ONLY").unwrap_or_else(|_| "disk,s3,faults,full,work".into());
        let only = only.split(',').map(|name| name.trim().to_string()).collect();
        Ok(Options { kills: number("CHAOS_KILLS", 200)?, seed: number("CHAOS_SEED", 1)?, only })
    }

    fn wants(&self, name: &str) -> bool {
        self.only.iter().any(|only| only == name)
    }
}

fn main() -> ExitCode {
    let mut tally = Tally::default();
    let folder = match tempfile::Builder::new().prefix("salmon-chaos-").tempdir() {
        Ok(folder) => folder.keep(),
        Err(e) => {
            println!("chaos: no temporary folder: {e}");
            return ExitCode::FAILURE;
        }
    };
    let done = run(&folder, &mut tally);
    eprintln!(
        "chaos: {} runs; {} of the kills were SIGTERM; kills by stage: {}",
        tally.runs,
        tally.stops,
        tally.by_stage()
    );
    if let Err(e) = done {
        eprintln!("chaos: {e}");
        tally.unexpected += 1;
    }
    if tally.good() {
        let _ = std::fs::remove_dir_all(&folder);
    } else {
        eprintln!("chaos: logs and runs are kept in {}", folder.display());
    }
    println!("chaos: {tally}");
    if tally.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(folder: &Path, tally: &mut Tally) -> Result<(), Failure> {
    let options = Options::read()?;
    eprintln!("chaos: seed {}, {} kills a campaign, in {}", options.seed, options.kills, folder.display());
    let here = std::env::current_exe()?;
    let examples = here.parent().ok_or("no folder of examples")?;
    let salmon: PathBuf = examples.parent().ok_or("no target folder")?.join("salmon");
    let server = Server::start(&examples.join("s3_server"), &folder.join("s3"))?;
    for (name, value) in variables(&server.endpoint) {
        // SAFETY: no other thread is running yet.
        unsafe { std::env::set_var(name, value) };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let key = draw::key(options.seed, &["chaos"]);

    let configuration = Configuration::tiny(&folder.join("tiny"))?;
    let mut world = World::new("reference", salmon.clone(), folder.to_path_buf(), handle.clone(), configuration, key)?;
    match Clock::build(folder) {
        Ok(clock) => world.clock = Some(clock),
        Err(why) => eprintln!("chaos: clock jumps are skipped: {why}"),
    }
    let disk = |n: usize| Place::disk(&format!("disk-{n}"), folder.join(format!("disk-{n}")), &world.configuration);
    let remote = |name: &str, n: usize, endpoint: &str, more: &[(&str, &str)]| {
        let name = format!("{name}-{n}");
        let mut all = variables(endpoint);
        all.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        Place::remote(&name, folder.join(&name), format!("s3://{BUCKET}/{name}"), &world.configuration, all)
    };
    if options.wants("disk") {
        let kind = Kind { name: "disk", place: &disk, jumps: HOURS, faults: false };
        let work = world.campaign(&kind, options.kills, tally)?;
        eprintln!("chaos: disk: {work}; with few shards a stage, one of them is a large part");
    }
    if options.wants("s3") {
        let place = |n| remote("s3", n, &server.endpoint, &[]);
        world.campaign(&Kind { name: "s3", place: &place, jumps: MINUTES, faults: false }, options.kills, tally)?;
    }
    if options.wants("faults") {
        let (proxy, address) = runtime.block_on(Proxy::start(server.address(), key.with(7), FAULTS))?;
        let endpoint = format!("http://{address}");
        let place = |n| remote("faults", n, &endpoint, &[("AWS_TIMEOUT", TIMEOUT)]);
        let done =
            world.campaign(&Kind { name: "faults", place: &place, jumps: 0, faults: true }, options.kills, tally);
        tally.faults += proxy.faults();
        eprintln!("chaos: faults: {}", proxy.report());
        done?;
    }
    if options.wants("full") {
        let step = if options.kills < 100 { 1500 } else { 200 };
        full::campaign(&world, 2, step, tally)?;
    }
    if options.wants("work") {
        let configuration = runtime.block_on(Configuration::long(&folder.join("long")))?;
        let key = key.with(8);
        let long = World::new("long", salmon, folder.to_path_buf(), handle, configuration, key)?;
        let place = |n: usize| Place::disk(&format!("work-{n}"), folder.join(format!("work-{n}")), &long.configuration);
        let kind = Kind { name: "work", place: &place, jumps: 0, faults: false };
        let work = long.campaign(&kind, (options.kills / 10).clamp(8, 16), tally)?;
        eprintln!("chaos: work: {work}");
        tally.work = Some(work);
    }
    Ok(())
}
