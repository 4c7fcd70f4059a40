//! The gate of the protocols on HTTP: who has no token comes no further.
//!
//! In: the `Authorization` of a request, `Bearer TOKEN` or `Basic NAME:TOKEN`. Out: the request with its [`Token`], or
//! nothing.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::engine::Engine;
use super::tokens::{Token, Tokens};

/// What every request needs. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) engine: Arc<Engine>,
    pub(super) tokens: Arc<Tokens>,
}

impl Gate {
    /// The token of a request. A failure is counted for `protocol`.
    pub(super) fn admit(&self, headers: &HeaderMap, protocol: &'static str) -> Option<Arc<Token>> {
        let found = credentials(headers).and_then(|(name, secret)| self.tokens.find(name.as_deref(), &secret));
        if found.is_none() {
            self.engine.metrics.refused(protocol);
        }
        found
    }
}

/// Name, if there is one, and secret.
pub(super) fn credentials(headers: &HeaderMap) -> Option<(Option<String>, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((None, rest.trim().to_string()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (name, secret) = decoded.split_once(':')?;
    Some((Some(name.to_string()), secret.to_string()))
}
