//! The `salmon` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    salmon::cli::main()
}
