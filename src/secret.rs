//! What must never be seen: credentials of object stores.
//!
//! In: any text that is about to be shown. Out: the same text without a credential in it, whether the environment
//! holds it or it was read from a profile: servers echo keys in their answers, and libraries log what they send.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// Shorter values would blank out innocent letters.
const SHORTEST: usize = 6;

/// Credentials that came from elsewhere than the environment.
static KNOWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Adds a credential to what [`scrub`] takes out.
pub fn remember(secret: &str) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if secret.len() >= SHORTEST && !known.iter().any(|seen| seen == secret) {
        known.push(secret.to_string());
    }
}

/// `text` with `***` for every credential that this process knows.
pub fn scrub(text: &str) -> Cow<'_, str> {
    let mut clean = Cow::Borrowed(text);
    let mut hide = |value: &str| {
        if value.len() >= SHORTEST && clean.contains(value) {
            clean = Cow::Owned(clean.replace(value, "***"));
        }
    };
    for (name, value) in std::env::vars_os() {
        if let (Some(name), Some(value)) = (name.to_str(), value.to_str())
            && holds_credential(name)
        {
            hide(value);
        }
    }
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|value| hide(value));
    clean
}

/// Whether an environment variable of this name holds a credential itself, not the place of one.
fn holds_credential(name: &str) -> bool {
    let cloud = ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix));
    let secret = ["KEY", "SECRET", "TOKEN", "PASSWORD", "SAS", "ACCOUNT", "CREDENTIAL"];
    let place = ["_FILE", "_URI", "_URL", "_ARN", "_ENABLED", "_CREDENTIALS", "_KMS_KEY_ID"];
    cloud && secret.iter().any(|word| name.contains(word)) && !place.iter().any(|end| name.ends_with(end))
}

/// A writer of whole lines, such as those of a log, that lets no credential through.
#[derive(Debug)]
pub struct Scrubbed<W>(pub W);

impl<W: Write> Write for Scrubbed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(scrub(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
