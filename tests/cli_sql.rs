//! `salmon sql`: standard output is data and nothing else, in three formats, from four places.

use std::fs;

use serde_json::json;

use super::cli_support::{salmon, salmon_in, tiny};

const SQL: &str =
    "select name, weight, sets[1] as first_set from principles where name in ('Concise', 'Humble') order by name";

#[test]
fn each_format_is_data_only() {
    let said = |format: &str| {
        let ran = salmon(&["sql", "--run", tiny(), "--format", format, "-c", SQL]);
        assert_eq!(ran.err, "");
        ran
    };
    assert_eq!(said("csv").ok(), "name,weight,first_set\nConcise,1.0,reward\nHumble,1.0,reward\n");
    let row = |name: &str| json!({"name": name, "weight": 1.0, "first_set": "reward"});
    assert_eq!(said("json").rows(), [row("Concise"), row("Humble")]);
    let table = said("table").ok();
    assert_eq!(table.lines().count(), 6, "{table}");
    assert!(table.contains("| Concise | 1.0    | reward    |"), "{table}");
}

#[test]
fn no_rows_are_still_well_formed() {
    let none = |format: &str| {
        let sql = "select name from principles where false";
        salmon(&["sql", "--run", tiny(), "--format", format, "-c", sql])
    };
    assert!(none("json").rows().is_empty());
    assert!(none("table").ok().contains("| name |"));
    assert!(none("csv").ok().lines().count() <= 1);
}

#[test]
fn nulls_are_kept_in_json() {
    let sql = "select principle, subset from evaluations where what = 'judge' and principle is null";
    let rows = salmon(&["sql", "--run", tiny(), "--format", "json", "-c", sql]).rows();
    assert_eq!(rows, [json!({"principle": null, "subset": null})]);
}

#[test]
fn a_statement_comes_from_a_file_or_standard_input_too() {
    let folder = tempfile::tempdir().unwrap();
    // Semicolons in quotes and comments do not end a statement.
    let script = "select 'a;b' as x; -- one; two\nselect count(*) as n from prompts;\n";
    fs::write(folder.path().join("q.sql"), script).unwrap();
    let expected = "x\na;b\nn\n275\n";
    for (args, input) in [(&["-f", "q.sql"][..], ""), (&["-f", "-"], script), (&[], script)] {
        let args = [&["sql", "--run", tiny(), "--format", "csv"], args].concat();
        assert_eq!(salmon_in(folder.path(), &args, input).ok(), expected, "{args:?}");
    }
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_salmon"))
        .args(["sql", "--run", tiny(), "-c", "select * from rollouts"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
