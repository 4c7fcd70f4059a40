//! One binary for every behaviour test: each module is one behaviour, through the public surface.

mod principles;
mod templates;
mod world;
