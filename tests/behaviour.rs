//! One binary for every behaviour test: each module is one behaviour, through the public surface.

mod store_common;
mod store_faults;
mod store_objects;
mod store_resume;
mod store_runner;
mod store_tables;
