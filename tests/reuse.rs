//! Rows and versions that are there already are taken, and what comes out has the bytes of a run that took nothing.

use std::collections::BTreeMap;
use std::fs;

use crate::pipeline_support::{POLICIES, Place, assert_same, files, succeeded, whole};

const PRINCIPLES: &str = include_str!("../principles/pocket.toml");

/// The place's configuration with a principle file of its own, in which Polite is worded anew.
fn reword(place: &Place) {
    let text = PRINCIPLES.replace("the ai should be kind and be courteous", "the ai should be courteous and be kind");
    assert_ne!(text, PRINCIPLES, "Polite is still worded so");
    fs::write(place.folder.join("own.toml"), text).unwrap();
    let toml = place.folder.join("salmon.toml");
    let config = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, config.replace("files = [\"pocket\"]", "files = [\"own.toml\"]")).unwrap();
}

/// What `place` has of the versions that `fresh`, which made them without help, has.
fn assert_made_alike(place: &Place, fresh: &Place) {
    let wanted = fresh.contents();
    let found: BTreeMap<_, _> = place.contents().into_iter().filter(|(name, _)| wanted.contains_key(name)).collect();
    assert_same(&found, &wanted, "with reuse and without");
}

/// `(new, of)` of the line `judgments: 12 of 120 rows are new`.
fn new_rows(text: &str, stage: &str) -> Option<(u64, u64)> {
    let line = text.lines().find(|line| line.starts_with(stage) && line.ends_with(" rows are new"))?;
    let numbers: Vec<u64> = line.split([' ', ';']).filter_map(|word| word.parse().ok()).collect();
    let [.., new, of] = numbers.as_slice() else { panic!("{line}") };
    Some((*new, *of))
}

fn dry_run(place: &Place, arguments: &[&str]) -> String {
    let output = place.command(arguments).arg("--dry-run").output().unwrap();
    succeeded(&output);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_principle_worded_anew_is_judged_alone() {
    let (place, fresh) = (Place::copy(POLICIES), Place::new(POLICIES));
    reword(&place);
    reword(&fresh);
    let planned = dry_run(&place, &["judgments"]);
    let (new, of) = new_rows(&planned, "judgments").unwrap_or_else(|| panic!("{planned}"));
    assert!(new > 0 && new * 10 == of, "one principle of ten: {planned}");
    assert!(planned.contains("parameter principles.Polite.definition"), "what changed is named: {planned}");
    let before = files(&place.run());
    let said = place.succeed(&["judgments"]);
    assert_eq!(new_rows(&said, "judgments"), Some((new, of)), "{said}");
    fresh.succeed(&["judgments"]);
    assert_made_alike(&place, &fresh);
    assert!(before.keys().all(|name| files(&place.run()).contains_key(name)), "earlier versions stay");
    assert!(place.planned(&[]).iter().all(|stage| stage != "judgments"));
    let said = place.succeed(&["judgments", "--force", "judgments"]);
    assert_eq!(new_rows(&said, "judgments"), None, "what is forced asks for every row: {said}");
    assert_made_alike(&place, &fresh);
}

#[test]
fn more_prompts_and_rounds_sample_only_what_is_new() {
    let (place, fresh) = (Place::copy(POLICIES), Place::new(POLICIES));
    let more = ["demonstrations", "--set", "self_align.prompts=30", "--set", "self_align.samples=3"];
    let said = place.succeed(&more);
    assert_eq!(new_rows(&said, "demonstrations"), Some((30 * 3 - 24 * 2, 30 * 3)), "{said}");
    fresh.succeed(&more);
    assert_made_alike(&place, &fresh);
    let (place, fresh) = (Place::copy(POLICIES), Place::new(POLICIES));
    let more = ["responses", "--set", "responses.rounds=3"];
    let said = place.succeed(&more);
    assert_eq!(new_rows(&said, "responses"), Some((26 * 2, 26 * 2 * 3)), "{said}");
    fresh.succeed(&more);
    assert_made_alike(&place, &fresh);
}

#[test]
fn rows_of_other_settings_are_not_taken() {
    let place = Place::copy(POLICIES);
    for set in ["responses.temperature=0.9", "responses.max_tokens=20", "seed=5"] {
        let planned = dry_run(&place, &["--set", set]);
        assert_eq!(new_rows(&planned, "responses"), None, "{set}: {planned}");
    }
    let planned = dry_run(&place, &["--set", "judge.max_response_tokens=9"]);
    assert_eq!(new_rows(&planned, "judgments"), None, "{planned}");
}

#[test]
fn a_damaged_earlier_version_is_passed_over() {
    let (place, fresh) = (Place::copy(POLICIES), Place::new(POLICIES));
    for (name, mut bytes) in files(&place.run()) {
        if name.starts_with("tables/judgments/") && name.ends_with(".parquet") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            fs::write(place.run().join(name), bytes).unwrap();
        }
    }
    reword(&place);
    reword(&fresh);
    let said = place.succeed(&["judgments"]);
    assert!(said.contains("checksum mismatch") && new_rows(&said, "judgments").is_none(), "{said}");
    fresh.succeed(&["judgments"]);
    let wanted = fresh.contents();
    let found: BTreeMap<_, _> = place.contents().into_iter().filter(|(name, _)| wanted.contains_key(name)).collect();
    assert_same(&found, &wanted, "next to a damaged version");
}

#[test]
fn versions_and_rows_are_taken_from_another_run() {
    let place = Place::new(POLICIES);
    let other = whole().run();
    let reuse = ["--reuse", other.to_str().unwrap()];
    let planned = dry_run(&place, &reuse);
    assert!(planned.lines().all(|line| line.contains("would be copied from ")), "{planned}");
    let said = place.succeed(&reuse);
    assert!(said.contains("judgments: runs (copied from "), "{said}");
    assert_same(&place.contents(), &whole().contents(), "a copied run");
    assert!(place.succeed(&[]).contains("nothing to do"), "and it stands by itself");
    // With one principle worded anew, the pairs are copied and their known judgments taken.
    let (place, fresh) = (Place::new(POLICIES), Place::new(POLICIES));
    reword(&place);
    reword(&fresh);
    let said = place.succeed(&["judgments", "--reuse", other.to_str().unwrap()]);
    let (new, of) = new_rows(&said, "judgments").unwrap_or_else(|| panic!("{said}"));
    assert_eq!(new * 10, of, "{said}");
    fresh.succeed(&["judgments"]);
    assert_made_alike(&place, &fresh);
}
