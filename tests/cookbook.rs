//! docs/cookbook.md: every query runs, and shows on the page what it gives.
//!
//! The runs are in tests/fixtures/cookbook (scripts/cookbook.sh). `UPDATE_DOCS=1` writes the outputs instead of comparing.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use salmon::catalog::{Catalog, Options};
use salmon::query::{Params, SessionOptions};

use crate::docs::page_is;

const PAGE: &str = "docs/cookbook.md";

/// The runs as the page opens them: `b` is the one that a query without an alias asks.
async fn catalog() -> Catalog {
    open(&["b", "a"]).await
}

async fn open(names: &[&str]) -> Catalog {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cookbook");
    let runs: Vec<_> =
        names.iter().map(|name| (Some(name.to_string()), folder.join(name).display().to_string())).collect();
    let session = SessionOptions { read_only: true, ..SessionOptions::default() };
    Catalog::open(&runs, &Options { session, models: true }).await.unwrap()
}

async fn answer(catalog: &Catalog, text: &str) -> String {
    let session = catalog.session().unwrap();
    let frame = catalog.sql(&session, text, &Params::new()).await.unwrap_or_else(|e| panic!("{e}:\n{text}"));
    let schema = std::sync::Arc::new(frame.schema().as_arrow().clone());
    let mut rows = frame.collect().await.unwrap_or_else(|e| panic!("{e}:\n{text}"));
    if rows.is_empty() {
        rows.push(RecordBatch::new_empty(schema));
    }
    pretty_format_batches(&rows).unwrap().to_string()
}

#[tokio::test]
async fn every_query_gives_what_the_page_shows() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap();
    let catalog = catalog().await;
    let (mut wanted, mut query, mut fence, mut ran) = (String::new(), String::new(), "", 0);
    for line in page.lines() {
        match (fence, line) {
            ("", "```sql" | "```text") => {
                fence = line;
                wanted += &format!("{line}\n");
                if line == "```sql" {
                    query.clear();
                }
            }
            ("```text", "```") => {
                assert!(!query.is_empty(), "an output without a query");
                wanted += &format!("{}\n```\n", answer(&catalog, query.trim_end().trim_end_matches(';')).await);
                query.clear();
                (fence, ran) = ("", ran + 1);
            }
            // The output as it was.
            ("```text", _) => {}
            (_, line) => {
                if line == "```" {
                    fence = "";
                } else if fence == "```sql" {
                    query += &format!("{line}\n");
                }
                wanted += &format!("{line}\n");
            }
        }
    }
    assert!(ran >= 12, "only {ran} queries have an output");
    page_is(PAGE, &wanted);
}

#[tokio::test]
async fn drift_of_one_run_says_what_it_needs() {
    let catalog = open(&["b"]).await;
    let session = catalog.session().unwrap();
    let error = catalog.sql(&session, "SELECT * FROM drift", &Params::new()).await.unwrap_err().to_string();
    assert!(error.contains("view drift: compares runs; open them with --run a=URL --run b=URL"), "{error}");
    let listed = "SELECT table_name FROM information_schema.tables WHERE table_name IN ('drift', 'splits')";
    let listed = answer(&catalog, listed).await;
    assert!(!listed.contains("drift") && listed.contains("splits"), "{listed}");
}
