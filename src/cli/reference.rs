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
    format!("{HEAD}\n{}", sections("salmon", "##", &root).join("\n"))
}

/// The help of a command, and below it that of its own commands.
fn sections(name: &str, heading: &str, command: &Command) -> Vec<String> {
    let help = command.clone().term_width(100).render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let mut found = vec![format!("{heading} {name}\n\n```\n{}\n```\n", lines.join("\n").trim_end())];
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        // The commands of `salmon` stand beside it, those of another one below it.
        let deeper = if name == "salmon" { heading.to_string() } else { format!("{heading}#") };
        found.extend(sections(&format!("{name} {}", inner.get_name()), &deeper, inner));
    }
    found
}
