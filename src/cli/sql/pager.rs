//! Shows a text on the terminal, through `$PAGER` when it is larger than the screen.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use terminal_size::{Height, Width, terminal_size};

use super::output::say;
use crate::{Error, Result};

/// Where nothing else is set: quits when all fits, cuts long lines instead of wrapping them, leaves the text there.
const DEFAULT: &str = "less -FSX";

/// Shows it.
///
/// # Errors
/// A store error where standard output cannot be written.
pub(super) fn show(text: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(text);
    let pager = std::env::var("PAGER").unwrap_or_else(|_| DEFAULT.into());
    if fits(&text) || pager.trim().is_empty() {
        return say(&text);
    }
    // As psql runs it: with a shell, since it may have arguments.
    let child = Command::new("sh").arg("-c").arg(&pager).stdin(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return say(&text) };
    let sent = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
    let ended = child.wait();
    match (sent, ended) {
        // 127: the shell found no such program.
        (_, Ok(status)) if status.code() == Some(127) => say(&text),
        // Whoever has seen enough closes the pager before it has read all.
        (Err(e), _) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::store("$PAGER", format!("`{pager}` cannot be written to")).because(e))
        }
        _ => Ok(()),
    }
}

fn fits(text: &str) -> bool {
    let Some((Width(width), Height(height))) = terminal_size() else { return true };
    let wide = text.lines().any(|line| line.chars().count() > usize::from(width));
    !wide && text.lines().count() + 2 <= usize::from(height)
}
