//! The session: parameters, read-only mode, tables of files, text types.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use salmon::query::{Models, Params, SessionOptions, register_files, session, sql};

use crate::query_support::{World, one_partition, table, templates};

#[tokio::test]
async fn parameters_are_values_and_never_text() {
    let world = World::new(20, &one_partition());
    let evil = "x'; DROP TABLE t; --";
    let params = Params::new()
        .with("text", evil)
        .with("whole", 3i64)
        .with("real", 0.5)
        .with("flag", true)
        .with("missing", ScalarValue::Utf8(None))
        .with_texts("list", &["odd", "x"])
        .with("not used", 1i64);
    let text = "SELECT $text AS t, id + $whole AS w, id * $real AS r, $flag AS f, $missing AS m, $list AS l
        FROM t WHERE array_has($list, kind) ORDER BY id LIMIT $whole";
    let batches = sql(&world.context, text, &params).await.unwrap().collect().await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    insta::assert_snapshot!(shown, @"
    +----------------------+---+-----+------+---+----------+
    | t                    | w | r   | f    | m | l        |
    +----------------------+---+-----+------+---+----------+
    | x'; DROP TABLE t; -- | 4 | 0.5 | true |   | [odd, x] |
    | x'; DROP TABLE t; -- | 6 | 1.5 | true |   | [odd, x] |
    | x'; DROP TABLE t; -- | 8 | 2.5 | true |   | [odd, x] |
    +----------------------+---+-----+------+---+----------+
    ");
    let error = sql(&world.context, "SELECT $a", &Params::new()).await.unwrap_err().to_string();
    assert_eq!(error, "SQL: parameter $a has no value; none are given");
    let error = sql(&world.context, "SELECT nonesuch FROM t", &Params::new()).await.unwrap_err();
    assert!(error.to_string().contains("nonesuch") && error.kind() == salmon::error::Kind::Query, "{error}");
}

#[tokio::test]
async fn a_read_only_session_answers_queries_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret.csv");
    std::fs::write(&file, "a\n1\n").unwrap();
    let file = file.display();
    let world = World::new(20, &SessionOptions { read_only: true, ..one_partition() });
    for text in [
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE x AS SELECT 1",
        "DROP TABLE t",
        "INSERT INTO t SELECT * FROM t",
        "DELETE FROM t",
        "UPDATE t SET id = 1",
        "SET datafusion.execution.batch_size = 1",
        "PREPARE p AS SELECT 1",
        &format!("COPY (SELECT 1) TO '{file}.out' STORED AS CSV"),
        &format!("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{file}'"),
        "EXPLAIN INSERT INTO t SELECT * FROM t",
        "EXPLAIN ANALYZE INSERT INTO t SELECT * FROM t",
        &format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}.out' STORED AS CSV"),
    ] {
        let error = world.refused(text).await;
        assert!(error.starts_with("read-only session: only queries are allowed ("), "{text}: {error}");
    }
    for text in [
        &format!("SELECT * FROM '{file}'"),
        &format!("SELECT * FROM 'file://{file}'"),
        &format!("SELECT * FROM read_csv('{file}')"),
        "SHOW TABLES",
        "SELECT * FROM information_schema.tables",
        "BEGIN",
        "SELECT 1; SELECT 2",
    ] {
        world.refused(text).await;
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    for text in ["SELECT * FROM t", "EXPLAIN SELECT * FROM t", "EXPLAIN ANALYZE SELECT reward('m', prompt) FROM t"] {
        assert!(world.count(text).await > 0);
    }
    // The same words are fine where writing is allowed.
    let world = World::new(20, &one_partition());
    world.count("CREATE VIEW v AS SELECT reward('m', prompt) AS s FROM t").await;
    assert_eq!(world.count("SELECT s FROM v WHERE s IS NOT NULL").await, 17);
    assert_eq!(world.m.requests(), 17);
}

#[tokio::test]
async fn files_of_any_store_become_tables_in_their_order() {
    let store = Arc::new(InMemory::new());
    let whole = table(30);
    let mut files = Vec::new();
    for (i, at) in [20, 0, 10].into_iter().enumerate() {
        let mut bytes = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, whole.schema(), None).unwrap();
        writer.write(&whole.slice(at, 10)).unwrap();
        writer.close().unwrap();
        let path = Path::from(format!("tables/t/with space {i}/part-0.parquet"));
        store.put(&path, bytes.into()).await.unwrap();
        files.push(path);
    }
    let world = World::new(0, &one_partition());
    let root = url::Url::parse("memory://run-7/").unwrap();
    let store: Arc<dyn ObjectStore> = store;
    register_files(&world.context, "t", &root, Arc::clone(&store), &files, whole.schema()).unwrap();
    let batches = world.batches("SELECT * FROM t").await.unwrap();
    assert_eq!(batches[0].schema().field(1).data_type(), &DataType::Utf8);
    let got = arrow::compute::concat_batches(&whole.schema(), &batches).unwrap();
    let wanted = arrow::compute::concat_batches(
        &whole.schema(),
        &[whole.slice(20, 10), whole.slice(0, 10), whole.slice(10, 10)],
    )
    .unwrap();
    assert_eq!(got, wanted);
    assert_eq!(world.count("SELECT reward('m', prompt) FROM t WHERE id < 3").await, 3);
    assert_eq!(world.m.requests(), 3);
    register_files(&world.context, "Empty.One", &root, store, &[], whole.schema()).unwrap();
    assert_eq!(world.count("SELECT * FROM \"Empty.One\"").await, 0);
}

#[tokio::test]
async fn texts_are_plain_utf8_and_bad_options_are_refused() {
    let world = World::new(3, &one_partition());
    let batches = world.batches("SELECT CAST(id AS VARCHAR) AS a, kind || 'x' AS b, 'c' AS c FROM t").await.unwrap();
    for field in batches[0].schema().fields() {
        assert_eq!(field.data_type(), &DataType::Utf8, "{}", field.name());
    }
    let options = SessionOptions { batch_size: 0, ..one_partition() };
    let error = session(Arc::new(Models::new()), templates(), &options).err().unwrap();
    assert_eq!(error.to_string(), "session option batch_size: must be at least 1");
}
