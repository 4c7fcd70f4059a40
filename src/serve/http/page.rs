//! The page for people: three files that are part of the program.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_FRAME_OPTIONS};

use crate::serve::gate::Gate;

/// Nothing from elsewhere, nothing in the text of the page, nothing around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn router() -> Router<Gate> {
    Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", include_str!("../page/index.html"))))
        .route("/page.js", get(async || file("text/javascript; charset=utf-8", include_str!("../page/page.js"))))
        .route("/chart.js", get(async || file("text/javascript; charset=utf-8", include_str!("../page/chart.js"))))
        .route("/page.css", get(async || file("text/css; charset=utf-8", include_str!("../page/page.css"))))
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY), (X_FRAME_OPTIONS, "DENY")], text)
}
