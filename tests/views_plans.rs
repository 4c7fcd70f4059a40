//! The shipped views hold what their heads say, plan as recorded, and stand over tables without rows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use salmon::query::{Params, sql};
use salmon::table;

use crate::sql_support::{Bench, schema};
use crate::views_support::World;

/// The shipped views in the order of their names: name and statement.
fn views() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/views");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_string();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The statement of a view.
pub(crate) fn view(name: &str) -> String {
    views().into_iter().find(|(found, _)| found == name).unwrap().1
}

/// A session over two runs: the views that `drift` reads, as tables of schemas `a` and `b`.
pub(crate) async fn two_runs(a: &World, b: &World) -> Bench {
    let bench = a.bench(1);
    for (alias, world) in [("a", a), ("b", b)] {
        world.fill(&bench);
        bench.run(&format!("create schema {alias}"), &Params::new()).await;
        for name in ["order_flips", "dominant_principles", "label_noise", "negation_consistency", "reward_kl"] {
            bench.run(&format!("create table {alias}.{name} as {}", view(name)), &Params::new()).await;
        }
    }
    bench
}

/// The words of a text, as SQL has names.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').collect()
}

#[tokio::test]
async fn the_head_of_a_view_names_its_tables_and_columns() {
    let bench = two_runs(&World::new(1), &World::new(2)).await;
    for (name, text) in views() {
        assert!(text.starts_with(&format!("-- {name}: ")), "{name}: the first line says what it answers");
        let (head, body): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("-- "));
        let head = head.join("\n");
        let (_, inputs) = head.split_once("\n-- In:  ").unwrap_or_else(|| panic!("{name}: no In"));
        let (inputs, outputs) = inputs.split_once("\n-- Out: ").unwrap_or_else(|| panic!("{name}: no Out"));
        let tables = table::all().into_iter().map(|table| table.name);
        let named: BTreeSet<&str> = tables.clone().filter(|table| words(inputs).contains(table)).collect();
        let body = body.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        let read = |by: &str, table: &str| {
            body.split(by)
                .skip(1)
                .any(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next() == Some(table))
        };
        let reads = |table: &&str| read(" from ", table) || read(" join ", table);
        assert_eq!(tables.filter(reads).collect::<BTreeSet<_>>(), named, "{name}");
        for column in bench.run(&text, &Params::new()).await.0.schema().fields() {
            assert!(words(outputs).contains(column.name().as_str()), "{name}: {} is not explained", column.name());
        }
    }
}

#[test]
fn every_file_is_a_view() {
    let mut shipped: Vec<(String, String)> =
        salmon::catalog::views::all().iter().map(|view| (view.name.into(), view.sql.into())).collect();
    shipped.sort();
    assert_eq!(shipped, views());
    assert!(salmon::catalog::views::all().iter().all(|view| view.doc().ends_with('?') || view.doc().contains("? ")));
}

#[tokio::test]
async fn a_run_without_rows_has_views_without_rows() {
    let bench = Bench::new(&[], &[], 2);
    for table in table::all() {
        bench.put(table.name, schema(table.name), &[]);
    }
    for (name, text) in views().into_iter().filter(|(name, _)| name != "drift") {
        assert_eq!(bench.run(&text, &Params::new()).await.len(), 0, "{name}");
    }
}

#[tokio::test]
async fn plans_are_as_recorded() {
    let bench = two_runs(&World::new(1), &World::new(2)).await;
    for (name, text) in views() {
        let frame = sql(&bench.context, &text, &Params::new()).await.unwrap();
        let logical = frame.clone().into_optimized_plan().unwrap().display_indent().to_string();
        let physical = frame.create_physical_plan().await.unwrap();
        let physical = datafusion::physical_plan::displayable(physical.as_ref()).indent(false).to_string();
        assert_snapshot!(name.as_str(), format!("{logical}\n--\n{}", physical.trim_end()));
    }
}
