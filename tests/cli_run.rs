//! `salmon run` and `salmon demo`: what runs, what does not, and what they say.

use std::fs;
use std::path::Path;

use super::cli_support::{ask, copy_of_tiny, salmon, salmon_in, starter, tiny};

/// The configuration that the tiny run keeps.
fn kept() -> String {
    format!("{}/config.toml", tiny())
}

#[test]
fn a_second_run_does_nothing_and_says_so() {
    let records = ask("select count(*) as n from runs");
    let again = salmon(&["run", "--config", &kept(), "--run", tiny()]);
    assert_eq!((again.code, again.out.as_str()), (0, ""));
    assert!(again.err.ends_with("nothing to do: all 16 stages are up to date\n"), "{}", again.err);
    assert_eq!(again.err.lines().filter(|line| line.ends_with(": cached")).count(), 16);
    assert_eq!(ask("select count(*) as n from runs"), records);
}

#[test]
fn the_configuration_kept_in_a_run_is_what_ran() {
    let text = fs::read_to_string(kept()).unwrap();
    let config = salmon::config::parse("kept", &text, &[]).unwrap();
    assert_eq!((config.ppo.steps, config.policies.len()), (2, 2));
    assert!(Path::new(&config.data.prompts[0]).is_absolute());
    assert_eq!(config.principles.files, ["pocket"]);
    assert_eq!(config.to_toml().unwrap(), text.split_once('\n').unwrap().1);
}

#[test]
fn a_dry_run_gives_the_reason_of_each_stage_and_writes_nothing() {
    let all = salmon(&["run", "--config", &kept(), "--run", tiny(), "--dry-run"]).ok();
    assert_eq!(all.lines().filter(|line| line.ends_with(" cached")).count(), 16, "{all}");
    let changed = salmon(&["run", "--config", &kept(), "--run", tiny(), "--dry-run", "--set", "ppo.steps=3"]).ok();
    let line = |stage: &str| changed.lines().find(|line| line.split(' ').next() == Some(stage)).unwrap();
    assert!(line("reward").ends_with("cached"));
    assert!(line("policy:brief").contains("would run: parameter ppo.steps 2 -> 3"), "{changed}");
    assert!(line("evaluate:policy:brief").contains("model policy:brief changed"), "{changed}");
    let nowhere = tempfile::tempdir().unwrap();
    let url = nowhere.path().join("new").display().to_string();
    let new = salmon(&["run", "--config", &kept(), "--run", &url, "--dry-run"]).ok();
    assert_eq!(new.lines().filter(|line| line.ends_with("would run: no version yet")).count(), 16, "{new}");
}

#[test]
fn a_forced_stage_runs_again_and_gives_the_same_rows() {
    let (_folder, run) = copy_of_tiny();
    let rows = |run: &str| salmon(&["sql", "--run", run, "-c", "select * from pairs", "--format", "json"]).ok();
    let before = rows(&run);
    let forced = salmon(&["run", "--config", &kept(), "--run", &run, "--force", "pairs", "pairs"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    assert!(forced.err.contains("pairs: runs (forced)") && forced.err.contains("responses: cached"), "{}", forced.err);
    assert!(!forced.err.contains("judgments"), "{}", forced.err);
    assert_eq!(rows(&run), before);
    // Nothing that depends on it has to run: the version is the same.
    let after = salmon(&["run", "--config", &kept(), "--run", &run]);
    assert!(after.err.contains("nothing to do"), "{}", after.err);
}

#[test]
fn a_stage_brings_what_it_needs_and_no_more() {
    let folder = starter();
    let run = salmon_in(folder.path(), &["run", "prompts", "--run", "here"], "");
    assert_eq!((run.code, run.out.as_str()), (0, ""));
    let lines: Vec<&str> = run.err.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "prompts: runs (no version yet)"), "{}", run.err);
    assert!(lines[1].starts_with("prompts: 275 rows, "), "{}", run.err);
    let counts = "select (select count(*) from prompts) as prompts, (select count(*) from principles) as principles";
    let rows = salmon_in(folder.path(), &["sql", "--run", "here", "--format", "csv", "-c", counts], "").ok();
    assert_eq!(rows, "prompts,principles\n275,0\n");
}

#[test]
fn the_demo_ends_in_figures_and_a_report() {
    let page = Path::new(tiny()).join("report.html");
    assert!(fs::read_to_string(page).unwrap().starts_with("<!DOCTYPE html>"));
    let rows = ask("select distinct what from evaluations order by what");
    let what: Vec<_> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["judge", "policy:brief", "policy:brief-kind", "policy:sft", "reward"]);
}
