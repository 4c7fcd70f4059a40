//! Stopping when asked to.
//!
//! In: SIGINT or SIGTERM. Out: a token that stages look at between commits. The first signal lets the current
//! shard or step reach its commit; the second ends the process at once, which is as safe as a kill.

use std::fmt::Display;

use tokio::sync::watch;

use crate::error::Kind;
use crate::{Error, Result};

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

    /// Asks to stop at the first SIGINT or SIGTERM, and exits at the second. Call it inside the runtime.
    ///
    /// # Errors
    /// An internal error when the handlers cannot be installed.
    pub fn on_signals(&self) -> Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |e: std::io::Error| Error::internal("signals", "no handler can be installed").because(e);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let stop = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                if stop.asked() {
                    std::process::exit(i32::from(Kind::Interrupted.exit_code()));
                }
                stop.ask();
            }
        });
        Ok(())
    }
}
