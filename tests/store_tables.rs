//! The Parquet sink and the SQL binding: declared columns, exact bytes, exact files.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use salmon::store::{Artifact, Current, Info, Limits, Lineage, Manifest, Store, TableSink, bind, read_rows};
use salmon::table;

use crate::store_common::{metrics, version};

const SMALL: Limits = Limits { group_rows: 100, group_bytes: 6_000, part_rows: 350, part_bytes: 1 << 30 };

/// Writes rows `0..rows` in batches of the sizes given, over and over, and gives the parts.
async fn write(store: &Store, rows: i64, sizes: &[i64], limits: Limits) -> Vec<salmon::store::FileEntry> {
    let mut sink = TableSink::new(store, &version("metrics"), &table::metrics(), limits);
    let (mut start, mut sizes) = (0, sizes.iter().cycle());
    while start < rows {
        let end = (start + sizes.next().unwrap()).min(rows);
        sink.write(&metrics(start..end)).await.unwrap();
        start = end;
    }
    sink.finish().await.unwrap()
}

async fn committed(store: &Store, rows: i64) -> Manifest {
    let version = version("metrics");
    let files = write(store, rows, &[64], SMALL).await;
    let schema = table::metrics().schema();
    let manifest = Manifest::new(&version, files, Some(&schema), Lineage::default(), Info::begin());
    manifest.publish(store).await.unwrap();
    Manifest::read(store, &version).await.unwrap().unwrap()
}

#[tokio::test]
async fn same_rows_make_the_same_bytes_in_any_batches() {
    let mut all = Vec::new();
    for sizes in [&[1000][..], &[1], &[0, 7, 93, 256, 1], &[99, 101]] {
        let store = Store::open("memory://").unwrap();
        let files = write(&store, 1000, sizes, SMALL).await;
        assert_eq!(files.iter().map(|f| f.rows).sum::<u64>(), 1000);
        assert!(files.len() > 1, "the rows fill several parts");
        all.push(files);
    }
    assert!(all.iter().all(|files| files == &all[0]), "{all:#?}");
    // The row groups follow the bytes of the values: none much longer than 6,000.
    let store = Store::open("memory://").unwrap();
    let files = write(&store, 1000, &[1000], SMALL).await;
    let bytes = store.get(&version("metrics").key(&files[0].path)).await.unwrap().unwrap();
    let reader = parquet::file::serialized_reader::SerializedFileReader::new(bytes).unwrap();
    use parquet::file::reader::FileReader;
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|g| g.num_rows()).collect();
    assert!(groups.iter().all(|rows| (30..=100).contains(rows)), "{groups:?}");
    assert_eq!(reader.metadata().file_metadata().created_by(), Some("salmon"));
}

/// Writes one batch to `table` and gives the rows as text, or the error.
async fn sink_one(table: &table::Table, batch: &RecordBatch) -> Result<String, String> {
    let store = Store::open("memory://").unwrap();
    let version = version(table.name);
    let mut sink = TableSink::new(&store, &version, table, Limits::default());
    sink.write(batch).await.map_err(|e| e.to_string())?;
    let files = sink.finish().await.map_err(|e| e.to_string())?;
    let manifest = Manifest::new(&version, files, Some(&table.schema()), Lineage::default(), Info::default());
    let rows = read_rows(&store, &manifest, 0..u64::MAX).await.map_err(|e| e.to_string())?;
    assert!(rows.iter().all(|rows| rows.schema() == table.schema()));
    Ok(pretty_format_batches(&rows).unwrap().to_string())
}

