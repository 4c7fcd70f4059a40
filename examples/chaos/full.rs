//! A disk that is full, again and again, with a little more room each time.
//!
//! In: an uninterrupted run. Out: a run on a small tmpfs in a mount namespace of its own. Every attempt that runs out of
//! room must end with exit code 5 and one line that says so, leave nothing half visible, and the last one must come to the
//! same bytes. It needs `unshare` and `nsenter`, and a system that lets users make namespaces.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use salmon::draw::Key;

use crate::Failure;
use crate::attempt::Attempt;
use crate::campaign::World;
use crate::place::Place;
use crate::tally::Tally;

/// Attempts at most: with 40 KiB more each time a run is through long before.
const ATTEMPTS: u64 = 400;

/// A small file system that only processes in its namespace see. It lives as long as the shell that waits in there.
struct Mount {
    shell: Child,
    at: PathBuf,
}

impl Mount {
    /// Mounts one; says why not when that is impossible.
    fn new(at: &Path, kib: u64) -> Result<Mount, String> {
        std::fs::create_dir_all(at).map_err(|e| e.to_string())?;
        let script = "mount -t tmpfs -o size=\"$2\"k none \"$1\" && mkdir \"$1/tmp\" && echo ready && read -r _";
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-c", script, "sh"]).arg(at).arg(kib.to_string());
        let shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut mount = Mount { shell: shell.map_err(|e| format!("unshare: {e}"))?, at: at.to_path_buf() };
        let mut line = String::new();
        if let Some(stdout) = mount.shell.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|e| e.to_string())?;
        }
        if line.trim() == "ready" { Ok(mount) } else { Err("this system lets users make no mount namespace".into()) }
    }

    /// A command that runs in the namespace.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "-U", "-m", "-t", &self.shell.id().to_string(), "--"]).arg(program);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Failure> {
        let output = self.command(Path::new(program)).args(arguments).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }

    fn resize(&self, kib: u64) -> Result<(), Failure> {
        // In full, for mount looks nothing up then: a user's namespace may not let it.
        let (options, at) = (format!("remount,size={kib}k"), self.at.display().to_string());
        self.run("mount", &["-t", "tmpfs", "-o", &options, "none", &at])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// Runs on full disks: `rounds` runs, every second one with its scratch folder on the same disk. Skips with a line where
/// that is impossible.
pub fn campaign(world: &World, rounds: u64, step: u64, tally: &mut Tally) -> Result<(), Failure> {
    for round in 0..rounds {
        let name = format!("full-{round}");
        let folder = world.scratch.join(&name);
        let disk = folder.join("disk");
        let key = world.key.with(1_000_000 + round);
        let mut size = 256;
        let mount = match Mount::new(&disk, size) {
            Ok(mount) => mount,
            Err(why) => {
                eprintln!("chaos: full disks are skipped: {why}");
                return Ok(());
            }
        };
        let scratch = if round % 2 == 0 { folder.join("tmp") } else { disk.join("tmp") };
        let variables = vec![("TMPDIR".to_string(), scratch.display().to_string())];
        let url = disk.join("run").display().to_string();
        let place = Place::remote(&name, folder.clone(), url.clone(), &world.configuration, variables)?;
        let copy = Place::disk(&name, folder.clone(), &world.configuration)?;
        let (mut full, mut done) = (0, false);
        for attempt in 0..ATTEMPTS {
            let mut command = mount.command(&world.salmon);
            place.arguments(&mut command);
            let ended = Attempt::start(command, place.log()?)?.end(0)?;
            // The reader's copy: the checks run outside of the namespace.
            let _ = std::fs::remove_dir_all(&copy.url);
            mount.run("cp", &["-a", &url, &copy.url])?;
            if ended.status.success() {
                done = true;
                break;
            }
            full += 1;
            tally.faults += 1;
            let clear = match ended.trail.errors.as_slice() {
                [(5, text)] => text.contains("disk is full") || text.contains("No space left on device"),
                _ => false,
            };
            if ended.status.code() != Some(5) || !clear {
                eprintln!("chaos: UNEXPECTED in {name}: {} {:?}", ended.status, ended.trail.errors);
                tally.unexpected += 1;
            }
            world.look(&copy, &format!("attempt {attempt}"), tally)?;
            size += grow(key.with(attempt), step);
            mount.resize(size)?;
        }
        drop(mount);
        if !done {
            return Err(format!("{name}: did not end with {size} KiB").into());
        }
        tally.runs += 1;
        world.compare(&copy, tally)?;
        eprintln!("chaos: {name}: full {full} times, done with {size} KiB");
    }
    Ok(())
}

fn grow(key: Key, step: u64) -> u64 {
    1 + key.below(0, 2 * step)
}
