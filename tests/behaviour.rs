//! One binary for every behaviour test: each module is one behaviour, through the public surface.

mod import_bad_input;
mod import_command;
mod import_formats;
mod import_fuzz;
mod import_support;