/// One row of a `metrics` batch with one column replaced (or added).
fn with(name: &str, column: ArrayRef) -> RecordBatch {
    let rows = metrics(0..column.len() as i64);
    let mut columns: Vec<(String, ArrayRef)> = rows
        .schema()
        .fields()
        .iter()
        .zip(rows.columns())
        .filter(|(f, _)| f.name() != name)
        .map(|(f, c)| (f.name().clone(), Arc::clone(c)))
        .collect();
    columns.push((name.to_string(), column));
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

#[tokio::test]
async fn columns_convert_when_nothing_is_lost() {
    let text: DictionaryArray<Int32Type> = ["x", "y"].into_iter().collect();
    let good: Vec<(&str, ArrayRef)> = vec![
        ("stage", Arc::new(LargeStringArray::from(vec!["x", "y"]))),
        ("stage", Arc::new(StringViewArray::from(vec!["x", "y"]))),
        ("stage", Arc::new(text)),
        ("step", Arc::new(UInt64Array::from(vec![1, 2]))),
        ("step", Arc::new(Int8Array::from(vec![1, 2]))),
        ("value", Arc::new(Float32Array::from(vec![0.5, 1.5]))),
        ("value", Arc::new(Int32Array::from(vec![1, 2]))),
    ];
    for (name, column) in good {
        let rows = sink_one(&table::metrics(), &with(name, column)).await.unwrap();
        assert_eq!(rows.lines().count(), 6, "{rows}");
    }
}

#[tokio::test]
async fn bad_columns_are_named_with_their_row() {
    let bad: Vec<(&str, ArrayRef, &str)> = vec![
        (
            "step",
            Arc::new(StringArray::from(vec!["1", "2"])),
            "table metrics, column step: is Utf8, but the table declares Int64; convert it with CAST in the SQL",
        ),
        (
            "step",
            Arc::new(Float64Array::from(vec![1.0, 2.0])),
            "table metrics, column step: is Float64, but the table declares Int64; convert it with CAST in the SQL",
        ),
        (
            "step",
            Arc::new(UInt64Array::from(vec![1, u64::MAX])),
            "table metrics, column step, row 2: does not fit into Int64",
        ),
        (
            "value",
            Arc::new(Float64Array::from(vec![Some(1.0), Some(1.0), None])),
            "table metrics, column value, row 3: is null, but this column needs a value",
        ),
        (
            "value",
            Arc::new(NullArray::new(2)),
            "table metrics, column value, row 1: is null, but this column needs a value",
        ),
        (
            "extra",
            Arc::new(Int64Array::from(vec![1])),
            "table metrics, column extra: is not a column of this table; it has stage, step, name, value",
        ),
    ];
    for (name, column, expected) in bad {
        assert_eq!(sink_one(&table::metrics(), &with(name, column)).await.unwrap_err(), expected);
    }
    let without = metrics(0..1).project(&[0, 1, 2]).unwrap();
    assert_eq!(
        sink_one(&table::metrics(), &without).await.unwrap_err(),
        "table metrics, column value: is missing; the SQL must select it"
    );
    // Rows count from the start of the stream, not of the batch.
    let store = Store::open("memory://").unwrap();
    let mut sink = TableSink::new(&store, &version("metrics"), &table::metrics(), Limits::default());
    sink.write(&metrics(0..500)).await.unwrap();
    let error = sink.write(&with("value", Arc::new(Float64Array::from(vec![None])))).await.unwrap_err();
    assert!(error.to_string().contains("row 501"), "{error}");
}

#[tokio::test]
async fn lists_of_structs_match_by_name_and_name_the_row() {
    let table = table::Table {
        name: "principles_only",
        doc: "",
        columns: table::preferences().columns.into_iter().filter(|c| c.name == "principles").collect(),
    };
    // Fields in another order, another float width, views: list<struct<score, text, negated, name>>.
    let build = |fields: Vec<(&str, ArrayRef)>| {
        let structs = StructArray::try_from(fields).unwrap();
        let item = Arc::new(Field::new("element", structs.data_type().clone(), true));
        let offsets = arrow::buffer::OffsetBuffer::<i32>::from_lengths([0, 2, 1]);
        let list = LargeListArray::new(
            Arc::clone(&item),
            arrow::buffer::OffsetBuffer::new(offsets.iter().map(|o: &i32| i64::from(*o)).collect::<Vec<i64>>().into()),
            Arc::new(structs),
            None,
        );
        let schema = Schema::new(vec![Field::new("principles", DataType::LargeList(item), true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(list)]).unwrap()
    };
    let text: ArrayRef = Arc::new(StringViewArray::from(vec![Some("be brief"), None, Some("be kind")]));
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, false]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["Concise", "Specific", "Polite"]));
    let scores: ArrayRef = Arc::new(Float32Array::from(vec![Some(0.5), None, Some(2.0)]));
    let fields = |scores: ArrayRef| {
        vec![("score", scores), ("text", text.clone()), ("negated", flags.clone()), ("name", names.clone())]
    };
    let rows = sink_one(&table, &build(fields(scores))).await.unwrap();
    insta::assert_snapshot!(rows, @r"
    +-----------------------------------------------------------------------------------------------------------------+
    | principles                                                                                                      |
    +-----------------------------------------------------------------------------------------------------------------+
    | []                                                                                                              |
    | [{name: Concise, negated: true, text: be brief, score: 0.5}, {name: Specific, negated: false, text: , score: }] |
    | [{name: Polite, negated: false, text: be kind, score: 2.0}]                                                     |
    +-----------------------------------------------------------------------------------------------------------------+
    ");

    let late: ArrayRef = Arc::new(UInt64Array::from(vec![1, 2, 3]));
    let error = sink_one(&table, &build(vec![("score", late)])).await.unwrap_err();
    assert_eq!(error, "table principles_only, column principles: has no field name");
    // The last of four values, in row 3 of the table.
    let table = table::rollouts();
    let ids = LargeListArray::from_iter_primitive::<arrow::datatypes::UInt64Type, _, _>(vec![
        Some(vec![Some(1), Some(2)]),
        Some(vec![]),
        Some(vec![Some(3), Some(u64::MAX)]),
    ]);
    let one = table::Table { columns: table.columns.into_iter().filter(|c| c.name == "query_ids").collect(), ..table };
    let batch = RecordBatch::try_from_iter([("query_ids", Arc::new(ids) as ArrayRef)]).unwrap();
    let error = sink_one(&one, &batch).await.unwrap_err();
    assert_eq!(error, "table rollouts, column query_ids, row 3: does not fit into Int64");
}

