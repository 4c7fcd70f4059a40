//! Old answers: what a store without read-after-write consistency may say.
//!
//! In: the requests that pass the proxy. Out: for a key that was written or deleted within the last second the answer as
//! it was before: that there is no such object, the old bytes, or a listing without it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::proxy::{Request, answer, error};

/// How long a write stays invisible at most.
const WINDOW: Duration = Duration::from_secs(1);

/// An object's bytes before and after its last change; `None` where there is no object.
struct Change {
    at: Instant,
    before: Option<Vec<u8>>,
    now: Option<Vec<u8>>,
}

/// The last change of every key that went through the proxy.
#[derive(Default)]
pub struct History {
    changes: Mutex<HashMap<String, Change>>,
}

/// `/bucket/key` without encoding and query.
fn object(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default().as_bytes();
    let mut plain = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let hex = path.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (path[at], hex) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                at += 3;
            }
            (byte, _) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// What stands between `<name>` and `</name>`, each with its place.
fn tags<'a>(text: &'a str, name: &str) -> Vec<(std::ops::Range<usize>, &'a str)> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(start) = text[from..].find(&open).map(|at| from + at) {
        let inner = start + open.len();
        let Some(length) = text[inner..].find(&close) else { break };
        from = inner + length + close.len();
        found.push((start..from, &text[inner..inner + length]));
    }
    found
}

fn lists(request: &Request) -> bool {
    request.method == "GET" && request.target.contains("list-type=2")
}

impl History {
    /// A request that the server carried out.
    pub fn wrote(&self, request: &Request) {
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let changed: Vec<(String, Option<Vec<u8>>)> = match request.method.as_str() {
            "PUT" if !query.contains("uploadId") => vec![(object(&request.target), Some(request.body.clone()))],
            "DELETE" if !query.contains("uploadId") => vec![(object(&request.target), None)],
            "POST" if query == "delete" || query.starts_with("delete=") => {
                let (bucket, text) = (object(&request.target), String::from_utf8_lossy(&request.body).into_owned());
                tags(&text, "Key")
                    .into_iter()
                    .map(|(_, key)| (format!("{}/{key}", bucket.trim_end_matches('/')), None))
                    .collect()
            }
            _ => return,
        };
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, now) in changed {
            let before = changes.remove(&key).and_then(|change| change.now);
            changes.insert(key, Change { at: Instant::now(), before, now });
        }
    }

    /// Whether an old answer to this request could differ.
    pub fn fresh(&self, request: &Request) -> bool {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |change: &Change| change.at.elapsed() < WINDOW;
        if lists(request) {
            return changes.values().any(|change| fresh(change) && change.before.is_none());
        }
        let reads = matches!(request.method.as_str(), "GET" | "HEAD");
        reads && changes.get(&object(&request.target)).is_some_and(fresh)
    }

    /// The old answer, given the real one; `None` where they are the same.
    pub fn stale(&self, request: &Request, real: &[u8]) -> Option<Vec<u8>> {
        if lists(request) {
            return self.listing(request, real);
        }
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match &changes.get(&object(&request.target))?.before {
            None => Some(answer(request, 404, "Not Found", &error("NoSuchKey"))),
            Some(bytes) => Some(old(request, bytes)),
        }
    }

    /// A listing without the keys that were just written.
    fn listing(&self, request: &Request, real: &[u8]) -> Option<Vec<u8>> {
        let text = String::from_utf8_lossy(real);
        let (_, body) = text.split_once("\r\n\r\n")?;
        // Chunked answers keep their lengths between the lines; those stay as they are.
        if !body.trim_start().starts_with('<') {
            return None;
        }
        let bucket = object(&request.target);
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shorter = String::new();
        let mut from = 0;
        for (place, entry) in tags(body, "Contents") {
            let key = tags(entry, "Key").first().map(|(_, key)| object(key)).unwrap_or_default();
            let change = changes.get(&format!("{}/{key}", bucket.trim_end_matches('/')));
            if change.is_some_and(|change| change.at.elapsed() < WINDOW && change.before.is_none()) {
                shorter.push_str(&body[from..place.start]);
                from = place.end;
            }
        }
        shorter.push_str(&body[from..]);
        Some(answer(request, 200, "OK", shorter.as_bytes()))
    }
}

/// The old bytes of an object, whole or the range asked for.
fn old(request: &Request, bytes: &[u8]) -> Vec<u8> {
    let mut status = "200 OK".to_string();
    let (mut part, mut range) = (bytes, String::new());
    if let Some(asked) = request.header("range").and_then(|text| text.strip_prefix("bytes=")) {
        let (start, end) = asked.split_once('-').unwrap_or((asked, ""));
        let last = bytes.len().saturating_sub(1);
        let (start, end) = match (start.parse::<usize>(), end.parse::<usize>()) {
            (Ok(start), end) => (start, end.unwrap_or(last).min(last)),
            (Err(_), Ok(count)) => (bytes.len().saturating_sub(count), last),
            _ => (0, last),
        };
        let Some(found) = bytes.get(start..=end) else {
            return answer(request, 416, "Range Not Satisfiable", &error("InvalidRange"));
        };
        part = found;
        status = "206 Partial Content".into();
        range = format!("content-range: bytes {start}-{end}/{}\r\n", bytes.len());
    }
    let (length, tag) = (part.len(), format!("{:x}", salmon::draw::key(bytes.len() as u64, &["old"]).bits()));
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\netag: \"{tag}\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         accept-ranges: bytes\r\n{range}connection: close\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    if request.method != "HEAD" {
        answer.extend_from_slice(part);
    }
    answer
}
