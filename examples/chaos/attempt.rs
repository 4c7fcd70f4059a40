//! One process of the real program, followed line by line until it ends or is ended.
//!
//! In: a command. Out: its [`Trail`] (what it said and when) and how it ended. Every line goes into the log of the run.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::said::Said;

/// An attempt that takes longer is called hung.
const LONGEST: Duration = Duration::from_secs(900);

/// How far a stage came in one attempt.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// When it began.
    pub began: Instant,
    /// When its commit was reported.
    pub ended: Option<Instant>,
    /// Units that were done when it first said so, and when it last did.
    pub done: Option<(u64, u64)>,
    /// Units in all.
    pub total: Option<u64>,
}

/// What an attempt said.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    /// Stages that ran, in order.
    pub stages: Vec<Stage>,
    /// Stages that were there already.
    pub cached: Vec<String>,
    /// Error lines, with the exit code that they announce.
    pub errors: Vec<(i64, String)>,
    /// How many lines it said.
    pub lines: usize,
}

impl Trail {
    fn add(&mut self, said: Said, at: Instant) {
        self.lines += 1;
        match said {
            Said::Starts(name) => self.stages.push(Stage { name, began: at, ended: None, done: None, total: None }),
            Said::Cached(name) => self.cached.push(name),
            Said::Ends(name) => {
                if let Some(stage) = self.stages.iter_mut().find(|stage| stage.name == name) {
                    stage.ended = Some(at);
                }
            }
            Said::Advances { stage, done, total } => {
                if let Some(stage) = self.stages.iter_mut().find(|found| found.name == stage) {
                    stage.done = Some((stage.done.map_or(done, |(first, _)| first), done));
                    stage.total = total;
                }
            }
            Said::Fails { code, text } => self.errors.push((code, text)),
            Said::Other => {}
        }
    }

    /// The stage that it was in last.
    pub fn last(&self) -> Option<&Stage> {
        self.stages.last()
    }
}

/// Why following stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// What was waited for happened.
    Event,
    /// The moment came.
    Moment,
    /// The process closed its stderr: it ended.
    End,
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// What it said.
    pub trail: Trail,
    /// Seconds from the signal to the end.
    pub seconds: f64,
}

impl Ended {
    /// Whether it was killed by SIGKILL, and did not end by itself before.
    pub fn killed(&self) -> bool {
        self.status.signal() == Some(libc::SIGKILL)
    }
}

/// A running process.
pub struct Attempt {
    child: Child,
    lines: Receiver<(Instant, String)>,
    log: File,
    /// When it was started.
    pub began: Instant,
    /// What it said so far.
    pub trail: Trail,
}

impl Attempt {
    /// Starts the command; its lines are appended to `log`.
    pub fn start(mut command: Command, mut log: File) -> Result<Attempt, Failure> {
        writeln!(log, "--- {command:?}")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Attempt { child, lines, log, began: Instant::now(), trail: Trail::default() })
    }

    /// Follows until `wanted`, until `moment` or to the end, whichever is first.
    pub fn follow(&mut self, moment: Option<Instant>, wanted: impl Fn(&Trail) -> bool) -> Result<Reached, Failure> {
        let hung = self.began + LONGEST;
        while !wanted(&self.trail) {
            let now = Instant::now();
            if moment.is_some_and(|moment| moment <= now) {
                return Ok(Reached::Moment);
            }
            if hung <= now {
                return Err(format!("an attempt hangs in {:?}", self.trail.last()).into());
            }
            let until = moment.unwrap_or(hung).min(hung);
            match self.lines.recv_timeout(until.saturating_duration_since(now)) {
                Ok((at, line)) => self.heard(at, &line)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Reached::End),
            }
        }
        Ok(Reached::Event)
    }

    fn heard(&mut self, at: Instant, line: &str) -> Result<(), Failure> {
        writeln!(self.log, "{:8.3} {line}", (at - self.began).as_secs_f64())?;
        self.trail.add(Said::read(line), at);
        Ok(())
    }

    /// Sends a signal (none for 0) and waits for the end.
    pub fn end(mut self, signal: i32) -> Result<Ended, Failure> {
        let sent = Instant::now();
        if signal != 0 {
            // SAFETY: signals a process that this attempt started and has not waited for.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
        self.follow(None, |_| false)?;
        let status = self.child.wait()?;
        let seconds = sent.elapsed().as_secs_f64();
        writeln!(self.log, "--- signal {signal}, {status}, {seconds:.3} s later")?;
        Ok(Ended { status, trail: std::mem::take(&mut self.trail), seconds })
    }
}

impl Drop for Attempt {
    /// Nothing of chaos stays behind when chaos itself fails.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
