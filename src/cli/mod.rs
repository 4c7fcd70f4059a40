//! The commands: one file each.
//!
//! In: parsed arguments. Out: data on stdout, everything else on stderr, an error with its exit code.

pub mod import;
pub mod progress;
