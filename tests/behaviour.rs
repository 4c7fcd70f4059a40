//! One binary for every behaviour test: each module is one behaviour, through the public surface.

mod engine_batch;
mod engine_errors;
mod engine_exact;
mod engine_sampling;
mod engine_support;
mod model_chat;
mod model_checkpoint;
mod model_fixtures;
mod model_llama;
mod model_lora;
