//! Queries and everything else over HTTP.

use arrow::ipc::reader::StreamReader;
use serde_json::json;

use super::serve_support::{ANALYST, AUDITOR, MODELLER, NARROW, shared};

const COUNT: &str = "select kind, count(*) as n from prompts group by kind order by kind";

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

#[test]
fn rows_come_in_every_format() {
    let authorization = bearer(ANALYST);
    let asked = |accept: &str| {
        let headers = [("Authorization", authorization.as_str()), ("Accept", accept)];
        shared().http("POST", "/query", &headers, COUNT)
    };
    let rows = asked("application/json").json();
    let kinds: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["general", "red_teaming"]);
    assert_eq!(asked("text/html, */*;q=0.1").json(), rows);

    let lines = asked("application/x-ndjson");
    let parsed: Vec<serde_json::Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json!(parsed), rows);
    assert_eq!(lines.headers["content-type"], "application/x-ndjson");
    assert_eq!(lines.headers["salmon-columns"], r#"["kind","n"]"#);

    let csv = asked("text/csv").text();
    assert_eq!(csv.lines().next(), Some("kind,n"));
    assert_eq!(csv.lines().count(), 3);

    let arrow = asked("application/vnd.apache.arrow.stream");
    let batches: Vec<_> = StreamReader::try_new(arrow.body.as_slice(), None).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);

    assert!(asked("image/png").error(400).contains("no format"));
}

#[test]
fn no_rows_keep_their_columns() {
    let headers = [("Authorization", &*bearer(ANALYST)), ("Accept", "text/csv")];
    let reply = shared().http("POST", "/query", &headers, "select kind as \"größe\", source from prompts where false");
    assert_eq!(reply.text(), "größe,source\n");
    assert_eq!(reply.headers["salmon-columns"], r#"["gr\u00f6\u00dfe","source"]"#);
    assert_eq!(shared().ask(ANALYST, "select 1 as a where false").text(), "[]");
}

#[test]
fn parameters_are_values_and_never_text() {
    let authorization = bearer(ANALYST);
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    let ask = |body: serde_json::Value| shared().http("POST", "/query", &headers, &body.to_string());
    let sql = "select $name as name, $n + 1 as n, $yes as yes, $nothing as nothing";
    let params = json!({"name": "x' or 1=1 --", "n": 41, "yes": true, "nothing": null});
    let rows = ask(json!({"sql": sql, "params": params})).json();
    assert_eq!(rows, json!([{"name": "x' or 1=1 --", "n": 42, "yes": true, "nothing": null}]));
    assert!(ask(json!({"sql": "select $a", "params": {}})).status >= 400);
    assert!(ask(json!({"sql": "select $a", "params": {"a": [1]}})).error(400).contains("parameter a"));
    assert!(ask(json!({"statement": "select 1"})).error(400).contains("sql"));
}

#[test]
fn mistakes_are_explained() {
    let why = |sql: &str| shared().ask(ANALYST, sql).error(400);
    assert!(why("select * from prompt").contains("did you mean prompts?"));
    assert!(why("select instructio from prompts").contains("instruction"));
    assert!(why("selec 1").contains("SQL"));
    assert!(why("").contains("no statement"));
    let two = shared().ask(ANALYST, "select 1; select 2").error(403);
    assert!(two.contains("one statement at a time"), "{two}");
}

#[test]
fn past_versions_and_views_are_there() {
    let print = &shared().rows(ANALYST, "select fingerprint from runs where name = 'judgments'")[0]["fingerprint"];
    let version = print.as_str().unwrap();
    let sql = format!(
        "select (select count(*) from judgments) as now, (select count(*) from \"judgments@{version}\") as past"
    );
    let row = &shared().rows(ANALYST, &sql)[0];
    assert_eq!(row["now"], row["past"]);
    let row = &shared().rows(ANALYST, "select count(*) as n from judgments as of '2100-01-01'")[0];
    assert!(row["n"].as_i64().unwrap() > 0);
}

#[test]
fn everything_that_can_be_asked_is_listed() {
    let authorization = bearer(ANALYST);
    let get = |path: &str| shared().http("GET", path, &[("Authorization", authorization.as_str())], "");
    let tables = get("/tables").json();
    let found = |name: &str| tables.as_array().unwrap().iter().find(|table| table["table"] == name).cloned();
    let judgments = found("judgments").unwrap();
    assert_eq!(judgments["kind"], "TABLE");
    assert_eq!(judgments["columns"][0], json!({"name": "prompt_id", "type": "Utf8", "nullable": false}));
    assert!(found("query_log").is_some());

    let runs = get("/runs").json();
    assert_eq!((&runs[0]["run"], &runs[0]["schema"]), (&json!("run"), &json!("public")));
    assert!(runs[0]["stages"].as_array().unwrap().len() > 10);

    let lineage = get("/lineage/public/preferences").json();
    let names: Vec<&str> = lineage.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"preferences") && names.contains(&"judgments") && names.contains(&"sft"), "{names:?}");
    assert!(get("/lineage/public/nothing").error(400).contains("no table or model"));
    assert!(get("/lineage/other/prompts").error(400).contains("no run other"));
}

