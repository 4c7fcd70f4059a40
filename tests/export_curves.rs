//! `salmon export metrics`: event files byte for byte as TensorBoard's writer makes them, and every number of the table.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use salmon::export::EventFile;
use serde_json::Value;

use super::cli_support::{ask, copy_of_tiny, salmon, tiny};

#[test]
fn event_files_are_those_of_tensorboard() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let mut file = EventFile::create(&path, 1_790_000_000.25).unwrap();
    let step = |pairs: &[(&str, f64)]| pairs.iter().map(|(tag, value)| (tag.to_string(), *value)).collect::<Vec<_>>();
    file.scalars(1_790_000_000.25, 0, &step(&[("train/rows/used", 46.0)])).unwrap();
    file.scalars(1_790_000_001.5, 1, &step(&[("train/loss", 2f64.ln()), ("train/grad_norm", 0.0)])).unwrap();
    file.scalars(1_790_000_002.75, 300, &step(&[("train/margin", -1.25e-3)])).unwrap();
    file.finish().unwrap();
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tensorboard/scalars.tfevents");
    assert_eq!(fs::read(path).unwrap(), fs::read(recorded).unwrap());
}

/// The only event file of a folder.
fn events(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> =
        files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents.")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn every_stage_has_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("curves");
    let place = out.to_str().unwrap();
    assert_eq!(salmon(&["export", "metrics", "--run", tiny(), "--out", place]).ok(), format!("{place}\n"));
    let mut wanted: BTreeMap<String, BTreeMap<(i64, String), f64>> = BTreeMap::new();
    for row in ask("select stage, step, name, value from metrics") {
        let text = |name: &str| row[name].as_str().unwrap().to_string();
        let key = (row["step"].as_i64().unwrap(), text("name"));
        wanted.entry(text("stage")).or_default().insert(key, row["value"].as_f64().unwrap());
    }
    assert_eq!(wanted.keys().collect::<Vec<_>>(), ["policy:brief", "policy:brief-kind", "reward", "sft"]);
    for (stage, numbers) in wanted {
        let folder = out.join(stage.replace(':', "/"));
        let state: Value = serde_json::from_slice(&fs::read(folder.join("trainer_state.json")).unwrap()).unwrap();
        let mut found = BTreeMap::new();
        for log in state["log_history"].as_array().unwrap() {
            for (name, value) in log.as_object().unwrap().iter().filter(|(name, _)| *name != "step") {
                found.insert((log["step"].as_i64().unwrap(), name.clone()), value.as_f64().unwrap());
            }
        }
        assert_eq!(found, numbers, "{stage}");
        assert_eq!(state["global_step"].as_i64(), numbers.keys().map(|(step, _)| *step).max(), "{stage}");
        assert_eq!(state["train_batch_size"], if stage == "sft" { 16 } else { 8 }, "{stage}");
        let bytes = fs::read(events(&folder)).unwrap();
        for (_, name) in numbers.keys() {
            let tag = format!("train/{name}");
            assert!(bytes.windows(tag.len()).any(|window| window == tag.as_bytes()), "{stage}: {tag}");
        }
    }
    // The same run gives the same bytes.
    let again = folder.path().join("again");
    salmon(&["export", "metrics", "--run", tiny(), "--out", again.to_str().unwrap()]).ok();
    let bytes = |folder: &Path| fs::read(events(&folder.join("reward"))).unwrap();
    assert_eq!(bytes(&again), bytes(&out));
}

#[test]
fn a_run_without_metrics_says_so() {
    let (folder, run) = copy_of_tiny();
    fs::remove_dir_all(format!("{run}/current/tables/metrics")).unwrap();
    let out = folder.path().join("curves");
    let said = salmon(&["export", "metrics", "--run", &run, "--out", out.to_str().unwrap()]).failed(3);
    assert!(said.contains("has no metrics yet; a stage that trains makes them"), "{said}");
    assert!(!out.exists());
}
