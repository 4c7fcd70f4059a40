//! `salmon report`: a page that is well formed, holds the run's figures, and escapes whatever a run holds.

use std::fs;
use std::sync::Arc;

use salmon::principle::{Library, Templates};
use salmon::query::{self, Models, SessionOptions};
use salmon::{report, store};
use serde_json::json;

use super::cli_support::{ask, batch, salmon, salmon_in, starter, tiny};

/// Elements that have no end tag.
const VOID: [&str; 4] = ["meta", "br", "link", "img"];

/// Walks over the tags: attributes are quoted, and every element ends where it must. Gives the text between tags.
fn well_formed(page: &str) -> String {
    let body = page.strip_prefix("<!DOCTYPE html>").expect("the document type comes first");
    let (mut open, mut text): (Vec<&str>, String) = (Vec::new(), String::new());
    let mut rest = body;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a bare >: {}", &rest[..start]);
        text += &rest[..start];
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> in {open:?}");
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of <{tag}>");
        let name = tag.split([' ', '/', '\n']).next().unwrap();
        assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "<{tag}>");
        if name == "style" {
            // Its text is no markup.
            rest = &rest[rest.find("</style>").unwrap()..];
        }
        if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never ended: {open:?}");
    text
}

fn page() -> String {
    let folder = tempfile::tempdir().unwrap();
    let out = salmon_in(folder.path(), &["report", "--run", tiny()], "").ok();
    assert_eq!(out, "report.html\n");
    fs::read_to_string(folder.path().join("report.html")).unwrap()
}

#[test]
fn the_page_stands_alone() {
    let page = page();
    well_formed(&page);
    for outside in ["http://", "https://", "<script", "<link", "<img", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(!page.contains("No data"), "a whole run has data for every section");
}

#[test]
fn the_page_holds_the_figures() {
    let page = page();
    let text = well_formed(&page);
    let cell = |value: &str| assert!(page.contains(&format!(">{value}</td>")), "{value}");
    for row in ask("select value from evaluations where what = 'reward' and principle is null") {
        cell(&format!("{:.3}", row["value"].as_f64().unwrap()));
    }
    for row in ask("select value from evaluations where what = 'judge' and principle is not null") {
        cell(&format!("{:.3}", row["value"].as_f64().unwrap()));
    }
    let ties = "select avg(case when verdict = 'tie' then 1.0 else 0.0 end) as ties from judgments group by principle";
    for row in ask(ties) {
        cell(&format!("{:.3}", row["ties"].as_f64().unwrap()));
    }
    for table in ["demonstrations", "responses", "pairs", "preferences"] {
        let sql =
            format!("select count(*) as n, coalesce(drop_reason, 'kept') as reason from {table} group by drop_reason");
        for row in ask(&sql) {
            cell(&row["n"].to_string());
            assert!(text.contains(row["reason"].as_str().unwrap()), "{row}");
        }
    }
    for row in ask("select stage, rows from runs") {
        assert!(page.contains(&format!("<td>{}</td>", row["stage"].as_str().unwrap())), "{row}");
        cell(&row["rows"].to_string());
    }
    assert!(text.contains("brief → brief-kind: with Polite"), "the intervention");
    let answer = &ask("select response from responses where sample = 0 order by prompt_id limit 1")[0];
    assert!(text.contains(answer["response"].as_str().unwrap()), "{answer}");
    // Rows; two of the judge; four of the reward model; curves of SFT (2), reward (2) and PPO (4); the intervention.
    assert_eq!(page.matches("<svg ").count(), 16);
}

#[test]
fn the_page_is_the_same_twice() {
    assert_eq!(page(), page());
}

#[test]
fn a_run_that_has_just_begun_says_what_is_missing() {
    let folder = starter();
    salmon_in(folder.path(), &["run", "principles", "--run", "here"], "");
    salmon_in(folder.path(), &["report", "--run", "here", "--out", "deep/page.html"], "").ok();
    let page = fs::read_to_string(folder.path().join("deep/page.html")).unwrap();
    well_formed(&page);
    assert_eq!(page.matches("No data: ").count(), 7, "{page}");
    assert!(page.contains("<td>principles</td>"));
}

#[tokio::test]
async fn whatever_a_run_holds_is_escaped() {
    let bad = "</td><script>alert('x')</script>&\"";
    let templates = Arc::new(Templates::load(None, &Library::default()).unwrap());
    let ctx = query::session(Arc::new(Models::new()), templates, &SessionOptions::default()).unwrap();
    for table in salmon::table::all() {
        store::bind_batches(&ctx, table.name, table.schema(), vec![]).unwrap();
    }
    let put = |name: &str, rows: &[serde_json::Value]| {
        let rows = batch(name, rows);
        store::bind_batches(&ctx, name, rows.schema(), vec![rows]).unwrap();
    };
    let figure = |what: String, subset: &str| json!({"what": what, "principle": bad, "subset": subset, "metric": "accuracy", "value": 0.5, "n": 2});
    put("evaluations", &[figure("reward".into(), bad), figure(format!("policy:{bad}"), "")]);
    let curve = |step| json!({"stage": format!("policy:{bad}"), "step": step, "name": "objective/kl", "value": step});
    let other = json!({"stage": "policy:b", "step": 1, "name": "objective/kl", "value": 1e300});
    put("metrics", &[curve(1), curve(2), other]);
    put(
        "responses",
        &[
            json!({"prompt_id": "p", "sample": 0, "response": bad, "tokens": 1, "finish_reason": bad, "logprob": 0.0, "kept": false, "drop_reason": bad}),
        ],
    );
    put(
        "prompts",
        &[
            json!({"prompt_id": "p", "instruction": bad, "source": "s", "kind": "general", "length_bonus": 1.0, "split": "train"}),
        ],
    );
    put(
        "judgments",
        &[
            json!({"prompt_id": "p", "instruction": bad, "split": "train", "sample_1": 0, "sample_2": 1, "response_1": "", "response_2": "", "principle": bad, "score_ab": 1.0, "score_ba": -1.0, "verdict": "tie"}),
        ],
    );
    let page = report::page(&ctx, bad, None).await.unwrap();
    well_formed(&page);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
}

#[test]
fn a_page_replaces_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("page.html");
    fs::write(&out, "before").unwrap();
    salmon(&["report", "--run", tiny(), "--out", out.to_str().unwrap()]).ok();
    assert!(fs::read_to_string(&out).unwrap().starts_with("<!DOCTYPE html>"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}
