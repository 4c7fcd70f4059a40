//! `salmon import` as a whole: several files and folders, splits, ids, limits, determinism, the summary.

use std::slice::from_ref;

use clap::{Args, FromArgMatches};
use salmon::cli::import::{ImportArgs, run};
use salmon::import::Options;

use super::import_support::{Bench, table};

fn arguments(words: &[&str]) -> Result<ImportArgs, clap::Error> {
    let command = ImportArgs::augment_args(clap::Command::new("import").no_binary_name(true));
    ImportArgs::from_arg_matches(&command.try_get_matches_from(words)?)
}

#[tokio::test]
async fn the_command_writes_both_tables() {
    let bench = Bench::new();
    let file = bench.file("q.jsonl", "{\"frage\": \"Eins?\"}\n{\"frage\": \"\"}\n");
    let out = bench.path("made/for/it/prompts.parquet");
    let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
    let words = [file, "--out", out, "--column", "instruction=frage", "--kind", "reasoning", "--source", "mine"];
    run(arguments(&words).unwrap()).await.unwrap();
    let kept = table(&bench.path("made/for/it/prompts.parquet"));
    assert_eq!((kept[0]["kind"].as_str(), kept[0]["source"].as_str()), (Some("reasoning"), Some("mine")));
    assert_eq!(table(&bench.path("made/for/it/prompts.dropped.parquet"))[0]["reason"], "empty");
    for wrong in
        [&[file][..], &["--out", out], &[file, "--out", out, "--kind", "odd"], &[file, "--out", out, "--column", "x"]]
    {
        assert!(arguments(wrong).is_err(), "{wrong:?}");
    }
    let url = run(arguments(&[file, "--out", "s3://bucket/prompts.parquet"]).unwrap()).await.unwrap_err();
    assert!(url.to_string().contains("--out"), "{url}");
}

#[test]
fn a_folder_stands_for_its_data_files_in_order() {
    let bench = Bench::new();
    bench.file("data/b.jsonl", r#"{"instruction": "Second?"}"#);
    bench.file("data/a/z.csv", "question,n\nFirst?,1\n");
    bench.file("data/README.md", "# words, no rows");
    bench.file("data/.hidden.jsonl", r#"{"instruction": "Never?"}"#);
    bench.file("data/empty.jsonl", "");
    let imported = bench.import(&[bench.path("data")], &Options::default());
    assert_eq!(imported.column("instruction"), ["First?", "Second?"]);
    let read: Vec<_> = imported.summary.files.iter().map(|file| (file.format, file.read)).collect();
    assert_eq!(read, [(Some("plain"), 1), (Some("plain"), 1), (None, 0)]);
    bench.file("none/README.md", "x");
    let error = bench.error(&[bench.path("none")], &Options::default());
    assert!(error.to_string().contains("no data file in this folder"), "{error}");
}

#[test]
fn an_output_inside_the_folder_is_not_read_again() {
    let bench = Bench::new();
    bench.file("rows.jsonl", r#"{"instruction": "Only one?"}"#);
    let first = bench.import(&[bench.path("")], &Options::default());
    let second = bench.import(&[bench.path("")], &Options::default());
    assert_eq!(first.summary, second.summary);
}

#[test]
fn ids_are_unique_and_stable() {
    let bench = Bench::new();
    let a = bench.file("a.jsonl", "{\"prompt_id\": \"1\", \"prompt\": \"One?\"}\n{\"prompt\": \"Two?\"}\n");
    let b = bench.file("b.jsonl", r#"{"prompt_id": "1", "prompt": "Three?"}"#);
    let both = bench.import(&[a, b.clone()], &Options::default());
    let ids = both.column("prompt_id");
    assert_eq!(ids[0], "1");
    assert!(ids[1..].iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{ids:?}");
    assert_ne!(ids[1], ids[2]);
    assert_eq!(bench.import(&[b], &Options::default()).column("prompt_id"), ["1"]);
}

#[test]
fn the_split_follows_the_prompt_and_not_the_file() {
    let bench = Bench::new();
    let rows: Vec<String> = (0..400).map(|i| format!("{{\"instruction\": \"What is {i}?\"}}")).collect();
    let half = Options { test_fraction: 0.25, ..Options::default() };
    let forward = bench.import_text("a.jsonl", rows.join("\n"), &half);
    let test = forward.column("split").iter().filter(|split| **split == "test").count();
    assert!((60..140).contains(&test), "{test} of 400");
    let backward = bench.import_text("b.jsonl", rows.iter().rev().cloned().collect::<Vec<_>>().join("\n"), &half);
    let mut same = backward.column("split");
    same.reverse();
    assert_eq!(same, forward.column("split"));
    let none = bench.import_text("a.jsonl", rows.join("\n"), &Options::default());
    assert!(none.column("split").iter().all(|split| *split == "train"));
}

#[test]
fn a_limit_stops_reading() {
    let bench = Bench::new();
    let a = bench.file(
        "a.jsonl",
        "{\"prompt\": \"One?\"}\n{\"prompt\": \"\"}\n{\"prompt\": \"Two?\"}\n{\"prompt\": \"Three?\"}",
    );
    let b = bench.file("b.jsonl", "{\"prompt\": \"Four?\"}");
    let imported = bench.import(&[a, b], &Options { limit: Some(2), ..Options::default() });
    assert_eq!(imported.column("instruction"), ["One?", "Two?"]);
    assert_eq!((imported.summary.files.len(), imported.summary.total().read), (1, 3));
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let bench = Bench::new();
    let rows: Vec<String> = (0..3000).map(|i| format!("{{\"instruction\": \"Item {} of many\"}}", i % 2500)).collect();
    let file = bench.file("a.jsonl", rows.join("\n"));
    let mut bytes = Vec::new();
    for _ in 0..2 {
        bench.import(from_ref(&file), &Options::default());
        bytes.push(["out.parquet", "out.dropped.parquet"].map(|name| std::fs::read(bench.path(name)).unwrap()));
    }
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn the_summary_is_a_table_with_the_reasons() {
    let bench = Bench::new();
    let a = bench
        .file("a.jsonl", "{\"prompt\": \"One?\"}\n{\"prompt\": \"\"}\n{\"prompt\": \"one?\"}\n{\"prompt\": \"ONE?\"}");
    let b = bench.file("b.csv", "instruction,output\nTwo?,x\n");
    let mut summary = bench.import(&[a, b], &Options::default()).summary;
    // The temporary folder's name varies, and with it the width of the first column.
    for (file, name) in summary.files.iter_mut().zip(["a.jsonl", "b.csv"]) {
        file.file = name.into();
    }
    (summary.out, summary.dropped_out) = ("out.parquet".into(), "out.dropped.parquet".into());
    insta::assert_snapshot!(summary.to_string(), @r"
    file     format  read  kept  dropped  reasons
    a.jsonl  plain      4     1        3  duplicate 2, empty 1
    b.csv    alpaca     1     1        0
    total               5     2        3  duplicate 2, empty 1
    kept:    out.parquet
    dropped: out.dropped.parquet
    ");
}