#[test]
fn health_needs_no_token_and_metrics_do() {
    let get = |path: &str, secret: Option<&str>| {
        let authorization = secret.map(bearer);
        let headers: Vec<(&str, &str)> = authorization.iter().map(|value| ("Authorization", value.as_str())).collect();
        shared().http("GET", path, &headers, "")
    };
    assert_eq!((get("/healthz", None).text(), get("/readyz", None).text()), ("ok\n".into(), "ready\n".into()));
    assert_eq!(get("/metrics", None).status, 401);
    shared().rows(ANALYST, "select 1");
    let text = get("/metrics", Some(ANALYST)).text();
    let done = text.lines().find(|line| line.starts_with("salmon_queries_total{protocol=\"http\",status=\"done\"}"));
    assert!(done.unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap() > 0);
    for name in
        ["query_seconds_bucket", "rows_total", "refused_total", "queries_running", "memory_limit_bytes 268435456"]
    {
        assert!(text.contains(&format!("salmon_{name}")), "{name}: {text}");
    }
}

#[test]
fn the_page_holds_itself_together() {
    let page = shared().http("GET", "/", &[], "");
    assert_eq!(page.status, 200);
    let policy = &page.headers["content-security-policy"];
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"));
    for path in ["/", "/page.js", "/chart.js", "/page.css"] {
        let file = shared().http("GET", path, &[], "");
        assert_eq!(file.status, 200, "{path}");
        assert_eq!(file.headers["x-content-type-options"], "nosniff");
        let text = file.text();
        // The name of SVG is an address too, and nobody goes there.
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("://"), "{path} names another place");
        assert!(!text.contains("innerHTML") && !text.contains("eval("), "{path}");
    }
    let page = page.text();
    assert!(!page.contains("<script>") && !page.contains("style=") && !page.contains("onclick="));
}

#[test]
fn the_log_shows_a_token_its_own_queries() {
    shared().rows(ANALYST, "select 'from the analyst' as t");
    shared().rows(NARROW, "select 'from the narrow one' as t");
    let seen = |secret: &str| {
        let sql = "select token, protocol, sql, status, rows, seconds from query_log where sql like 'select ''from the%' order by query_id";
        shared().rows(secret, sql)
    };
    let mine = seen(NARROW);
    assert!(!mine.is_empty() && mine.iter().all(|row| row["token"] == "narrow"), "{mine:?}");
    assert_eq!(
        (&mine[0]["status"], &mine[0]["rows"], &mine[0]["protocol"]),
        (&json!("done"), &json!(1), &json!("http"))
    );
    let all = seen(AUDITOR);
    assert!(all.iter().any(|row| row["token"] == "analyst") && all.iter().any(|row| row["token"] == "narrow"));
}

#[test]
fn models_answer_tokens_that_may_ask_them() {
    let sql = "select generate('sft', instruction, {max_tokens: 4, seed: 1, row: prompt_id})['tokens'] as tokens from prompts limit 2";
    let rows = shared().rows(MODELLER, sql);
    assert!(rows.len() == 2 && rows.iter().all(|row| row["tokens"].as_i64().unwrap() <= 4), "{rows:?}");
    for statement in
        [sql, "select count_tokens('sft', 'a')", "select * from prompts where reward('reward', instruction) > 0"]
    {
        let error = shared().ask(ANALYST, statement).error(403);
        assert!(error.contains("needs a model, which token analyst may not ask"), "{statement}: {error}");
    }
}

#[test]
fn a_query_can_be_cancelled_by_its_number() {
    let slow = std::thread::spawn(|| {
        shared().ask(
            ANALYST,
            "select count(*) as slow_one from generate_series(1, 2000000000) a, generate_series(1, 1000) b",
        )
    });
    let id = loop {
        let sql = "select query_id from query_log where status = 'running' and sql like 'select count(*) as slow_one%'";
        if let Some(row) = shared().rows(ANALYST, sql).first() {
            break row["query_id"].as_u64().unwrap();
        }
    };
    let cancel = |secret: &str| {
        shared().http("DELETE", &format!("/query/{id}"), &[("Authorization", &bearer(secret))], "").status
    };
    assert_eq!(cancel(NARROW), 404, "a query of another token");
    assert_eq!(cancel(ANALYST), 204);
    assert!(slow.join().unwrap().error(409).contains("cancelled"));
}
