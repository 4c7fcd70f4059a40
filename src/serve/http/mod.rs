//! HTTP: queries, what there is to ask, metrics, and a page for people.
//!
//! | path | gives |
//! |---|---|
//! | `POST /query` | the rows of a statement, in the format that `Accept` asks for |
//! | `DELETE /query/ID` | cancels it |
//! | `GET /tables` | tables and views with their columns |
//! | `GET /runs` | the runs and their history |
//! | `GET /lineage/SCHEMA/NAME` | what a table or model was made from |
//! | `GET /metrics` | figures for Prometheus |
//! | `GET /healthz`, `/readyz` | whether it lives, whether it takes queries; without a token |
//! | `GET /` | the page; without a token, which it asks for |

mod format;
mod listing;
mod page;
mod query;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::failure::{Failure, Why};
use super::gate::Gate;

pub(super) const PROTOCOL: &str = "http";

/// Every path.
pub(super) fn router(gate: Gate) -> Router {
    Router::new()
        .route("/query", post(query::query))
        .route("/query/{id}", delete(query::cancel))
        .route("/tables", get(listing::tables))
        .route("/runs", get(listing::runs))
        .route("/lineage/{schema}/{name}", get(listing::lineage))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(gate.clone(), admit))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .merge(page::router())
        .layer(middleware::map_response(protect))
        .with_state(gate)
}

async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    match gate.admit(request.headers(), PROTOCOL) {
        Some(token) => {
            request.extensions_mut().insert(token);
            next.run(request).await
        }
        None => Failure::unauthenticated().into_response(),
    }
}

/// What browsers are told about every answer.
async fn protect(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    response
}

async fn ready(State(gate): State<Gate>) -> Response {
    match gate.engine.is_ready() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
    }
}

async fn metrics(State(gate): State<Gate>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], gate.engine.metrics_text()).into_response()
}

/// A JSON document.
fn json(value: &serde_json::Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.why {
            Why::Unauthenticated => StatusCode::UNAUTHORIZED,
            Why::Refused => StatusCode::FORBIDDEN,
            Why::Invalid => StatusCode::BAD_REQUEST,
            Why::Time => StatusCode::REQUEST_TIMEOUT,
            Why::Rows | Why::Memory => StatusCode::UNPROCESSABLE_ENTITY,
            Why::Cancelled => StatusCode::CONFLICT,
            Why::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Why::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = serde_json::json!({"error": self.text}).to_string();
        let mut response = (status, [(CONTENT_TYPE, "application/json")], Body::from(body)).into_response();
        if self.why == Why::Unauthenticated {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
