//! Language models as Hugging Face folders hold them, on libtorch.
//!
//! ```text
//! config.json ─> ModelConfig ─┐
//! *.safetensors ─> Checkpoint ┴─> Network ── with_lora / with_adapter / with_full_training / with_head
//! tokenizer.json ─> Tokenizer                  │ ids [batch, time]
//! chat_template ─> ChatTemplate                ├─> hidden [batch, time, hidden] ─> logits, scores
//!                                              ├─> log_probs [batch, time - 1]
//!                                              ├─> merged: plain f32 weights for the decoder, as PlainWeights
//!                                              │           reads them where no network is needed
//!                                              └─> save: a Hugging Face or PEFT folder
//! ```
//!
//! The same [`Network`] trains and scores, so the first PPO ratio is exactly one. Sampling runs on the
//! weights that [`Network::merged`] gives.
//!
//! Shape suffixes in this module: `b` batch, `t` time, `h` hidden, `v` vocabulary, `n` = batch x time.

mod architecture;
mod chat;
mod checkpoint;
mod config;
mod fields;
mod folder;
mod forward;
mod head;
mod inspect;
mod lora;
mod lora_config;
mod matrix;
mod network;
mod save;
mod save_merged;
mod shard;
mod tokenizer;
mod weights;

pub(crate) use architecture::{Activation, Rope};
pub use chat::{ChatTemplate, Message};
pub use config::ModelConfig;
pub use folder::{PlainWeights, WeightSource};
pub use forward::Expectation;
pub use head::Head;
pub use inspect::{Dimensions, Inspection, has_weights, inspect};
pub use lora::{AdapterWeights, LowRank};
pub use lora_config::{LoraConfig, Patterns, Targets};
pub use matrix::QuantizationConfig;
pub use network::Network;
pub use tokenizer::{TextStream, Tokenizer};
pub(crate) use weights::Layer;
