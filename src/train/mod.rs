//! Training: fine-tuning, the reward model, PPO.
//!
//! ```text
//! rows of token ids ─> Plan ─> step ─> micro-batches ─> Team of workers ─> summed gradients ─> AdamW
//!                                                        (a replica each)      │
//!                                                              metrics  <──────┴──────> checkpoint
//! ```
//!
//! A trainer takes plain rows of token ids, and gives metrics under the names that TRL uses. It holds no random
//! state: every draw is a function of a key and a step. So the same rows give the same bits whatever the number
//! of workers, and a restored trainer goes on as if it had never stopped.
//!
//! Shape suffixes in this module: `b` batch, `t` time, `h` hidden, `v` vocabulary, `n` selected positions.

pub mod batch;
mod checkpoint;
pub mod config;
mod gradient;
pub mod optimizer;
pub mod parallel;
pub mod ppo;
pub mod reward;
pub mod schedule;
pub mod sft;

pub use batch::Plan;
pub use gradient::{Gradients, Replica};

use crate::draw::Key;
use crate::model::Network;
use crate::{Error, Result};

/// What a trainer must know about the run it is part of.
#[derive(Debug, Clone)]
pub struct Run {
    /// The stage's name in errors and metrics: `sft`, `reward`, `policy:<name>`.
    pub stage: String,
    /// Steps of the whole run, for the learning-rate schedule.
    pub total_steps: usize,
    /// Worker threads; the result does not depend on it.
    pub workers: usize,
    /// The key of all draws.
    pub key: Key,
}

impl Run {
    /// `sft step 12`: the place of a failure in the step that follows `done` steps.
    fn place(&self, done: usize) -> String {
        format!("{} step {}", self.stage, done + 1)
    }

    /// An error where a loss is not a number.
    fn check_loss(&self, done: usize, name: &str, loss: f64) -> Result<()> {
        if loss.is_finite() {
            return Ok(());
        }
        Err(Error::train(
            self.place(done),
            format!("the {name} is {loss}; lower the learning rate or look at this step's rows"),
        ))
    }

    /// An error where a row cannot be fed to `network`.
    fn check_ids(&self, done: usize, row: usize, ids: &[u32], network: &Network) -> Result<()> {
        let config = network.config();
        let wrong = |problem: String| Err(Error::data(format!("{} row {row}", self.place(done)), problem));
        if let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab_size) {
            return wrong(format!("token id {id} is outside of the vocabulary of {}", config.vocab_size));
        }
        if ids.len() > config.max_position_embeddings {
            return wrong(format!(
                "has {} tokens, more than the model's context of {}; shorten it",
                ids.len(),
                config.max_position_embeddings
            ));
        }
        Ok(())
    }
}

/// The numbers of one step, by their TRL names.
pub type Metrics = Vec<(&'static str, f64)>;

/// Runs the steps of `plan` after the `done` ones: `step` gets the rows and the epoch count after them.
fn steps(plan: &Plan, done: usize, mut step: impl FnMut(&[usize], f64) -> Result<()>) -> Result<()> {
    let mut order = (usize::MAX, Vec::new());
    for next in done..plan.steps() {
        let epoch = next / plan.steps_per_epoch();
        if order.0 != epoch {
            order = (epoch, plan.order(epoch));
        }
        step(plan.rows_of(&order.1, next), plan.epoch(next + 1))?;
    }
    Ok(())
}
