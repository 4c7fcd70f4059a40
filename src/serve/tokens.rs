//! Who may ask, and how much.
//!
//! In: a token file, and what a client shows. Out: a [`Token`] with its limits, or nothing. Of a token only its SHA-256
//! is kept; a client's is hashed too, and the hashes are compared in constant time with every token's, so that neither
//! the answer nor its delay says which one was close.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{Error, Result, secret};

/// Shorter ones can be guessed.
const SHORTEST: usize = 16;

/// Seconds that a query may take when its token does not say.
const SECONDS: u64 = 300;

/// What one token allows.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its name: the user name for Postgres and for basic authentication, and what the query log says.
    pub name: String,
    digest: [u8; 32],
    expires: Option<SystemTime>,
    /// Rows that a query may give; more is an error, not a shorter answer.
    pub rows: Option<u64>,
    /// Time that a query may take, from when it arrives to when its last row was taken.
    pub time: Duration,
    /// Bytes of the memory pool that a query may hold.
    pub memory: Option<usize>,
    /// Whether model functions may run.
    pub models: bool,
    /// Whether `query_log` shows the queries of all tokens; otherwise only this one's.
    pub all_queries: bool,
}

/// Every token of a server.
#[derive(Debug)]
pub struct Tokens(Vec<Arc<Token>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    secret: Option<String>,
    secret_env: Option<String>,
    secret_sha256: Option<String>,
    expires: Option<toml::value::Datetime>,
    rows: Option<u64>,
    seconds: Option<u64>,
    memory_mib: Option<usize>,
    #[serde(default)]
    models: bool,
    #[serde(default)]
    all_queries: bool,
}

impl Tokens {
    /// Reads a token file.
    ///
    /// # Errors
    /// A configuration error that names the file and the token, never its secret.
    pub fn read(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Error::config(&place, "cannot be read").because(e))?;
        Tokens::parse(&place, &text)
    }

    /// The same from its text.
    ///
    /// # Errors
    /// As [`Tokens::read`].
    pub fn parse(place: &str, text: &str) -> Result<Self> {
        // The parser's own message quotes the line, and with it a secret.
        let file: File = toml::from_str(text)
            .map_err(|e: toml::de::Error| Error::config(place, format!("is no token file: {}", e.message())))?;
        let mut tokens: Vec<Arc<Token>> = Vec::new();
        for entry in file.token {
            let token = token(place, entry)?;
            if tokens.iter().any(|other| other.name == token.name || other.digest == token.digest) {
                let problem = format!("token `{}` has the name or the secret of another one", token.name);
                return Err(Error::config(place, problem));
            }
            tokens.push(Arc::new(token));
        }
        if tokens.is_empty() {
            return Err(Error::config(place, "holds no token; write one as [[token]] with a name and a secret"));
        }
        Ok(Tokens(tokens))
    }

    /// Whether any of them may ask models.
    pub(super) fn ask_models(&self) -> bool {
        self.0.iter().any(|token| token.models)
    }

    /// The token that `secret` is, unless it has expired. With a `name`, it must be that token's.
    pub fn find(&self, name: Option<&str>, secret: &str) -> Option<Arc<Token>> {
        let digest: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.ct_eq(&digest)) {
                found = Some(token);
            }
        }
        let found = found.filter(|token| name.is_none_or(|name| name == token.name))?;
        (!found.has_expired()).then(|| Arc::clone(found))
    }
}

impl Token {
    /// Whether its time is over: also what is connected then may ask nothing more.
    pub fn has_expired(&self) -> bool {
        self.expires.is_some_and(|until| SystemTime::now() >= until)
    }
}

fn token(place: &str, entry: Entry) -> Result<Token> {
    let name = entry.name;
    let bad = |problem: String| Error::config(format!("{place}, token `{name}`"), problem);
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(bad("a name is made of letters, digits and - _ .".into()));
    }
    let digest = match (entry.secret, entry.secret_env, entry.secret_sha256) {
        (Some(text), None, None) => digest(&text).map_err(bad)?,
        (None, Some(variable), None) => {
            let text = std::env::var(&variable).map_err(|_| bad(format!("the variable {variable} is not set")))?;
            digest(&text).map_err(bad)?
        }
        (None, None, Some(hex)) => from_hex(&hex)
            .ok_or_else(|| bad("secret_sha256 is not 64 hexadecimal digits, as `sha256sum` prints them".to_string()))?,
        _ => return Err(bad("needs one of secret, secret_env and secret_sha256".into())),
    };
    let expires = entry
        .expires
        .map(|when| moment(&when.to_string()).ok_or(when))
        .transpose()
        .map_err(|when| bad(format!("expires = {when} is not a time with a zone, such as 2027-01-31T00:00:00Z")))?;
    if entry.seconds == Some(0) || entry.rows == Some(0) || entry.memory_mib == Some(0) {
        return Err(bad("a limit of 0 allows nothing; leave it out or raise it".into()));
    }
    Ok(Token {
        digest,
        expires,
        rows: entry.rows,
        time: Duration::from_secs(entry.seconds.unwrap_or(SECONDS)),
        memory: entry.memory_mib.map(|mib| mib << 20),
        models: entry.models,
        all_queries: entry.all_queries,
        name,
    })
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    if text.len() < SHORTEST {
        return Err(format!("its secret has under {SHORTEST} characters; take `openssl rand -hex 24`"));
    }
    secret::remember(text);
    Ok(Sha256::digest(text.as_bytes()).into())
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// A time with a zone.
fn moment(text: &str) -> Option<SystemTime> {
    let zoned = text.ends_with(['Z', 'z']) || text.get(11..)?.contains(['+', '-']);
    let nanos = string_to_timestamp_nanos(text).ok().filter(|_| zoned)?;
    Some(UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).ok()?))
}
