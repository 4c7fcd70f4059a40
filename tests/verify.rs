//! `salmon verify`: a whole run passes, and every kind of damage is named with its place.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use salmon::audit;
use salmon::stage::{Graph, Job, Options, Stage};
use salmon::store::{Artifact, Lineage, Store};
use serde_json::{Value, json};

use crate::cli_support::{batch, copy_of_tiny, salmon, tiny};
use crate::pipeline_support::files;
use crate::store_common::{run, stream};

fn verify(run: &str, more: &[&str]) -> (i32, Vec<String>, String) {
    let mut args = vec!["verify", "--run", run];
    args.extend(more);
    let ran = salmon(&args);
    (ran.code, ran.out.lines().map(str::to_string).collect(), ran.err)
}

/// The first file of the run whose path begins and ends so.
fn file(run: &str, begin: &str, end: &str) -> String {
    let found = files(Path::new(run)).into_keys().find(|name| name.starts_with(begin) && name.ends_with(end));
    format!("{run}/{}", found.unwrap_or_else(|| panic!("no {begin}..{end}")))
}

/// Damages a file, looks, and puts it back.
fn with(run: &str, path: &str, change: impl Fn(&mut Vec<u8>)) -> (Vec<String>, String) {
    let original = fs::read(path).unwrap();
    let mut bytes = original.clone();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
    let (code, lines, err) = verify(run, &[]);
    fs::write(path, original).unwrap();
    assert_eq!(code, 5, "{lines:?} {err}");
    (lines, err)
}

#[test]
fn a_whole_run_is_well() {
    let (code, lines, err) = verify(tiny(), &[]);
    assert_eq!((code, lines.as_slice()), (0, &[] as &[String]), "{err}");
    assert!(err.starts_with("all is well: 25 versions, "), "{err}");
    let (code, lines, err) = verify(tiny(), &["--all", "--format", "json"]);
    assert_eq!(code, 0, "{lines:?} {err}");
    let found: Value = serde_json::from_str(&lines.join("\n")).unwrap();
    assert_eq!((&found["versions"], &found["problems"]), (&json!(25), &json!([])));
    assert!(found["bytes"].as_u64().unwrap() > 100_000);
}

#[test]
fn every_damage_is_a_line_with_its_place_and_the_rest_goes_on() {
    let (_folder, run) = copy_of_tiny();
    let part = file(&run, "tables/judgments/", ".parquet");
    let (lines, err) = with(&run, &part, |bytes| bytes[60..68].fill(0xff));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{part}: checksum mismatch: the manifest says")), "{lines:?}");
    assert!(lines[0].ends_with("run its stage again with --force"), "{lines:?}");
    assert!(err.starts_with("salmon: ") && err.contains("1 problem in 25 versions, "), "{err}");
    let (lines, _) = with(&run, &part, |bytes| bytes.truncate(100));
    assert!(lines[0].starts_with(&format!("{part}: has 100 bytes, but its manifest says")), "{lines:?}");

    let manifest = file(&run, "tables/pairs/", "manifest.json");
    let (lines, _) = with(&run, &manifest, |bytes| bytes.truncate(200));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{manifest}: is damaged (EOF")), "{lines:?}");
    let newer = |bytes: &mut Vec<u8>| {
        *bytes = String::from_utf8(bytes.clone()).unwrap().replace("\"format\": 1", "\"format\": 2").into_bytes();
    };
    let (lines, _) = with(&run, &manifest, newer);
    assert!(lines[0].contains("was written by a newer salmon (format 2"), "{lines:?}");

    let pointer = file(&run, "current/tables/pairs/", ".json");
    let (lines, _) = with(&run, &pointer, Vec::clear);
    assert!(lines[0].starts_with(&format!("{pointer}: is damaged; delete it and run again")), "{lines:?}");
    let (lines, _) = with(&run, &pointer, |bytes| {
        *bytes = br#"{"format":1,"fingerprint":"0123456789abcdef"}"#.to_vec();
    });
    let missing = format!(
        "{run}/tables/pairs/0123456789abcdef/manifest.json: is missing although it is current; `salmon run pairs` makes it again"
    );
    assert_eq!(lines, [missing]);

    // Two at once, and a file that is gone.
    let config = file(&run, "models/reward/", "config.json");
    fs::remove_file(&config).unwrap();
    let (lines, err) = with(&run, &part, |bytes| bytes.truncate(100));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines.contains(&format!("{config}: is missing although a manifest names it; run its stage again with --force"))
    );
    assert!(err.contains("2 problems in "), "{err}");
}

/// A stage that writes these rows, with these parameters.
fn writes(name: &'static str, inputs: &[&str], parameters: Value, rows: Vec<Value>) -> Stage {
    let inputs = inputs.iter().map(|name| Artifact::table(*name)).collect();
    let recipe = Lineage { parameters: parameters.as_object().unwrap().clone(), ..Lineage::default() };
    Stage::new(name, inputs, vec![Artifact::table(name)], recipe, move |job: Arc<Job>| {
        let rows = rows.clone();
        async move { job.write_table(name, stream(vec![batch(name, &rows)])).await.map(drop) }
    })
}

fn prompt(id: &str) -> Value {
    json!({"prompt_id": id, "instruction": id, "source": "s", "kind": "general", "length_bonus": 1.0, "split": "train"})
}

fn response(id: &str, sample: i64, kept: bool) -> Value {
    let reason = if kept { Value::Null } else { json!("too_short") };
    json!({"prompt_id": id, "sample": sample, "response": format!("{id}{sample}"), "tokens": 1, "finish_reason": "stop",
           "logprob": 0.0, "kept": kept, "drop_reason": reason})
}

