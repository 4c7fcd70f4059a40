//! Wrong input: one line that says where and what, the exit code of its kind, nothing on standard output.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::cli_support::{batch, parquet, salmon, salmon_in, starter, tiny};

/// The one line of a failure.
#[track_caller]
fn line(folder: &Path, args: &[&str], code: i32) -> String {
    let err = salmon_in(folder, args, "").failed(code);
    let lines: Vec<&str> = err.lines().filter(|line| line.starts_with("salmon: ")).collect();
    assert_eq!(lines.len(), 1, "{err}");
    assert!(!err.contains("panicked"), "{err}");
    lines[0].to_string()
}

/// A starter folder with one change of its configuration.
fn changed(from: &str, to: &str) -> tempfile::TempDir {
    let folder = starter();
    let path = folder.path().join("salmon.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replace(from, to)).unwrap();
    folder
}

#[test]
fn a_wrong_configuration_is_code_2() {
    let nothing = tempfile::tempdir().unwrap();
    let missing = line(nothing.path(), &["run"], 2);
    assert!(missing.contains("salmon.toml: cannot be read; `salmon init` writes a starter"), "{missing}");
    for (from, to, says) in [
        ("temperature = 0.6", "temprature = 0.6", "salmon.toml:"),
        ("temperature = 0.6", "temprature = 0.6", "unknown field `temprature`"),
        ("samples = 5 ", "samples = \"many\" ", "salmon.toml:"),
        ("noise = 0.02 ", "noise = 2.0 ", "salmon.toml: preferences.noise: must lie between 0 and 1"),
        ("[judge]", "[judge", "salmon.toml:"),
        ("\"Polite\"]\ndraw", "\"Brave\"]\ndraw", "policies.brief: there is no principle `Brave`; the loaded"),
        ("chat = \"pocket_chat\"", "chat = \"no_chat\"", "templates: there is no template `no_chat`"),
        ("\"principles.toml\"", "\"other.toml\"", "there is no principle file"),
        ("judge_set = \"reward\"", "judge_set = \"rewards\"", "no principle is in the set `rewards`"),
        ("answers = [\"good\", \"bad\"]", "answers = [\"good\"]", "salmon.toml:"),
    ] {
        let folder = changed(from, to);
        let said = line(folder.path(), &["run"], 2);
        assert!(said.contains(says), "{to}: {said}");
        assert!(!folder.path().join("runs/main/tables").exists(), "{to}: something ran");
    }
}

#[test]
fn a_wrong_command_line_is_code_2() {
    let folder = starter();
    for (args, says) in [
        (&["run", "--set", "ppo.steps"][..], "--set ppo.steps: expected key=value"),
        (&["run", "--set", "ppo.stepz=3"], "unknown field `stepz`"),
        (&["run", "--set", "seed.x=3"], "--set seed.x=3: `seed` is not a section"),
        (&["run", "sftt"], "stage sftt: there is no such stage; there are principles, prompts"),
        (&["run", "prompts", "--force", "sft"], "stage sft: is forced but not among the stages"),
        (&["init"], "salmon.toml: is there already; choose another folder, or overwrite with --force"),
        (&["run", "--run", "ftp://host/x"], "ftp:// is not a store"),
    ] {
        let said = line(folder.path(), args, 2);
        assert!(said.contains(says), "{args:?}: {said}");
    }
    for args in [&["walk"][..], &["sql", "--format", "xml"], &["score", "--response", "x"], &[]] {
        let said = salmon(args);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{args:?}");
        assert!(said.err.contains("--help"), "{}", said.err);
    }
}

#[test]
fn wrong_data_is_code_3() {
    let folder = starter();
    let path = folder.path().join("prompts.parquet");
    parquet(&path, &batch("prompts", &[]));
    let said = line(folder.path(), &["run"], 3);
    assert!(said.contains("data.prompts: the files hold no prompts; look at what `salmon import` dropped"), "{said}");
    fs::remove_file(&path).unwrap();
    let said = line(folder.path(), &["run"], 3);
    assert!(said.contains("prompts.parquet: named by data.prompts, cannot be read"), "{said}");
}

#[test]
fn a_wrong_model_is_code_4() {
    let folder = changed("base = \"pocket\"", "base = \"no-such-model\"");
    let said = line(folder.path(), &["run"], 4);
    assert!(said.contains("no-such-model: there is no such model folder; give the folder with config.json"), "{said}");
}

#[test]
fn a_wrong_place_is_code_5() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["sql", "score", "chat", "runs", "report", "gc", "verify"] {
        let more = if command == "score" { &["--instruction", "a", "--response", "b"][..] } else { &[] };
        let args = [&[command, "--run", "nowhere"], more].concat();
        line(folder.path(), &args, 5);
        assert!(!folder.path().join("nowhere").exists(), "{command} made a run");
    }
    fs::create_dir(folder.path().join("empty")).unwrap();
    let said = line(folder.path(), &["runs", "--run", "empty"], 5);
    assert!(said.contains("empty: holds no run; check the URL, or make one with `salmon run`"), "{said}");
    let page = folder.path().join("file").join("report.html");
    fs::write(folder.path().join("file"), "x").unwrap();
    let said = line(folder.path(), &["report", "--run", tiny(), "--out", page.to_str().unwrap()], 5);
    assert!(said.contains("report.html: cannot be written"), "{said}");
}

#[test]
fn a_wrong_statement_is_code_6() {
    let here = Path::new(".");
    let sql = |statement: &str| line(here, &["sql", "--run", tiny(), "-c", statement], 6);
    for statement in ["insert into prompts select * from prompts", "copy prompts to 'x.parquet'"] {
        let said = sql(statement);
        assert!(said.contains("runs are only read here"), "{said}");
    }
    assert!(sql("create table prompts as select 1").contains("prompts"));
    assert!(sql("drop table prompts").contains("prompts"));
    assert!(sql("select * from promptz").contains("promptz"));
    assert!(sql("select nme from principles").contains("nme"));
    assert!(sql("selec 1").contains("selec"));
    assert!(line(here, &["sql", "--run", tiny(), "-f", "no.sql"], 6).contains("no.sql: cannot be read"));
}

#[test]
fn an_error_is_an_object_where_logs_are_json() {
    let folder = tempfile::tempdir().unwrap();
    let said = salmon_in(folder.path(), &["run", "--log-format", "json"], "").failed(2);
    let error: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&error["level"], &error["kind"], &error["exit_code"]), (&json!("ERROR"), &json!("config"), &json!(2)));
    assert!(error["message"].as_str().unwrap().starts_with("salmon.toml: cannot be read"), "{said}");
}
