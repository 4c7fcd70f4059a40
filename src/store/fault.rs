//! Store failures in one clear line, without a secret in it.
//!
//! In: an error of the object store or of the disk. Out: an [`Error`] with the URL of the object, what was being
//! done, what is wrong in plain words, and what to do. The original error is carried as text only, of a server's answer
//! its code and message, without any credential ([`crate::secret`]).

use std::io::ErrorKind;

use object_store::client::{HttpError, HttpErrorKind};

use super::credentials::NoCredentials;
use crate::Error;

/// How much of a server's own words is repeated.
const LONGEST_CAUSE: usize = 300;

/// What went wrong with object `place` while `doing` ("reading", "writing", ...).
pub(super) fn object(place: &str, doing: &str, error: &object_store::Error) -> Error {
    use object_store::Error as E;
    if let Some(unreachable) = find::<HttpError>(error).and_then(|http| unreachable(http.kind())) {
        return Error::store(place, format!("{doing} failed: {unreachable}")).because(scrub(&deepest(error)));
    }
    if let Some(io) = find::<std::io::Error>(error) {
        return self::io(place, &format!("{doing} failed"), io);
    }
    if let Some(NoCredentials(why)) = find(error) {
        let advice = "there are no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE";
        return Error::store(place, format!("{doing} failed: {advice}")).because(scrub(why));
    }
    let text = error.to_string();
    let answer = Answer::of(&text);
    let problem = match (error, answer.code) {
        (_, "NoSuchBucket") => {
            return Error::store(
                place,
                format!("{doing} failed: there is no such bucket; check its name and AWS_REGION"),
            );
        }
        (E::NotFound { .. }, _) => {
            return Error::store(place, format!("{doing} failed: there is no such object or bucket"));
        }
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") => REGION,
        _ if text.contains("redirect without LOCATION") => REGION,
        (
            _,
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "RequestTimeTooSkewed",
        ) => "the credentials were refused; check key and secret, their expiry and this machine's clock",
        (E::PermissionDenied { .. }, _) => "no permission; check what these credentials may do with the bucket",
        (E::Unauthenticated { .. }, _) => "the credentials were refused; check the key, its expiry and the region",
        // Listing reports refusals without their kind.
        (E::Generic { .. }, _) if text.contains("403 Forbidden") => {
            "no permission; check what these credentials may do with the bucket"
        }
        (E::Generic { .. }, _) if text.contains("401 Unauthorized") => {
            "the credentials were refused; check the key, its expiry and the region"
        }
        (_, "SlowDown") => "the store is overloaded and stayed so; run the same command again later",
        (E::InvalidPath { .. }, _) => "this name cannot be used in a store",
        (E::NotImplemented { .. } | E::NotSupported { .. }, _) => "this store cannot do it",
        _ => "the store did not answer as it should; check the endpoint, the network and the credentials",
    };
    Error::store(place, format!("{doing} failed: {problem}")).because(scrub(&answer.said.unwrap_or(text)))
}

/// What is wrong when there was no answer; nothing for an answer that could not be understood.
fn unreachable(kind: HttpErrorKind) -> Option<&'static str> {
    match kind {
        HttpErrorKind::Connect => Some("the store cannot be reached; check the endpoint and the network"),
        HttpErrorKind::Timeout => {
            Some("the store did not answer in time; check the endpoint and the network, or raise AWS_TIMEOUT")
        }
        HttpErrorKind::Interrupted => Some("the connection was lost and stayed so; check the network"),
        _ => None,
    }
}

/// The text of the first cause of all.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

const REGION: &str = "the bucket is in another region; set AWS_REGION to that of the bucket";

/// What an S3 server said in the XML of its answer.
struct Answer<'a> {
    code: &'a str,
    /// Code and message; `None` when there is no XML.
    said: Option<String>,
}

impl<'a> Answer<'a> {
    fn of(text: &'a str) -> Self {
        let tag = |name: &str| -> Option<&'a str> {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            Some(rest.split_once(&format!("</{name}>"))?.0)
        };
        let Some(code) = tag("Code") else { return Answer { code: "", said: None } };
        let message = tag("Message").unwrap_or_default();
        let plain = [("&apos;", "'"), ("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")]
            .iter()
            .fold(message.to_string(), |text, (escaped, plain)| text.replace(escaped, plain));
        Answer { code, said: Some(format!("{code}: {plain}")) }
    }
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

/// The first error of this type among `error` and its causes.
fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// `text` without any credential, and not longer than a line's worth.
pub(super) fn scrub(text: &str) -> String {
    let mut clean = crate::secret::scrub(text).into_owned();
    if clean.len() > LONGEST_CAUSE {
        let end = (0..=LONGEST_CAUSE).rev().find(|&at| clean.is_char_boundary(at)).unwrap_or(0);
        clean.truncate(end);
        clean.push_str("...");
    }
    clean
}