fn pair(id: &str) -> Value {
    json!({"prompt_id": id, "instruction": id, "split": "train", "sample_1": 0, "sample_2": 1,
           "response_1": "0", "response_2": "1", "kept": true})
}

fn judgment(id: &str, principle: &str, verdict: &str) -> Value {
    json!({"prompt_id": id, "instruction": id, "split": "train", "sample_1": 0, "sample_2": 1, "response_1": "0",
           "response_2": "1", "principle": principle, "score_ab": 1.0, "score_ba": 1.0, "verdict": verdict})
}

/// Runs stages and gives the problems, without the places.
async fn problems(stages: Vec<Stage>) -> Vec<String> {
    let store = Store::open("memory://").unwrap();
    run(&Graph::new(stages).unwrap(), &store, &Options::default()).await.unwrap();
    let verified = audit::verify(&store, false, &|_, _| {}).await.unwrap();
    verified.problems.into_iter().map(|problem| problem.problem).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_add_up_are_counted() {
    let prompts = || writes("prompts", &[], json!({}), vec![prompt("a"), prompt("b")]);
    let asked = json!({"prompts": 0, "test_prompts": 0, "rounds": 1, "samples": 2});
    let responses = |rows| writes("responses", &["prompts"], asked.clone(), rows);
    let all =
        |kept| vec![response("a", 0, true), response("a", 1, true), response("b", 0, true), response("b", 1, kept)];
    let pairs = |rows| writes("pairs", &["responses"], json!({"samples": 2}), rows);
    let dropped = || json!({"prompt_id": "b", "instruction": "b", "split": "train", "kept": false, "drop_reason": "one_response"});
    let judged = json!({"principles": [{"name": "P"}, {"name": "Q"}]});
    let judgments = |rows| writes("judgments", &["pairs"], judged.clone(), rows);
    let good = || vec![judgment("a", "P", "first"), judgment("a", "Q", "first")];

    let whole = vec![prompts(), responses(all(false)), pairs(vec![pair("a"), dropped()]), judgments(good())];
    assert_eq!(problems(whole).await, [] as [String; 0]);

    let lost = vec![prompts(), responses(all(true)[..3].to_vec())];
    assert_eq!(
        problems(lost).await,
        [
            "3 rows, which are chosen training prompts x rounds x samples; there must be 4; run stage responses again with --force"
        ]
    );
    let mut twice = all(true);
    twice[3] = response("a", 0, true);
    assert_eq!(
        problems(vec![prompts(), responses(twice)]).await,
        ["1 rows whose prompt and sample are there twice; run stage responses again with --force"]
    );
    let mut silent = all(true);
    silent[0]["kept"] = json!(false);
    assert_eq!(
        problems(vec![prompts(), responses(silent)]).await,
        ["1 rows that are kept with a drop_reason, or dropped without; run stage responses again with --force"]
    );
    let unpaired = vec![prompts(), responses(all(true)), pairs(vec![pair("a")])];
    assert_eq!(
        problems(unpaired).await,
        [
            "1 kept pairs, which are two different kept responses of one round; there must be 2; run stage pairs again with --force"
        ]
    );
    let half = vec![
        prompts(),
        responses(all(false)),
        pairs(vec![pair("a"), dropped()]),
        judgments(vec![judgment("a", "P", "unread")]),
    ];
    assert_eq!(
        problems(half).await,
        [
            "1 rows without a score that are not unread, or unread with both; run stage judgments again with --force",
            "1 rows, which are kept pairs x principles of the judge's set; there must be 2; run stage judgments again with --force",
        ]
    );
}

/// Names and contents.
type Files = &'static [(&'static str, &'static [u8])];

#[tokio::test(flavor = "multi_thread")]
async fn model_folders_are_looked_into() {
    let found = async |files: Files| {
        problems(vec![Stage::new(
            "sft",
            vec![],
            vec![Artifact::model("sft")],
            Lineage::default(),
            move |job: Arc<Job>| async move {
                let folder = job.scratch()?;
                for (name, bytes) in files {
                    fs::write(folder.path().join(name), bytes).unwrap();
                }
                job.write_model("sft", folder.path()).await
            },
        )])
        .await
    };
    let header = b"\x39\0\0\0\0\0\0\0{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}   1234";
    assert_eq!(header[8..].len() - 4, 0x39);
    let good: Files = vec![("config.json", b"{}".as_slice()), ("model.safetensors", header.as_slice())].leak();
    assert_eq!(found(good).await, [] as [String; 0]);
    let advice = "; run stage sft again with --force";
    let cases: [(Files, &str); 5] = [
        (&[("config.json", b"{}")], "names no file of weights"),
        (
            &[("config.json", b"{"), ("model.safetensors", b"12")],
            "is not JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            &[("config.json", b"{}"), ("model.safetensors", b"12")],
            "is not a safetensors file: it is shorter than a header",
        ),
        (
            &[("config.json", b"{}"), ("model.safetensors", b"\xff\0\0\0\0\0\0\0{}")],
            "is not a safetensors file: its header is longer than the file",
        ),
        (
            &[
                ("config.json", b"{}"),
                ("a.safetensors", b"\x02\0\0\0\0\0\0\0{}"),
                ("model.safetensors.index.json", br#"{"weight_map":{"t":"a.safetensors","u":"b.safetensors"}}"#),
            ],
            "names b.safetensors, which the manifest does not",
        ),
    ];
    for (files, expected) in cases {
        let problems = found(files).await;
        assert!(problems.contains(&format!("{expected}{advice}")), "{expected}: {problems:?}");
    }
}
