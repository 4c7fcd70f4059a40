//! What chaos counts.

use std::collections::BTreeMap;
use std::fmt;

use crate::work::Work;

/// All campaigns together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Processes ended by SIGKILL, and by SIGTERM.
    pub kills: u64,
    /// Those of them that were asked to stop.
    pub stops: u64,
    /// Requests that met a fault, attempts that met a full disk.
    pub faults: u64,
    /// Kills of both kinds by the stage they came in.
    pub stages: BTreeMap<String, u64>,
    /// Runs that came to their end.
    pub runs: u64,
    /// Attempts that a fault made end with an error; the next one went on.
    pub given_up: u64,
    /// Objects of the uninterrupted run that are missing or differ.
    pub losses: u64,
    /// Rows that are there twice.
    pub duplicates: u64,
    /// Visible objects that are not whole.
    pub half_visible: u64,
    /// Anything else that must not happen: a wrong exit code, a slow stop, a missing line.
    pub unexpected: u64,
    /// Seconds of the slowest stop.
    pub slowest: f64,
    /// What kills cost in the long configuration.
    pub work: Option<Work>,
}

impl Tally {
    /// A kill in this stage; `None` before the first one.
    pub fn killed(&mut self, stage: Option<&str>) {
        self.kills += 1;
        *self.stages.entry(stage.unwrap_or("start").to_string()).or_default() += 1;
    }

    /// Kills by stage, as one line.
    pub fn by_stage(&self) -> String {
        let counts: Vec<String> = self.stages.iter().map(|(stage, kills)| format!("{stage} {kills}")).collect();
        counts.join(", ")
    }

    /// Whether everything is as it must be.
    pub fn good(&self) -> bool {
        self.losses + self.duplicates + self.half_visible + self.unexpected == 0
    }
}

/// 12345 as 12,345.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills, {} faults, {} losses, {} duplicates, {} half-visible",
            grouped(self.kills),
            grouped(self.faults),
            self.losses,
            self.duplicates,
            self.half_visible
        )?;
        if self.unexpected > 0 {
            write!(f, ", {} unexpected", self.unexpected)?;
        }
        write!(f, "; slowest stop {:.1} s", self.slowest)?;
        match &self.work {
            Some(work) => write!(f, "; work {:.3}x", work.mean()),
            None => Ok(()),
        }
    }
}
