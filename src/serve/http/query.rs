//! `POST /query`.
//!
//! In: a statement as text, or `{"sql": .., "params": {..}}`. Out: rows, as they are made. The header `salmon-query` has
//! the number to cancel it by, `salmon-columns` the columns. A query that fails before its first row is answered with a
//! status and the reason; one that fails later breaks the connection off, so that no part is taken for the whole.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use datafusion::common::{ParamValues, ScalarValue};
use futures::{Stream, StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::PROTOCOL;
use super::format::{Format, Writer};
use crate::serve::answer::Answer;
use crate::serve::engine::Origin;
use crate::serve::failure::{Failure, Why};
use crate::serve::gate::Gate;
use crate::serve::listen::PATIENCE;
use crate::serve::tokens::Token;

/// Most bytes of a request.
const BODY: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    sql: String,
    #[serde(default)]
    params: HashMap<String, Value>,
}

pub(super) async fn query(
    State(gate): State<Gate>,
    Extension(token): Extension<Arc<Token>>,
    request: Request,
) -> Result<Response, Failure> {
    let format = Format::accepted(request.headers()).ok_or_else(|| {
        Failure::new(Why::Invalid, "Accept names no format that is known here: JSON, NDJSON, CSV, Arrow")
    })?;
    let question = read(request).await?;
    let values = values(question.params)?;
    let answer = gate.engine.ask(&token, &question.sql, values, Origin::new(PROTOCOL)).await?;
    let columns: Vec<&str> = answer.schema.fields().iter().map(|field| field.name().as_str()).collect();
    let columns = ascii(&serde_json::json!(columns).to_string());
    let headers = [
        (CONTENT_TYPE, format.media_type().to_string()),
        (HeaderName::from_static("salmon-query"), answer.id.to_string()),
        (HeaderName::from_static("salmon-columns"), columns),
    ];
    let body = Body::from_stream(pieces(answer, format)?);
    Ok((headers, body).into_response())
}

pub(super) async fn cancel(
    State(gate): State<Gate>,
    Extension(token): Extension<Arc<Token>>,
    Path(id): Path<u64>,
) -> StatusCode {
    if gate.engine.cancel(&token, id) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn read(request: Request) -> Result<Question, Failure> {
    let bad = |problem: String| Failure::new(Why::Invalid, problem);
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(';').next().unwrap_or_default().trim() == "application/json");
    let body = tokio::time::timeout(PATIENCE, to_bytes(request.into_body(), BODY));
    let bytes = body
        .await
        .map_err(|_| Failure::new(Why::Time, "the request took too long to arrive"))?
        .map_err(|_| bad(format!("the request cannot be read, or has more than {BODY} bytes")))?;
    if is_json {
        return serde_json::from_slice(&bytes).map_err(|e| bad(format!("the request is not {{\"sql\": ..}}: {e}")));
    }
    let sql = String::from_utf8(bytes.into()).map_err(|_| bad("the statement is not UTF-8".into()))?;
    Ok(Question { sql, params: HashMap::new() })
}

/// JSON values for `$name`.
fn values(params: HashMap<String, Value>) -> Result<Option<ParamValues>, Failure> {
    if params.is_empty() {
        return Ok(None);
    }
    let mut values = HashMap::with_capacity(params.len());
    for (name, value) in params {
        let value = match value {
            Value::Null => ScalarValue::Null,
            Value::Bool(value) => ScalarValue::from(value),
            Value::String(text) => ScalarValue::from(text),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => ScalarValue::from(whole),
                None => ScalarValue::from(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::Array(_) | Value::Object(_) => {
                return Err(Failure::new(
                    Why::Invalid,
                    format!("parameter {name} is not a text, a number, true, false or null"),
                ));
            }
        };
        values.insert(name, value);
    }
    Ok(Some(values.into()))
}

/// A header holds ASCII only.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| out += &format!("\\u{unit:04x}"));
        }
    }
    out
}

fn pieces(answer: Answer, format: Format) -> Result<impl Stream<Item = std::io::Result<bytes::Bytes>>, Failure> {
    let writer = Writer::new(format, Arc::clone(&answer.schema)).map_err(crate::Error::from)?;
    Ok(stream::unfold(Some((answer, writer)), |state| async move {
        let (mut answer, mut writer) = state?;
        Some(match answer.next().await {
            Some(Ok(batch)) => match writer.write(&batch) {
                Ok(bytes) => (Ok(bytes), Some((answer, writer))),
                Err(e) => (Err(std::io::Error::other(e)), None),
            },
            Some(Err(failure)) => (Err(std::io::Error::other(failure.text)), None),
            None => (writer.finish().map_err(std::io::Error::other), None),
        })
    }))
}
