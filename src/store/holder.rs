//! A process that holds a lease, and whether it lives.
//!
//! In: this process, or one that a lease names. Out: what tells it apart from every other process of every machine;
//! certainty about the dead ones of this machine, and none about those of others.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use serde::{Deserialize, Serialize};

use super::history::host;

/// A process, told apart from every other one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its machine's name.
    pub host: String,
    /// That machine's boot; empty where the system does not tell.
    pub boot: String,
    /// The process-id namespace, for containers.
    pub namespace: String,
    /// The process id.
    pub pid: u32,
    /// When the process began, in clock ticks of that boot: process ids come again.
    pub started: u64,
    /// One for each claim.
    pub nonce: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

impl Holder {
    pub(super) fn this() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Holder {
            host: host(),
            boot: boot(),
            namespace: namespace(),
            pid: std::process::id(),
            started: process("self").map_or(0, |(started, _)| started),
            nonce: format!("{:016x}{:016x}", random(), random()),
        }
    }

    /// Whether it certainly does not live any more. Of another machine's processes nothing is certain.
    pub fn is_dead(&self) -> bool {
        if self.boot.is_empty() || self.boot != boot() || self.namespace != namespace() {
            return false;
        }
        match process(&self.pid.to_string()) {
            // A zombie only waits for its parent to look.
            Some((started, state)) => started != self.started || state == 'Z' || state == 'X',
            // Hidden from this user, or gone.
            None => i32::try_from(self.pid).is_ok_and(|pid| {
                // SAFETY: signal 0 is sent to nobody; it only asks whether the process is there.
                let there = unsafe { libc::kill(pid, 0) } == 0;
                !there && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
            }),
        }
    }
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_string()).unwrap_or_default()
}

fn namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().into_owned()
}

/// When a process of this machine began, and its state.
fn process(pid: &str) -> Option<(u64, char)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in brackets and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(19)?.parse().ok()?, fields.first()?.chars().next()?))
}
