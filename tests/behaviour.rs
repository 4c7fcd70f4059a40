//! One binary for every behaviour test: each module is one behaviour, through the public surface.

mod model_chat;
mod model_checkpoint;
mod model_fixtures;
mod model_llama;
mod model_lora;
mod principles;
mod templates;
mod torch_boundary;
mod train_fixtures;
mod train_formulas;
mod train_optimizer;
mod train_ppo;
mod train_reward;
mod train_sft;
mod world;
mod world_corpus;
mod world_pretrain;
