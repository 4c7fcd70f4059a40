//! Progress of a run for people: bars on a terminal, plain lines elsewhere.
//!
//! In: the events of [`Progress`]. Out: text on stderr, so that stdout holds data only.

use std::fmt::Debug;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::stage::{Known, Progress};

/// How often a plain line is printed while a stage runs.
const EVERY: Duration = Duration::from_secs(10);

/// The right watcher for stderr.
pub fn watcher() -> Arc<dyn Progress> {
    if std::io::stderr().is_terminal() {
        Arc::new(Bars::default())
    } else {
        Arc::new(Lines::new(Box::new(std::io::stderr())))
    }
}

/// One bar for the stage that runs, with rate and time left, and one line for each that is done.
#[derive(Debug, Default)]
pub struct Bars {
    bar: Mutex<Option<ProgressBar>>,
}

impl Bars {
    fn replace(&self, next: Option<ProgressBar>) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *bar, next) {
            old.finish_and_clear();
        }
    }
}

/// A bad template is a typing error of ours; the plain bar then does.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Bars {
    fn cached(&self, stage: &str) {
        eprintln!("{}", cached_line(stage));
    }

    fn started(&self, stage: &str, why: &str) {
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {prefix}  {msg}  {elapsed}"));
        bar.set_prefix(stage.to_string());
        bar.set_message(why.to_string());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.replace(Some(bar));
    }

    fn known(&self, stage: &str, known: Known) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            bar.println(format!("{stage}: {known}"));
        }
    }

    fn waiting(&self, stage: &str, holder: &str) {
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {prefix}  waits for {msg}  {elapsed}"));
        bar.set_prefix(stage.to_string());
        bar.set_message(holder.to_string());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.replace(Some(bar));
    }

    fn made_elsewhere(&self, stage: &str) {
        self.replace(None);
        eprintln!("{}", elsewhere_line(stage));
    }

    fn advanced(&self, _stage: &str, done: u64, total: Option<u64>, unit: &str) {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bar) = bar.as_ref() else { return };
        let first = bar.position() == 0;
        bar.set_message(unit.to_string());
        match total {
            Some(total) => {
                if bar.length() != Some(total) {
                    bar.set_length(total);
                    bar.set_style(style("{spinner} {prefix}  {bar:30} {pos}/{len} {msg}  {per_sec}  {eta} left"));
                }
            }
            None => bar.set_style(style("{spinner} {prefix}  {pos} {msg}  {per_sec}  {elapsed}")),
        }
        bar.set_position(done);
        if first {
            // What an earlier attempt finished must not count as this one's speed.
            bar.reset_eta();
        }
    }

    fn finished(&self, stage: &str, rows: u64, seconds: f64) {
        self.replace(None);
        eprintln!("{}", finished_line(stage, rows, seconds));
    }

    fn ended(&self, _stage: &str) {
        self.replace(None);
    }
}

/// Plain lines, at most one every ten seconds while a stage runs.
pub struct Lines {
    inner: Mutex<Inner>,
}

struct Inner {
    out: Box<dyn Write + Send>,
    began: Instant,
    /// What was done when the stage first reported, and when.
    first: Option<(u64, Instant)>,
    printed: Instant,
}

impl Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

impl Lines {
    /// Lines to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        let now = Instant::now();
        Lines { inner: Mutex::new(Inner { out, began: now, first: None, printed: now }) }
    }

    fn with(&self, act: impl FnOnce(&mut Inner)) {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn say(&self, line: &str) {
        // Nobody can be told that stderr is gone.
        self.with(|inner| drop(writeln!(inner.out, "{line}")));
    }
}

impl Progress for Lines {
    fn cached(&self, stage: &str) {
        self.say(&cached_line(stage));
    }

    fn started(&self, stage: &str, why: &str) {
        self.with(|inner| {
            inner.began = Instant::now();
            (inner.first, inner.printed) = (None, inner.began);
        });
        self.say(&format!("{stage}: runs ({why})"));
    }

    fn known(&self, stage: &str, known: Known) {
        self.say(&format!("{stage}: {known}"));
    }

    fn waiting(&self, stage: &str, holder: &str) {
        self.say(&format!("{stage}: waits for {holder}"));
    }

    fn made_elsewhere(&self, stage: &str) {
        self.say(&elsewhere_line(stage));
    }

    fn advanced(&self, stage: &str, done: u64, total: Option<u64>, unit: &str) {
        self.with(|inner| {
            let now = Instant::now();
            let (start, since) = *inner.first.get_or_insert((done, inner.began));
            let complete = total == Some(done);
            if now - inner.printed < EVERY && !complete {
                return;
            }
            inner.printed = now;
            let rate = (done - start.min(done)) as f64 / (now - since).as_secs_f64().max(1e-9);
            let line = match total {
                Some(total) if !complete && rate > 0.0 => {
                    let left = (total - done.min(total)) as f64 / rate;
                    format!("{stage}: {done}/{total} {unit}, {rate:.1}/s, {} left", span(left))
                }
                Some(total) => format!("{stage}: {done}/{total} {unit}"),
                None => format!("{stage}: {done} {unit}, {rate:.1}/s"),
            };
            drop(writeln!(inner.out, "{line}"));
        });
    }

    fn finished(&self, stage: &str, rows: u64, seconds: f64) {
        self.say(&finished_line(stage, rows, seconds));
    }

    fn ended(&self, stage: &str) {
        self.say(&format!("{stage}: ended without a commit"));
    }
}

fn cached_line(stage: &str) -> String {
    format!("{stage}: cached")
}

fn elsewhere_line(stage: &str) -> String {
    format!("{stage}: cached (another runner made it)")
}

fn finished_line(stage: &str, rows: u64, seconds: f64) -> String {
    format!("{stage}: {rows} rows, {}", span(seconds))
}

/// Seconds as people read them: `4.2s`, `3m20s`, `2h05m`.
fn span(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}
