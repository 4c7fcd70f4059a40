//! The commands as a page of documentation, made from the same definitions that parse them.

use clap::{Command, CommandFactory};

use super::Cli;

const HEAD: &str = "# Commands

The program's own help, command by command. A test compares this page with the program.

Data goes to standard output, everything else to standard error. Exit codes are in [errors.md](errors.md). `SALMON_LOG`
chooses what is logged, e.g. `SALMON_LOG=info`.
";

/// `docs/commands.md`.
pub fn reference() -> String {
    let mut root = Cli::command().term_width(100);
    root.build();
    let mut page = format!("{HEAD}\n{}", section("salmon", &mut root.clone()));
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("salmon {}", command.get_name());
        page += &format!("\n{}", section(&name, &mut command.clone().term_width(100)));
    }
    page
}

fn section(name: &str, command: &mut Command) -> String {
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    format!("## {name}\n\n```\n{}\n```\n", lines.join("\n").trim_end())
}
