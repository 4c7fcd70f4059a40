//! Stopping when asked to.
//!
//! In: SIGINT or SIGTERM. Out: a token that stages look at between commits. The first signal lets the current
//! shard or step reach its commit, for [`PATIENCE`]; then, or at a second signal, the process ends at once, which is as
//! safe as a kill. Whatever ends it, the exit code is that of "start me again".

use std::fmt::Display;
use std::sync::mpsc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::Kind;
use crate::{Error, Result};

/// How long a run that was asked to stop may go on: whoever asks (a scheduler, a spot instance that is taken back) often
/// waits no longer than ten seconds.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// Whether the run was asked to stop. Clones share the answer.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: watch::Sender<bool>,
    /// What else stops the work at hand.
    also: Option<watch::Sender<bool>>,
}

impl Default for Stop {
    fn default() -> Self {
        Stop::new()
    }
}

impl Stop {
    /// A token that nobody has asked to stop.
    pub fn new() -> Self {
        Stop { asked: watch::Sender::new(false), also: None }
    }

    /// The same token, which also stops once `signal` is true.
    pub fn or(&self, signal: watch::Sender<bool>) -> Stop {
        Stop { asked: self.asked.clone(), also: Some(signal) }
    }

    /// Asks to stop.
    pub fn ask(&self) {
        self.asked.send_replace(true);
    }

    /// Whether someone asked to stop.
    pub fn asked(&self) -> bool {
        *self.asked.borrow() || self.also.as_ref().is_some_and(|also| *also.borrow())
    }

    /// Ends a stage between two commits.
    ///
    /// # Errors
    /// [`Error::interrupted`] at `place` once someone asked to stop.
    pub fn check(&self, place: impl Display) -> Result<()> {
        if self.asked() { Err(Error::interrupted(place)) } else { Ok(()) }
    }

    /// Waits until someone asks to stop.
    pub async fn wait(&self) {
        let (mut asked, mut also) = (self.asked.subscribe(), self.also.as_ref().map(watch::Sender::subscribe));
        let also = async {
            match &mut also {
                Some(also) => drop(also.wait_for(|also| *also).await),
                None => std::future::pending().await,
            }
        };
        // The senders live in self, so waiting cannot fail.
        tokio::select! { _ = asked.wait_for(|asked| *asked) => {}, () = also => {} }
    }

    /// Asks to stop at the first SIGINT or SIGTERM, and ends the process at the second or after [`PATIENCE`]. Signals
    /// are waited for on a thread of their own: a busy runtime must not hold them up.
    ///
    /// # Errors
    /// An internal error when the handlers cannot be installed.
    pub fn on_signals(&self) -> Result<()> {
        let failed = |e: std::io::Error| Error::internal("signals", "no handler can be installed").because(e);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (installed, answer) = mpsc::channel();
        let stop = self.clone();
        let wait = move || runtime.block_on(stop.obey(&installed));
        std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
        answer.recv().map_err(|e| Error::internal("signals", "their thread died").because(e))?.map_err(failed)
    }

    /// Waits for signals; says once whether it can.
    async fn obey(&self, installed: &mpsc::Sender<std::io::Result<()>>) {
        let handlers = Signals::install();
        let (mut signals, answer) = match handlers {
            Ok(signals) => (Some(signals), Ok(())),
            Err(e) => (None, Err(e)),
        };
        let _ = installed.send(answer);
        let Some(signals) = &mut signals else { return };
        signals.next().await;
        self.ask();
        let why = tokio::select! {
            () = signals.next() => "a second signal came".to_string(),
            () = tokio::time::sleep(PATIENCE) => format!("no commit was reached within {} s", PATIENCE.as_secs()),
        };
        tracing::error!(
            "stopped at once, for {why}; what was committed is kept, run the same command again to continue"
        );
        // SAFETY: ends the process without running destructors, which may not run beside threads that still compute.
        unsafe { libc::_exit(i32::from(Kind::Interrupted.exit_code())) }
    }
}

/// The two signals that ask to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => {}, _ = self.terminate.recv() => {} }
    }
}
