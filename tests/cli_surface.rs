//! The command line as a whole: every help text is frozen, and the documentation says the same.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use salmon::cli::{Cli, reference};
use salmon::error::Kind;

use super::cli_support::salmon;

#[test]
fn every_help_is_as_it_was() {
    let mut text = salmon(&["--help"]).ok();
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        text += &format!("\n==== salmon {name} --help\n{}", salmon(&[name, "--help"]).ok());
        for inner in command.get_subcommands().map(clap::Command::get_name) {
            text += &format!("\n==== salmon {name} {inner} --help\n{}", salmon(&[name, inner, "--help"]).ok());
        }
    }
    insta::assert_snapshot!("help", text);
}

/// `UPDATE_DOCS=1 cargo test the_page_of_commands` writes the page anew.
#[test]
fn the_page_of_commands_is_the_programs_help() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let page = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/commands.md is stale; write it anew with UPDATE_DOCS=1");
    for command in Cli::command().get_subcommands() {
        assert!(page.contains(&format!("## salmon {}\n", command.get_name())), "{}", command.get_name());
        for inner in command.get_subcommands() {
            let heading = format!("### salmon {} {}\n", command.get_name(), inner.get_name());
            assert!(page.contains(&heading), "{heading}");
        }
    }
}

#[test]
fn the_page_of_errors_lists_every_exit_code() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md")).unwrap();
    let kinds = [
        Kind::Internal,
        Kind::Config,
        Kind::Data,
        Kind::Model,
        Kind::Store,
        Kind::Query,
        Kind::Train,
        Kind::Interrupted,
    ];
    for kind in kinds {
        let row = format!("| {} | {} |", kind.exit_code(), format!("{kind:?}").to_lowercase());
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(salmon(&["--version"]).ok(), format!("salmon {}\n", env!("CARGO_PKG_VERSION")));
}
