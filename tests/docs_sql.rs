//! What docs/sql.md shows runs, and says what the page says it does.

use std::fs;
use std::path::Path;

use salmon::store::{Artifact, Store, versions_of};

use crate::cli_support::{salmon_in, tiny};
use crate::docs::words;

#[tokio::test(flavor = "multi_thread")]
async fn everything_on_the_page_runs() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sql.md")).unwrap();
    let versions = versions_of(&Store::open(tiny()).unwrap(), &Artifact::table("judgments")).await.unwrap();
    let page = page.replace("judgments@5f0c1a past", &format!("judgments@{} past", &versions[0].fingerprint()[..6]));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("questions.sql"), "select 1 as a").unwrap();
    let (mut commands, mut statements) = (0, 0);
    for block in page.split("\n```").skip(1).step_by(2) {
        let (fence, text) = block.split_once('\n').unwrap();
        if fence.starts_with("sql") {
            fs::write(folder.path().join("block.sql"), text).unwrap();
            let args = ["sql", "--run", tiny(), "-f", "block.sql"];
            salmon_in(folder.path(), &args, "").ok();
            statements += 1;
            continue;
        }
        assert_eq!(fence, "sh");
        for command in text.replace("\\\n", " ").lines().filter_map(|line| line.strip_prefix("salmon ")) {
            let asked = words(command);
            let asked = asked.iter().map(|word| word.replace("runs/demo", tiny()).replace("runs/other", tiny()));
            let asked: Vec<String> = asked.collect();
            let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
            salmon_in(folder.path(), &asked, "").ok();
            commands += 1;
        }
    }
    assert!(commands > 8 && statements == 2, "{commands} commands, {statements} blocks");
    assert_eq!(fs::read_to_string(folder.path().join("answers.csv")).unwrap(), "a\n1\n");
}
