//! Store failures in one clear line, without a secret in it.
//!
//! In: an error of the object store or of the disk. Out: an [`Error`] with the URL of the object, what was being
//! done, what is wrong in plain words, and what to do. The original error is carried as text only, after every
//! credential that the environment holds is taken out of it: servers echo keys in their answers.

use std::io::ErrorKind;

use crate::Error;

/// How much of a server's own words is repeated.
const LONGEST_CAUSE: usize = 300;

/// What went wrong with object `place` while `doing` ("reading", "writing", ...).
pub(super) fn object(place: &str, doing: &str, error: &object_store::Error) -> Error {
    use object_store::Error as E;
    if let Some(io) = find_io(error) {
        return self::io(place, &format!("{doing} failed"), io);
    }
    let text = scrub(&error.to_string());
    let problem = match error {
        E::NotFound { .. } => return Error::store(place, format!("{doing} failed: there is no such object or bucket")),
        E::PermissionDenied { .. } => "no permission; check what these credentials may do with the bucket",
        E::Unauthenticated { .. } => "the credentials were refused; check the key, its expiry and the region",
        // Listing reports refusals without their kind.
        E::Generic { .. } if text.contains("403 Forbidden") => {
            "no permission; check what these credentials may do with the bucket"
        }
        E::Generic { .. } if text.contains("401 Unauthorized") => {
            "the credentials were refused; check the key, its expiry and the region"
        }
        E::InvalidPath { .. } => "this name cannot be used in a store",
        E::NotImplemented { .. } | E::NotSupported { .. } => "this store cannot do it",
        _ => "the store did not answer as it should; check the endpoint, the network and the credentials",
    };
    Error::store(place, format!("{doing} failed: {problem}")).because(text)
}

/// The same for a failure of the local disk.
pub(super) fn io(place: &str, problem: &str, error: &std::io::Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full; free space and run the same command again, what was committed is kept"
        }
        ErrorKind::FileTooLarge => {
            "the file-size limit (ulimit -f) is reached; raise it and run the same command again"
        }
        ErrorKind::PermissionDenied => "no permission; check who owns the folder",
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        ErrorKind::NotADirectory => "a part of the path is a file, not a folder",
        ErrorKind::IsADirectory => "it is a folder, not a file",
        ErrorKind::NotFound => "it does not exist",
        _ => return Error::store(place, problem).because(scrub(&error.to_string())),
    };
    Error::store(place, format!("{problem}: {advice}"))
}

fn find_io<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// `text` without any credential of the environment, and not longer than a line's worth.
pub(super) fn scrub(text: &str) -> String {
    let mut clean = text.to_string();
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        let cloud = ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix));
        let secret =
            ["KEY", "SECRET", "TOKEN", "PASSWORD", "SAS", "ACCOUNT", "CREDENTIAL"].iter().any(|w| name.contains(w));
        // A very short value would blank out innocent letters.
        if cloud && secret && value.len() >= 6 {
            clean = clean.replace(value, "***");
        }
    }
    if clean.len() > LONGEST_CAUSE {
        let end = (0..=LONGEST_CAUSE).rev().find(|&at| clean.is_char_boundary(at)).unwrap_or(0);
        clean.truncate(end);
        clean.push_str("...");
    }
    clean
}
