//! Runs as SQL: schemas, past versions, what a session refuses, what an unknown name is told.

use std::time::Duration;

use salmon::catalog::{Catalog, Options, nearest, text};
use salmon::query::{Params, SessionOptions};
use salmon::store::{Artifact, Current, Store, records, versions_of};

use crate::pipeline_support::{POLICIES, Place, number, whole};

fn url() -> String {
    whole().run().to_str().unwrap().to_string()
}

async fn catalog(read_only: bool) -> Catalog {
    let session = SessionOptions { read_only, ..SessionOptions::default() };
    let runs = [(Some("a".to_string()), url()), (Some("b".to_string()), url())];
    Catalog::open(&runs, &Options { session, models: false }).await.unwrap()
}

/// One number of a statement through the catalog.
async fn one(catalog: &Catalog, sql: &str) -> i64 {
    let session = catalog.session().unwrap();
    let rows = catalog.sql(&session, sql, &Params::new()).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let rows = rows.collect().await.unwrap();
    let column = arrow::compute::cast(rows[0].column(0), &arrow::datatypes::DataType::Int64).unwrap();
    arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&column).value(0)
}

/// Why a statement is refused.
async fn refused(catalog: &Catalog, sql: &str) -> String {
    let session = catalog.session().unwrap();
    match catalog.sql(&session, sql, &Params::new()).await {
        Err(error) => error.to_string(),
        Ok(rows) => rows.collect().await.expect_err(sql).to_string(),
    }
}

#[tokio::test]
async fn every_table_of_every_run_is_there() {
    let catalog = catalog(true).await;
    let all = number(&salmon::catalog::session(&url()).await.unwrap(), "select count(*) from judgments").await;
    assert!(all > 0);
    assert_eq!(one(&catalog, "select count(*) from judgments").await, all);
    assert_eq!(one(&catalog, "select count(*) from a.judgments").await, all);
    let both = "select count(*) from a.preferences x join b.preferences y using (prompt_id, chosen, rejected)";
    assert!(one(&catalog, both).await > 0);
    // A table that no stage has made is empty; each declared one is there.
    let tables = "select count(*) from information_schema.tables where table_schema = 'b'";
    let declared = salmon::table::all().len() + salmon::catalog::views::all().len();
    assert_eq!(one(&catalog, tables).await, declared as i64);
}

#[tokio::test]
async fn a_version_is_found_by_the_start_of_its_fingerprint_or_a_time() {
    let store = Store::open(&url()).unwrap();
    let artifact = Artifact::table("judgments");
    let version = versions_of(&store, &artifact).await.unwrap().remove(0);
    let print = version.fingerprint();
    let catalog = catalog(true).await;
    let all = one(&catalog, "select count(*) from judgments").await;
    for name in [format!("judgments@{}", &print[..6]), format!("\"judgments@{print}\""), format!("b.judgments@{print}")]
    {
        assert_eq!(one(&catalog, &format!("select count(*) from {name} as j where j.score_ab is not null")).await, all);
    }
    let made = records(&store).await.unwrap().into_iter().find(|record| record.stage == "judgments").unwrap();
    let after = "select count(*) from judgments as of '2199-01-01' j join judgments k using (prompt_id, sample_1, \
                 sample_2, principle)";
    assert_eq!(one(&catalog, after).await, all);
    assert_eq!(one(&catalog, "select count(*) from judgments FOR SYSTEM_TIME AS OF '2199-01-01 10:00:00'").await, all);

    let error = refused(&catalog, "select * from judgments@0000000000").await;
    let listed = format!("table judgments@0000000000: there is no such version; there are {} (", &print[..12]);
    assert!(error.starts_with(&listed) && error.ends_with(&format!("{all} rows)")), "{error}");
    let error = refused(&catalog, &format!("select * from judgments as of '{}'", made.info.started)).await;
    assert!(error.contains("nothing had been made by then; there are"), "{error}");
    let error = refused(&catalog, "select * from \"judgments@yesterday\"").await;
    assert!(error.contains("a version is the start of a fingerprint (table runs has them) or a time as in"), "{error}");
    let error = refused(&catalog, "select * from judgment@abc").await;
    assert_eq!(error, "table judgment@abc: is not there; did you mean judgments@abc?");
}

#[tokio::test]
async fn an_ambiguous_version_lists_those_that_fit() {
    let place = Place::copy(POLICIES);
    let run = place.run();
    let store = Store::open(run.to_str().unwrap()).unwrap();
    // A second version whose fingerprint starts as the first one's does.
    let artifact = Artifact::table("pairs");
    let version = versions_of(&store, &artifact).await.unwrap().remove(0);
    place.succeed(&["--set", "responses.rounds=1", "pairs"]);
    let all = versions_of(&store, &artifact).await.unwrap();
    assert_eq!(all.len(), 2);
    let catalog = Catalog::of(vec![(None, store.clone())], &Options::default()).unwrap();
    let error = refused(&catalog, "select * from \"pairs@\"").await;
    assert!(error.contains("a version is"), "{error}");
    // Both are there under their names, and the newest is the current one.
    let old = one(&catalog, &format!("select count(*) from pairs@{}", version.fingerprint())).await;
    let other = all.iter().find(|other| other.fingerprint() != version.fingerprint()).unwrap();
    let new = one(&catalog, &format!("select count(*) from pairs@{}", other.fingerprint())).await;
    assert!(new < old, "{new} {old}");
    assert_eq!(one(&catalog, "select count(*) from pairs").await, new);
    let current = Current::load(&store).await.unwrap();
    assert_eq!(current.fingerprint(&artifact, "pairs"), Some(other.fingerprint()));
}

