//! Why a query gave no answer.
//!
//! In: errors of every layer. Out: a kind, which each protocol has a code for, and one line without a credential in it.

use datafusion::common::DataFusionError;

use crate::Error;
use crate::error::Kind;

/// The kinds that clients must tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// No token, a wrong one, one that has expired.
    Unauthenticated,
    /// Not a query, or something that the token may not do.
    Refused,
    /// A statement that cannot be planned or whose values do not fit.
    Invalid,
    /// The token's time is over.
    Time,
    /// More rows than the token may read.
    Rows,
    /// More memory than there is.
    Memory,
    /// Someone cancelled it, or nobody waits for it any more.
    Cancelled,
    /// The server is ending, or has too much to do.
    Unavailable,
    /// Neither the client's fault nor its business.
    Internal,
}

/// A query that was refused or did not end well.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) why: Why,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(why: Why, text: impl Into<String>) -> Self {
        Failure { why, text: text.into() }
    }

    pub(super) fn unauthenticated() -> Self {
        // The same whatever is wrong with it: whoever guesses learns nothing.
        Failure::new(Why::Unauthenticated, "a token is needed: it is missing, unknown or has expired")
    }

    pub(super) fn refused(text: impl Into<String>) -> Self {
        Failure::new(Why::Refused, text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let why = match error.kind() {
            Kind::Internal => Why::Internal,
            Kind::Store => Why::Unavailable,
            _ => Why::Invalid,
        };
        Failure { why, text: error.to_string() }
    }
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        let memory = matches!(error.find_root(), DataFusionError::ResourcesExhausted(_));
        let failure = Failure::from(Error::from(error));
        if memory { Failure { why: Why::Memory, ..failure } } else { failure }
    }
}
