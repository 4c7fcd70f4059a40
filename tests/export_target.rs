//! Where an export goes: whole or not at all, and never over what is none.

use std::fs;
use std::path::Path;

use salmon::error::Kind;
use salmon::export::Target;
use salmon::store::Store;

const CARD: &str = "---\ntags:\n- salmon\n---\n";

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn fill(target: &Target, text: &str) {
    fs::create_dir_all(target.folder().join("data")).unwrap();
    fs::write(target.folder().join("data/rows"), text).unwrap();
    fs::write(target.folder().join("README.md"), CARD).unwrap();
}

#[tokio::test]
async fn a_folder_appears_at_the_commit_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("deep/export");
    let target = Target::open(out.to_str().unwrap(), false).await.unwrap();
    fill(&target, "one");
    assert!(!out.exists(), "before the commit");
    target.commit().await.unwrap();
    assert_eq!(names(&out), ["README.md", "data"]);
    assert_eq!(names(out.parent().unwrap()), ["export"]);
    assert_eq!(fs::read_to_string(out.join("data/rows")).unwrap(), "one");

    // A file:// URL is the same place; what is dropped without a commit never was.
    let other = format!("file://{}", folder.path().join("other").display());
    let target = Target::open(&other, false).await.unwrap();
    fill(&target, "two");
    drop(target);
    assert_eq!(names(folder.path()), ["deep"]);
}

#[tokio::test]
async fn an_empty_folder_is_free_and_a_full_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("export");
    fs::create_dir(&out).unwrap();
    let target = Target::open(out.to_str().unwrap(), false).await.unwrap();
    fill(&target, "one");
    target.commit().await.unwrap();

    let taken = Target::open(out.to_str().unwrap(), false).await.unwrap_err();
    assert_eq!(taken.kind(), Kind::Config);
    assert!(taken.to_string().ends_with("is there already; choose another --out, or replace it with --force"));
    assert_eq!(names(folder.path()), ["export"]);
}

#[tokio::test]
async fn force_replaces_exports_only() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("export");
    for text in ["one", "two"] {
        let target = Target::open(out.to_str().unwrap(), true).await.unwrap();
        fill(&target, text);
        target.commit().await.unwrap();
        assert_eq!(fs::read_to_string(out.join("data/rows")).unwrap(), text);
    }
    assert_eq!(names(folder.path()), ["export"], "the older one is gone");

    for (name, text) in [("README.md", "# My thesis\n"), ("thesis.tex", "")] {
        let own = folder.path().join("own");
        let _ = fs::remove_dir_all(&own);
        fs::create_dir(&own).unwrap();
        fs::write(own.join(name), text).unwrap();
        let refused = Target::open(own.to_str().unwrap(), true).await.unwrap_err().to_string();
        assert!(refused.contains("is not an export"), "{refused}");
        assert_eq!(names(&own), [name]);
    }
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = Target::open(file.to_str().unwrap(), true).await.unwrap_err().to_string();
    assert!(refused.contains("is not a folder that can be read"), "{refused}");
}

#[tokio::test]
async fn what_took_the_place_meanwhile_stays() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("export");
    let target = Target::open(out.to_str().unwrap(), false).await.unwrap();
    fill(&target, "one");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("theirs"), "").unwrap();
    let failed = target.commit().await.unwrap_err();
    assert_eq!(failed.kind(), Kind::Store);
    assert_eq!((names(&out), names(folder.path())), (vec!["theirs".to_string()], vec!["export".to_string()]));
}

#[tokio::test]
async fn an_object_store_gets_the_card_last_and_keeps_no_older_file() {
    let store = Store::open("memory://bucket/exports/one").unwrap();
    let target = Target::on(store.clone(), false).await.unwrap();
    fill(&target, "one");
    fs::write(target.folder().join("old"), "").unwrap();
    assert!(store.list("").await.unwrap().is_empty());
    target.commit().await.unwrap();
    let keys = |entries: Vec<salmon::store::Entry>| entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    assert_eq!(keys(store.list("").await.unwrap()), ["README.md", "data/rows", "old"]);

    assert!(Target::on(store.clone(), false).await.unwrap_err().to_string().contains("is there already"));
    let target = Target::on(store.clone(), true).await.unwrap();
    fill(&target, "two");
    target.commit().await.unwrap();
    assert_eq!(keys(store.list("").await.unwrap()), ["README.md", "data/rows"]);
    assert_eq!(store.get("data/rows").await.unwrap().unwrap(), "two");

    store.put("README.md", "# Something else\n").await.unwrap();
    assert!(Target::on(store, true).await.unwrap_err().to_string().contains("is not an export"));
}

#[tokio::test]
async fn an_upload_that_fails_leaves_nothing() {
    let store = Store::open("memory://").unwrap();
    let target = Target::on(store.clone(), false).await.unwrap();
    fill(&target, "one");
    // Sorted before the card, after the rows: the upload breaks on it.
    std::os::unix::fs::symlink("/nowhere/at/all", target.folder().join("zzz")).unwrap();
    assert!(target.commit().await.is_err());
    assert!(store.list("").await.unwrap().is_empty());
}