#[tokio::test]
async fn unknown_names_are_told_the_nearest() {
    let catalog = catalog(true).await;
    for (sql, told) in [
        ("select * from judgement", "table judgement: is not there; did you mean judgments?"),
        ("select * from b.preference", "table b.preference: is not there; did you mean preferences?"),
        ("select * from bb.pairs", "table bb.pairs: there is no schema bb; did you mean b.pairs?"),
        ("select scor_ab from judgments", "Did you mean 'judgments.score_ab'?"),
        ("select count_token('sft', 'a')", "Did you mean 'count_tokens'?"),
        ("select rewards('reward', 'a')", "Did you mean 'reward'?"),
    ] {
        let error = refused(&catalog, sql).await;
        assert!(error.contains(told), "{sql}: {error}");
    }
    assert_eq!(nearest("zebra", ["judgments", "pairs"]), None);
    let error = refused(&catalog, "select * from zebra").await;
    assert!(
        error.starts_with("table zebra: is not there; there are answers, best_and_worst_rollouts, demonstrations,"),
        "{error}"
    );
}

#[tokio::test]
async fn sql_of_strangers_only_reads() {
    let catalog = catalog(true).await;
    for sql in [
        "create view v as select 1",
        "create table t as select 1",
        "create external table t stored as csv location '/etc/passwd'",
        "create schema s",
        "drop table judgments",
        "insert into judgments select * from judgments",
        "delete from judgments",
        "update judgments set verdict = 'tie'",
        "truncate judgments",
        "copy judgments to '/tmp/x.csv'",
        "copy (select 1) to '/tmp/x.csv' stored as csv",
        "explain analyze copy (select 1) to '/tmp/x.csv' stored as csv",
        "explain insert into judgments select * from judgments",
        "set datafusion.execution.batch_size = 1",
        "reset datafusion.execution.batch_size",
        "prepare p as select 1",
        "begin",
        "select * from '/etc/passwd'",
        "select * from information_schema.df_settings",
        "show all",
        "show datafusion.execution.batch_size",
        "select 1; select 2",
    ] {
        refused(&catalog, sql).await;
    }
    for sql in
        ["select 1", "explain select * from judgments", "show tables", "describe judgments", "show columns from pairs"]
    {
        let session = catalog.session().unwrap();
        let rows = catalog.sql(&session, sql, &Params::new()).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert!(!rows.collect().await.unwrap().is_empty(), "{sql}");
    }
    // The shell of a local user may define what only it keeps, and nothing else.
    let own = self::catalog(false).await;
    let session = own.session().unwrap();
    own.sql(&session, "create view v as select count(*) as n from judgments", &Params::new()).await.unwrap();
    let rows = own.sql(&session, "select n from v", &Params::new()).await.unwrap().collect().await.unwrap();
    assert_eq!(rows[0].num_rows(), 1);
    for (sql, told) in [
        ("insert into judgments select * from judgments", "runs are only read here"),
        ("copy (select 1) to '/tmp/x.csv' stored as csv", "runs are only read here"),
        ("drop table judgments", "judgments"),
        ("create view judgments as select 1", "'judgments' already exists"),
    ] {
        let error = refused(&own, sql).await;
        assert!(error.contains(told), "{sql}: {error}");
    }
}

#[tokio::test]
async fn runs_need_names_of_their_own() {
    let store = || Store::open(&url()).unwrap();
    let name = |name: &str| Some(name.to_string());
    for (runs, told) in [
        (vec![(None, store()), (name("b"), store())], "of several runs each needs a name of its own: a=URL"),
        (vec![(name("a"), store()), (name("a"), store())], "the name is taken"),
        (vec![(name("A b"), store())], "the name must be lower-case letters, digits and _, a letter first"),
        (vec![(name("public"), store())], "the name is taken"),
    ] {
        let error = Catalog::of(runs, &Options::default()).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_session_is_made_in_no_time_and_reads_nothing() {
    let catalog = catalog(true).await;
    catalog.session().unwrap();
    let began = std::time::Instant::now();
    for _ in 0..10 {
        catalog.session().unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn statements_are_cut_where_the_parser_says() {
    let script = "select 'a;b' as \"x;y\"; -- one; two\n/* three; */ ;;\nselect $$;$$, e'it''s;' ; select 1";
    let found = text::statements(script).unwrap();
    assert_eq!(found, ["select 'a;b' as \"x;y\"", "select $$;$$, e'it''s;'", "select 1"]);
    assert_eq!(text::statements("-- nothing\n;").unwrap(), Vec::<&str>::new());
    assert!(text::statements("select 'open").is_err());
    let many = "select 'ä' as ü,\n\t'ß;' ; select 2";
    assert_eq!(text::statements(many).unwrap(), ["select 'ä' as ü,\n\t'ß;'", "select 2"]);
    for (written, read) in [
        ("select * from t as of '2026-01-01' x", "select * from \"t@2026-01-01\" x"),
        ("select * from A.T AS OF '1' join \"T\" as of '2'", "select * from A.\"t@1\" join \"T@2\""),
        ("select x as of from t", "select x as of from t"),
        ("select 't as of ''1''' -- t as of '1'", "select 't as of ''1''' -- t as of '1'"),
    ] {
        assert_eq!(text::as_of(written).unwrap(), read);
    }
}
