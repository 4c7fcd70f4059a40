//! What tools say when they connect, besides queries.
//!
//! In: SET, SHOW, BEGIN, DISCARD and the like. Out: the answer that the tool waits for, and no effect: there is nothing
//! to set or to roll back. A setting that is not on the list is refused, so that nobody believes in it.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch};
use datafusion::sql::sqlparser::ast::{Set, Statement};
use futures::stream;
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use pgwire::error::PgWireResult;

use crate::serve::failure::{Failure, Why};

/// Settings that clients and tools set by themselves, in lower case.
const SETTABLE: [&str; 15] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
];

/// What SHOW says.
const SHOWN: [(&str, &str); 15] = [
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, YMD"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_read_only", "on"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("max_identifier_length", "63"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", "16.6"),
    ("server_version_num", "160006"),
    ("standard_conforming_strings", "on"),
    ("timezone", "UTC"),
    ("transaction_isolation", "serializable"),
];

/// The kinds of statement that are answered here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    Begin,
    Commit,
    Rollback,
    Nothing(&'static str),
    Show(&'static str, &'static str),
}

impl Setting {
    /// What the statement sets or shows, if it is of that kind.
    pub(super) fn of(statement: &Statement) -> Result<Option<Setting>, Failure> {
        Ok(Some(match statement {
            Statement::StartTransaction { statements, .. } if statements.is_empty() => Setting::Begin,
            Statement::Commit { .. } => Setting::Commit,
            Statement::Rollback { savepoint: None, .. } => Setting::Rollback,
            Statement::Discard { .. } => Setting::Nothing("DISCARD ALL"),
            Statement::Deallocate { .. } => Setting::Nothing("DEALLOCATE"),
            Statement::Set(set) => settable(set)?,
            Statement::ShowVariable { variable } => {
                let words: Vec<String> = variable.iter().map(|word| word.value.to_lowercase()).collect();
                shown(&words.join(" "))?
            }
            _ => return Ok(None),
        }))
    }

    /// The columns of the answer.
    pub(super) fn fields(&self, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
        match self {
            Setting::Show(name, _) => arrow_schema_to_pg_fields(&column(name), format, None),
            _ => Ok(Vec::new()),
        }
    }

    /// The answer.
    pub(super) fn answer(&self, format: &Format) -> PgWireResult<Response> {
        Ok(match self {
            Setting::Begin => Response::TransactionStart(Tag::new("BEGIN")),
            Setting::Commit => Response::TransactionEnd(Tag::new("COMMIT")),
            Setting::Rollback => Response::TransactionEnd(Tag::new("ROLLBACK")),
            Setting::Nothing(tag) => Response::Execution(Tag::new(tag)),
            Setting::Show(name, value) => {
                let schema = Arc::new(column(name));
                let fields = Arc::new(self.fields(format)?);
                let column = Arc::new(StringArray::from(vec![*value]));
                let batch =
                    RecordBatch::try_new(schema, vec![column]).map_err(|e| Failure::from(crate::Error::from(e)))?;
                let rows = stream::iter(encode_recordbatch(Arc::clone(&fields), batch));
                Response::Query(QueryResponse::new(fields, rows))
            }
        })
    }
}

fn column(name: &str) -> Schema {
    Schema::new(vec![Field::new(name, DataType::Utf8, false)])
}

fn settable(set: &Set) -> Result<Setting, Failure> {
    let name = match set {
        Set::SingleAssignment { variable, .. } => variable.to_string().to_lowercase(),
        Set::SetTimeZone { .. } | Set::SetNames { .. } | Set::SetTransaction { .. } => {
            return Ok(Setting::Nothing("SET"));
        }
        other => other.to_string(),
    };
    if SETTABLE.contains(&name.trim_matches('"')) {
        return Ok(Setting::Nothing("SET"));
    }
    Err(Failure::refused(format!("{name} cannot be set: the server only reads")))
}

fn shown(name: &str) -> Result<Setting, Failure> {
    let name = match name {
        "transaction isolation level" => "transaction_isolation",
        "time zone" => "timezone",
        other => other,
    };
    let found = SHOWN.iter().find(|(known, _)| *known == name);
    found
        .map(|(name, value)| Setting::Show(name, value))
        .ok_or_else(|| Failure::new(Why::Invalid, format!("there is no setting {name} to show")))
}
