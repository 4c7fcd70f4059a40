//! One error type for the whole crate: what went wrong, where, and what to do about it.
//!
//! In: failures of every layer. Out: one line for the user and an exit code by kind.

use std::fmt;

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing failed; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A bug in salmon itself (exit code 70).
    Internal,
    /// The command line, `salmon.toml`, a principle file or a template (exit code 2).
    Config,
    /// An input row or file: prompts, preferences, tables (exit code 3).
    Data,
    /// A model folder: `config.json`, tensors, tokenizer, chat template (exit code 4).
    Model,
    /// Reading or writing a run: disk, S3, manifests (exit code 5).
    Store,
    /// A SQL statement (exit code 6).
    Query,
    /// Training went wrong, for example a loss that is not a number (exit code 7).
    Train,
    /// Stopped by SIGINT or SIGTERM after a commit; run the same command to go on (exit code 75).
    Interrupted,
}

impl Kind {
    /// The process exit code for this kind (`docs/errors.md` lists them).
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Config => 2,
            Kind::Data => 3,
            Kind::Model => 4,
            Kind::Store => 5,
            Kind::Query => 6,
            Kind::Train => 7,
            Kind::Internal => 70,
            Kind::Interrupted => 75,
        }
    }
}

/// An error with its place (file, row, key, tensor, stage, URL) and its cause.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    place: String,
    problem: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(place: impl fmt::Display, problem: impl fmt::Display) -> Self {
            Error { kind: Kind::$kind, place: place.to_string(), problem: problem.to_string(), source: None }
        }
    )*};
}

impl Error {
    constructors! {
        /// A bug in salmon: a state that should not be reachable.
        internal => Internal,
        /// Bad configuration: `place` names the file and key.
        config => Config,
        /// Bad input data: `place` names the file and row.
        data => Data,
        /// A bad model folder: `place` names the file or tensor.
        model => Model,
        /// A store failure: `place` is the URL (never with credentials).
        store => Store,
        /// A bad SQL statement or a failure while it ran.
        query => Query,
        /// A training failure: `place` names the stage and step.
        train => Train,
    }

    /// The run stopped at a commit because it was asked to.
    pub fn interrupted(place: impl fmt::Display) -> Self {
        Error {
            kind: Kind::Interrupted,
            place: place.to_string(),
            problem: "stopped after a commit; run the same command again to continue".into(),
            source: None,
        }
    }

    /// Attaches the underlying error; its text ends up in the same line.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it happened.
    pub fn place(&self) -> &str {
        &self.place
    }
}

impl fmt::Display for Error {
    /// `place: problem (cause)` on one line, whatever line breaks the parts hold, without a credential in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = if self.place.is_empty() { String::new() } else { format!("{}: ", self.place) };
        text += &self.problem;
        if let Some(source) = &self.source {
            let mut cause: Option<&dyn std::error::Error> = Some(source.as_ref());
            let mut last = String::new();
            while let Some(error) = cause {
                let line = error.to_string();
                // A wrapper that repeats its cause would print it twice.
                if !last.contains(&line) {
                    text += &format!(" ({line})");
                    last = line;
                }
                cause = error.source();
            }
        }
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        f.write_str(&crate::secret::scrub(&line))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    /// Gives back our own error where DataFusion only carried it; anything else is a query error.
    fn from(error: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as E;
        match error {
            E::External(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => match other.downcast::<E>() {
                    Ok(nested) => Error::from(*nested),
                    Err(other) => Error::query("SQL", other),
                },
            },
            E::Context(_, inner) => Error::from(*inner),
            E::ArrowError(inner, note) => match *inner {
                arrow::error::ArrowError::ExternalError(source) => Error::from(E::External(source)),
                other => Error::query("SQL", E::ArrowError(Box::new(other), note).strip_backtrace()),
            },
            E::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
                Ok(inner) => Error::from(inner),
                Err(shared) => match find_ours(shared.as_ref()) {
                    Some(ours) => ours.copied(),
                    None => Error::query("SQL", shared.strip_backtrace()),
                },
            },
            other => Error::query("SQL", other.strip_backtrace()),
        }
    }
}

fn find_ours<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours);
        }
        next = error.source();
    }
    None
}

impl Error {
    /// The same error without its source chain, for errors shared between streams.
    fn copied(&self) -> Error {
        Error { kind: self.kind, place: self.place.clone(), problem: self.problem.clone(), source: None }
    }
}

impl From<Error> for datafusion::error::DataFusionError {
    fn from(error: Error) -> Self {
        datafusion::error::DataFusionError::External(Box::new(error))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::from(datafusion::error::DataFusionError::from(error))
    }
}

impl From<tch::TchError> for Error {
    /// libtorch's message without its C++ stack.
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or("unknown error").trim_start_matches("Internal torch error: ");
        Error::model("libtorch", first)
    }
}
