//! One binary for every behaviour test: each module is one behaviour, through the public surface.

mod query_engine;
mod query_functions;
mod query_operators;
mod query_plans;
mod query_session;
mod query_support;