#[tokio::test]
async fn rows_are_read_by_number() {
    let store = Store::open("memory://").unwrap();
    let manifest = committed(&store, 1000).await;
    for range in [0..1, 0..1000, 340..360, 349..350, 999..1000, 700..5000, 1000..1001] {
        let batches = read_rows(&store, &manifest, range.clone()).await.unwrap();
        let expected = metrics(range.start as i64..range.end.min(1000) as i64);
        let read = arrow::compute::concat_batches(&table::metrics().schema(), &batches).unwrap();
        assert_eq!(read.columns(), expected.columns(), "{range:?}");
    }
}

#[tokio::test]
async fn sql_sees_exactly_the_files_of_the_manifests() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["memory://", folder.path().join("run 界#1").to_str().unwrap()] {
        let store = Store::open(url).unwrap();
        let manifest = committed(&store, 1000).await;
        // A part that no manifest names is not a part of the table.
        let stray = store.get(&version("metrics").key("part-00000.parquet")).await.unwrap().unwrap();
        store.put(&version("metrics").key("part-00099.parquet"), stray).await.unwrap();
        let mut current = Current::load(&store).await.unwrap();
        current.set(&store, &Artifact::table("metrics"), "sft", &manifest.fingerprint).await.unwrap();

        let ctx =
            salmon::catalog::Catalog::of(vec![(None, store.clone())], &Default::default()).unwrap().session().unwrap();
        let query = async |sql: &str| {
            let rows = ctx.sql(sql).await.unwrap().collect().await.unwrap();
            pretty_format_batches(&rows).unwrap().to_string()
        };
        let totals = query("select count(*), sum(step), min(value) from metrics").await;
        let last = query("select step from metrics where step >= 997 order by step desc limit 2").await;
        // Tables the run does not have are empty, with their columns.
        let none = query("select count(*) n, count(verdict) v from judgments").await;
        assert_eq!(query("select count(*) n from runs").await.lines().nth(3), Some("| 0 |"));
        insta::allow_duplicates! {
            insta::assert_snapshot!(totals, @r"
            +----------+-------------------+--------------------+
            | count(*) | sum(metrics.step) | min(metrics.value) |
            +----------+-------------------+--------------------+
            | 1000     | 499500            | 0.0                |
            +----------+-------------------+--------------------+
            ");
            insta::assert_snapshot!(last, @r"
            +------+
            | step |
            +------+
            | 999  |
            | 998  |
            +------+
            ");
            insta::assert_snapshot!(none, @r"
            +---+---+
            | n | v |
            +---+---+
            | 0 | 0 |
            +---+---+
            ");
        }
        assert_eq!(query("select * from preferences").await.lines().count(), 2);
        for table in table::all() {
            let sql = format!("select column_name from information_schema.columns where table_name = '{}'", table.name);
            assert_eq!(query(&sql).await.lines().count(), table.columns.len() + 4, "{}", table.name);
        }
    }
}

#[tokio::test]
async fn a_version_with_other_columns_is_refused() {
    let store = Store::open("memory://").unwrap();
    let mut manifest = committed(&store, 5).await;
    manifest.schema.as_mut().unwrap()[3].data_type = "Float32".into();
    let error = bind(&SessionContext::new(), &store, &table::metrics(), &[manifest]).unwrap_err();
    assert!(error.to_string().contains("was written with other columns than table metrics has"), "{error}");
}
