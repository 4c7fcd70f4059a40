//! The commands of docs/operations.md do what the page says, on a run.

use std::path::Path;

use crate::cli_support::{copy_of_tiny, salmon};

#[test]
fn every_command_of_the_page_runs() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let (_folder, run) = copy_of_tiny();
    let mut ran = Vec::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("salmon ")) {
        let line = line.split(" > ").next().unwrap();
        let words: Vec<&str> =
            line.split(' ').map(|word| if word == "runs/demo" { run.as_str() } else { word }).collect();
        let done = salmon(&words);
        assert_eq!(done.code, 0, "salmon {line}: {done:?}");
        ran.push(words[0].to_string());
    }
    ran.dedup();
    assert_eq!(ran, ["runs", "verify", "diff", "gc"]);
}
