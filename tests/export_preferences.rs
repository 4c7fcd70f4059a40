//! `salmon export preferences`: every layout row by row, both forms, and the card.

use std::fs;
use std::path::Path;

use arrow::json::writer::LineDelimited;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use salmon::store::Store;
use serde_json::{Value, json};

use super::cli_support::{ask, copy_of_tiny, salmon, tiny};

/// Runs the command; gives its folder.
fn export(run: &str, layout: &str, format: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display().to_string();
    let args = ["export", "preferences", "--run", run, "--out", &out, "--layout", layout, "--format", format];
    assert_eq!(salmon(&args).ok(), format!("{out}\n"));
    folder
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The kept rows of a split in the order of the table.
fn kept(split: &str) -> Vec<Value> {
    // Keys that decide the order of the table's statement; no pair of the tiny run has a second round.
    let rows = ask("select * from preferences");
    rows.into_iter().filter(|row| row["kept"] == true && row["split"] == split).collect()
}

/// What every layout keeps beside prompt and answers.
fn extras(row: &Value) -> Value {
    let names = ["prompt_id", "pass", "principles", "dominant", "margin", "rule", "flipped"];
    names.iter().map(|name| (name.to_string(), row[name].clone())).collect::<serde_json::Map<_, _>>().into()
}

fn with(mut row: Value, more: Value) -> Value {
    row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    row
}

fn user(text: &Value) -> Value {
    json!({"role": "user", "content": text})
}

fn assistant(text: &Value) -> Value {
    json!({"role": "assistant", "content": text})
}

/// Compares every row of both splits, in both forms.
#[track_caller]
fn every_row(layout: &str, wanted: impl Fn(&Value, usize) -> Value) {
    let (jsonl, parquet) = (export(tiny(), layout, "jsonl"), export(tiny(), layout, "parquet"));
    for split in ["train", "test"] {
        let rows = kept(split);
        assert!(!rows.is_empty(), "{split}");
        let found = lines(&jsonl.path().join(format!("data/{split}-00000-of-00001.jsonl")));
        assert_eq!(found.len(), rows.len());
        for (number, row) in rows.iter().enumerate() {
            assert_eq!(found[number], wanted(row, number), "{split} {number}");
        }
        let path = parquet.path().join(format!("data/{split}-00000-of-00001.parquet"));
        let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap().build().unwrap();
        let options = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = options.build::<_, LineDelimited>(Vec::new());
        reader.for_each(|batch| writer.write(&batch.unwrap()).unwrap());
        writer.finish().unwrap();
        let text = String::from_utf8(writer.into_inner()).unwrap();
        let same: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(same, found, "{split}: both forms have the same rows");
    }
}

#[test]
fn trl_has_texts() {
    every_row("trl", |row, _| {
        with(json!({"prompt": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]}), extras(row))
    });
}

#[test]
fn trl_conversational_has_messages() {
    every_row("trl-conversational", |row, _| {
        let turns = json!({"prompt": [user(&row["prompt"])], "chosen": [assistant(&row["chosen"])],
            "rejected": [assistant(&row["rejected"])]});
        with(turns, extras(row))
    });
}

#[test]
fn openrlhf_has_whole_conversations() {
    every_row("openrlhf", |row, _| {
        let said = |answer: &str| json!([user(&row["prompt"]), assistant(&row[answer])]);
        with(json!({"chosen": said("chosen"), "rejected": said("rejected"), "prompt": row["prompt"]}), extras(row))
    });
}

#[test]
fn verl_has_its_five_columns() {
    every_row("verl", |row, number| {
        let info = with(json!({"split": row["split"], "index": number}), extras(row));
        json!({"data_source": "salmon", "prompt": [user(&row["prompt"])], "ability": "alignment",
            "reward_model": {"style": "model", "ground_truth": row["chosen"]}, "extra_info": info,
            "chosen": row["chosen"], "rejected": row["rejected"]})
    });
}

#[test]
fn what_trl_gets_can_be_imported_again() {
    let folder = export(tiny(), "trl-conversational", "parquet");
    let out = folder.path().join("back.parquet");
    let data = folder.path().join("data");
    let said = salmon(&["import", data.to_str().unwrap(), "--preferences", "--out", out.to_str().unwrap()]).ok();
    assert!(said.contains(" trl "), "{said}");
}

#[test]
fn the_card_says_what_the_rows_are() {
    let folder = export(tiny(), "trl", "parquet");
    let card = fs::read_to_string(folder.path().join("README.md")).unwrap();
    let front = card.strip_prefix("---\n").unwrap().split("\n---\n").next().unwrap();
    for line in ["- n<1K", "- preference", "- trl", "- salmon"] {
        assert!(front.lines().any(|own| own == line), "{front}");
    }
    assert!(!front.contains("configs:"), "datasets answers from its cache when a card names the files");
    let (train, test) = (kept("train").len(), kept("test").len());
    assert!(card.contains(&format!("| train | {train} |\n| test | {test} |\n")), "{card}");
    for row in ask("select name, definition from principles where array_has(sets, 'aggregation')") {
        let line = format!("| {} | {} |", row["name"].as_str().unwrap(), row["definition"].as_str().unwrap());
        assert!(card.contains(&line), "{line}");
    }
    for table in ["prompts", "judgments", "preferences"] {
        assert!(card.contains(&format!("| table {table} | {table} |")), "{table}: {card}");
    }
    assert!(card.contains("| model base | (from outside) |"));
}

#[test]
fn a_run_without_kept_preferences_leaves_no_folder() {
    let (folder, run) = copy_of_tiny();
    fs::remove_dir_all(format!("{run}/current/tables/preferences")).unwrap();
    let out = folder.path().join("data-set");
    let said = salmon(&["export", "preferences", "--run", &run, "--out", out.to_str().unwrap()]).failed(3);
    assert!(said.contains("table preferences: has no kept rows to export"), "{said}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["run"]);
}

#[test]
fn a_place_that_holds_no_run_or_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (none, out) = (folder.path().join("none"), folder.path().join("out"));
    let (none, out) = (none.to_str().unwrap(), out.to_str().unwrap());
    let said = salmon(&["export", "preferences", "--run", none, "--out", out]).failed(5);
    assert!(said.contains("there is no such folder"), "{said}");
    let said = salmon(&["export", "preferences", "--run", tiny(), "--out", tiny()]).failed(2);
    assert!(said.contains("is there already"), "{said}");
    let said = salmon(&["export", "preferences", "--run", tiny(), "--out", tiny(), "--force"]).failed(2);
    assert!(said.contains("is not an export"), "{said}");
    assert!(salmon(&["export", "preferences", "--run", tiny(), "--out", out, "--layout", "csv"]).code == 2);
    let store = tokio::runtime::Runtime::new().unwrap().block_on(Store::open_existing(tiny()));
    assert!(store.is_ok(), "the run is as it was");
}
