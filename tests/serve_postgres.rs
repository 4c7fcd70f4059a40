//! The Postgres wire protocol with tokio-postgres.

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::serve_support::{ANALYST, NARROW, shared};

async fn client() -> tokio_postgres::Client {
    shared().postgres("analyst", ANALYST).await.unwrap()
}

fn cells(messages: &[SimpleQueryMessage]) -> Vec<Vec<Option<String>>> {
    messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(String::from)).collect()),
            _ => None,
        })
        .collect()
}

/// The reason of a failure.
#[track_caller]
fn reason<T: std::fmt::Debug>(result: Result<T, tokio_postgres::Error>) -> (String, String) {
    let error = result.unwrap_err();
    let inner = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    (inner.code().code().to_string(), inner.message().to_string())
}

#[tokio::test]
async fn the_simple_protocol_gives_text() {
    let client = client().await;
    let rows =
        cells(&client.simple_query("select kind, count(*) from prompts group by kind order by kind").await.unwrap());
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0][0].as_deref(), Some("general"));
    let two = cells(&client.simple_query("select 1; select null::text").await.unwrap());
    assert_eq!(two, [vec![Some("1".to_string())], vec![None]]);
    let (code, text) = reason(client.simple_query("select * from prompt").await);
    assert_eq!(code, "42000");
    assert!(text.contains("did you mean prompts?"), "{text}");
    // The connection goes on.
    assert_eq!(client.simple_query("select 1").await.unwrap().len(), 3);
}

#[tokio::test]
async fn the_extended_protocol_gives_typed_rows_for_values() {
    let client = client().await;
    let statement = client
        .prepare("select prompt_id, length_bonus from prompts where kind = $1 order by prompt_id limit 3")
        .await
        .unwrap();
    let rows = client.query(&statement, &[&"general"]).await.unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].get::<_, f64>(1), 1.0);
    assert!(client.query(&statement, &[&"' or true --"]).await.unwrap().is_empty());
    let n: i64 =
        client.query_one("select count(*) from judgments where score_ab > $1", &[&-1e9f64]).await.unwrap().get(0);
    assert!(n > 0);
    let list: Vec<String> =
        client.query_one("select sets from principles where name = 'Honest'", &[]).await.unwrap().get(0);
    assert!(!list.is_empty());
}

#[tokio::test]
async fn a_portal_is_read_in_pieces() {
    let mut client = client().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("select response from responses order by prompt_id, sample", &[]).await.unwrap();
    let first = transaction.query_portal(&portal, 5).await.unwrap();
    let second = transaction.query_portal(&portal, 5).await.unwrap();
    assert_eq!((first.len(), second.len()), (5, 5));
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn tools_find_tables_and_columns() {
    let client = client().await;
    // psql's \d
    let relations = r#"SELECT n.nspname as "Schema", c.relname as "Name",
        CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index' WHEN 'S' THEN 'sequence' WHEN 't' THEN 'TOAST table' WHEN 'f' THEN 'foreign table' WHEN 'p' THEN 'partitioned table' WHEN 'I' THEN 'partitioned index' END as "Type",
        pg_catalog.pg_get_userbyid(c.relowner) as "Owner"
        FROM pg_catalog.pg_class c
        LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
        WHERE c.relkind IN ('r','p','v','m','S','f','')
        AND n.nspname <> 'pg_catalog' AND n.nspname !~ '^pg_toast' AND n.nspname <> 'information_schema'
        AND pg_catalog.pg_table_is_visible(c.oid)
        ORDER BY 1,2"#;
    let rows = cells(&client.simple_query(relations).await.unwrap());
    assert!(rows.iter().any(|row| row[1].as_deref() == Some("judgments")), "{rows:?}");
    let columns = "select column_name, data_type from information_schema.columns where table_name = 'runs' order by ordinal_position";
    let rows = cells(&client.simple_query(columns).await.unwrap());
    assert_eq!(rows[0][0].as_deref(), Some("stage"));
    let rows = cells(&client.simple_query("select current_database(), current_schema()").await.unwrap());
    assert_eq!(rows[0], [Some("salmon".to_string()), Some("public".to_string())]);
}

#[tokio::test]
async fn what_tools_set_is_answered_and_the_rest_refused() {
    let client = client().await;
    for statement in [
        "SET extra_float_digits = 3",
        "SET application_name = 'PostgreSQL JDBC Driver'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET TIME ZONE 'UTC'",
        "BEGIN",
        "COMMIT",
        "BEGIN READ ONLY",
        "ROLLBACK",
        "DISCARD ALL",
    ] {
        client.simple_query(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let shown = cells(&client.simple_query("SHOW transaction_isolation").await.unwrap());
    assert_eq!(shown, [[Some("serializable".to_string())]]);
    assert_eq!(client.query_one("SHOW server_version_num", &[]).await.unwrap().get::<_, String>(0), "160006");
    for statement in
        ["SET datafusion.execution.target_partitions = 1", "SET role = 'admin'", "RESET ALL", "SAVEPOINT a"]
    {
        assert_eq!(reason(client.simple_query(statement).await).0, "25006", "{statement}");
    }
    assert_eq!(reason(client.simple_query("SHOW datafusion.catalog.location").await).0, "42000");
}

#[tokio::test]
async fn a_running_query_can_be_cancelled() {
    let client = client().await;
    let token = client.cancel_token();
    let slow = tokio::spawn(async move {
        let sql = "select count(*) as pg_slow from generate_series(1, 2000000000) a, generate_series(1, 1000) b";
        reason(client.simple_query(sql).await)
    });
    let running =
        "select query_id from query_log where status = 'running' and sql like '%pg_slow%' and protocol = 'postgres'";
    while shared().rows(ANALYST, running).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    token.cancel_query(NoTls).await.unwrap();
    let (code, text) = slow.await.unwrap();
    assert_eq!(code, "57014");
    assert!(text.contains("cancel"), "{text}");
}

#[tokio::test]
async fn limits_are_errors_with_their_codes() {
    let client = shared().postgres("narrow", NARROW).await.unwrap();
    let (code, text) = reason(client.simple_query("select * from generate_series(1, 1000)").await);
    assert_eq!(code, "54000");
    assert!(text.contains("100 rows"), "{text}");
    let (code, _) = reason(
        client.simple_query("select count(*) from generate_series(1, 2000000000) a, generate_series(1, 1000) b").await,
    );
    assert_eq!(code, "57014");
}
