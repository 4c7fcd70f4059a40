//! What a user sets about training. Field names are those of Hugging Face and TRL; defaults are the values of
//! the SALMON paper (arXiv 2310.05910) where it gives one.
//!
//! In: TOML tables. Out: checked numbers for the trainers. Unknown keys are errors.

use serde::{Deserialize, Serialize};

use super::optimizer::AdamWConfig;
use super::ppo::kl::KlEstimator;
use super::schedule::{Schedule, Scheduler};
use crate::{Error, Result};

/// The settings that all trainers share, read out of one of the configurations below.
#[derive(Debug, Clone, Copy)]
pub struct Common {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// The optimizer's constants.
    pub adamw: AdamWConfig,
    /// The most padded tokens in one micro-batch.
    pub micro_batch_tokens: usize,
    /// Whether a backward pass computes activations again instead of keeping them.
    pub gradient_checkpointing: bool,
    scheduler: Scheduler,
    warmup_steps: usize,
    warmup_ratio: f64,
    min_lr_rate: f64,
}

impl Common {
    /// The schedule of a run of `total_steps`.
    pub fn schedule(&self, total_steps: usize) -> Schedule {
        Schedule::new(self.scheduler, self.warmup_steps, self.warmup_ratio, self.min_lr_rate, total_steps)
    }
}

/// Defines a configuration: the shared fields, with this trainer's defaults, then its own.
macro_rules! configuration {
    (
        $(#[$doc:meta])* $name:ident
        { learning_rate: $lr:expr, lr_scheduler_type: $scheduler:expr, warmup_ratio: $warmup:expr,
          num_train_epochs: $epochs:expr, batch_size: $batch:expr }
        { $( $(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr, )* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// Peak learning rate.
            pub learning_rate: f64,
            /// Shape of the learning rate over the run.
            pub lr_scheduler_type: Scheduler,
            /// Share of the steps spent in warm-up; used where `warmup_steps` is 0.
            pub warmup_ratio: f64,
            /// Steps of warm-up.
            pub warmup_steps: usize,
            /// Where `cosine_with_min_lr` ends, as a share of the peak.
            pub min_lr_rate: f64,
            /// Decay of AdamW's first moment.
            pub adam_beta1: f64,
            /// Decay of AdamW's second moment.
            pub adam_beta2: f64,
            /// Added to the root of AdamW's second moment.
            pub adam_epsilon: f64,
            /// Decoupled weight decay on matrices.
            pub weight_decay: f64,
            /// Gradients are scaled down to this norm; 0 turns it off.
            pub max_grad_norm: f64,
            /// Passes over the data.
            pub num_train_epochs: usize,
            /// Rows (pairs for the reward model, rollouts for PPO) per step.
            pub batch_size: usize,
            /// The most padded tokens in one forward and backward pass: memory against speed.
            pub micro_batch_tokens: usize,
            /// Compute each layer again in the backward pass instead of keeping its activations: a third more time for
            /// much less memory. Results do not depend on it.
            pub gradient_checkpointing: bool,
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                $name {
                    learning_rate: $lr,
                    lr_scheduler_type: $scheduler,
                    warmup_ratio: $warmup,
                    warmup_steps: 0,
                    min_lr_rate: 0.1,
                    adam_beta1: 0.9,
                    adam_beta2: 0.999,
                    adam_epsilon: 1e-8,
                    weight_decay: 0.0,
                    max_grad_norm: 1.0,
                    num_train_epochs: $epochs,
                    batch_size: $batch,
                    micro_batch_tokens: 1024,
                    gradient_checkpointing: false,
                    $( $field: $default, )*
                }
            }
        }

        impl $name {
            /// The settings shared by all trainers.
            pub fn common(&self) -> Common {
                Common {
                    learning_rate: self.learning_rate,
                    adamw: AdamWConfig {
                        adam_beta1: self.adam_beta1,
                        adam_beta2: self.adam_beta2,
                        adam_epsilon: self.adam_epsilon,
                        weight_decay: self.weight_decay,
                        max_grad_norm: self.max_grad_norm,
                    },
                    micro_batch_tokens: self.micro_batch_tokens,
                    gradient_checkpointing: self.gradient_checkpointing,
                    scheduler: self.lr_scheduler_type,
                    warmup_steps: self.warmup_steps,
                    warmup_ratio: self.warmup_ratio,
                    min_lr_rate: self.min_lr_rate,
                }
            }

            fn check_common(&self, place: &str) -> Result<()> {
                let at_least_zero = [
                    ("learning_rate", self.learning_rate),
                    ("weight_decay", self.weight_decay),
                    ("max_grad_norm", self.max_grad_norm),
                ];
                for (key, value) in at_least_zero {
                    require(place, key, value, value.is_finite() && value >= 0.0, "at least 0")?;
                }
                for (key, value) in [("warmup_ratio", self.warmup_ratio), ("min_lr_rate", self.min_lr_rate)] {
                    require(place, key, value, (0.0..=1.0).contains(&value), "between 0 and 1")?;
                }
                for (key, value) in [("adam_beta1", self.adam_beta1), ("adam_beta2", self.adam_beta2)] {
                    require(place, key, value, (0.0..1.0).contains(&value), "at least 0 and below 1")?;
                }
                let epsilon = self.adam_epsilon;
                require(place, "adam_epsilon", epsilon, epsilon.is_finite() && epsilon > 0.0, "above 0")?;
                let counts = [
                    ("num_train_epochs", self.num_train_epochs),
                    ("batch_size", self.batch_size),
                    ("micro_batch_tokens", self.micro_batch_tokens),
                ];
                for (key, value) in counts {
                    require(place, key, value, value > 0, "at least 1")?;
                }
                Ok(())
            }
        }
    };
}

fn require(place: &str, key: &str, value: impl std::fmt::Display, holds: bool, rule: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::config(format!("{place}.{key}"), format!("is {value}; it must be {rule}")))
}

configuration! {
    /// Fine-tuning on prompt -> answer.
    SftConfig
    { learning_rate: 1e-4, lr_scheduler_type: Scheduler::Cosine, warmup_ratio: 0.03, num_train_epochs: 1,
      batch_size: 64 }
    {}
}

impl SftConfig {
    /// Whether every value is in its range; `place` names the table in the file.
    ///
    /// # Errors
    /// A configuration error with the key, its value and its rule.
    pub fn check(&self, place: &str) -> Result<()> {
        self.check_common(place)
    }
}

configuration! {
    /// Reward-model training on preference pairs. The pre-training on human preferences uses 5e-5 in the paper.
    RewardConfig
    { learning_rate: 3e-5, lr_scheduler_type: Scheduler::Cosine, warmup_ratio: 0.03, num_train_epochs: 1,
      batch_size: 64 }
    {}
}

impl RewardConfig {
    /// Whether every value is in its range; `place` names the table in the file.
    ///
    /// # Errors
    /// A configuration error with the key, its value and its rule.
    pub fn check(&self, place: &str) -> Result<()> {
        self.check_common(place)
    }
}

/// Ziegler's controller of the KL coefficient (arXiv 1909.08593, section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveKl {
    /// The KL per response, in nats, that it steers to.
    pub target: f64,
    /// In how many rollouts the coefficient changes by its own size at an error of 1.
    pub horizon: f64,
}

configuration! {
    /// PPO against the reward model.
    PpoConfig
    { learning_rate: 2e-5, lr_scheduler_type: Scheduler::Constant, warmup_ratio: 0.0, num_train_epochs: 2,
      batch_size: 576 }
    {
        /// The value model's peak learning rate; that of the policy where it is not given.
        value_learning_rate: Option<f64> = None,
        /// Passes over the rollouts of a step.
        num_ppo_epochs: usize = 2,
        /// Optimizer steps in each of these passes.
        num_mini_batches: usize = 2,
        /// The policy's probability ratio is clipped to 1 +- this.
        cliprange: f64 = 0.2,
        /// The value estimate is clipped to its old value +- this.
        cliprange_value: f64 = 0.2,
        /// Weight of the value loss.
        vf_coef: f64 = 0.1,
        /// Discount of later rewards.
        gamma: f64 = 1.0,
        /// GAE's lambda.
        lam: f64 = 1.0,
        /// Taken off per nat of divergence from the reference; the first value where it adapts.
        kl_coef: f64 = 0.01,
        /// How the divergence of a token is estimated.
        kl_estimator: KlEstimator = KlEstimator::K1Clamped,
        /// Steers `kl_coef`; a fixed coefficient where it is not given.
        adaptive_kl: Option<AdaptiveKl> = None,
        /// Divide token rewards by their deviation over the batch (instead of multiplying by `reward_scale`).
        whiten_rewards: bool = false,
        /// Token rewards, KL penalty included, are multiplied by this.
        reward_scale: f64 = 10.0,
        /// The temperature the rollouts were sampled at; log-probabilities are taken at it.
        temperature: f64 = 0.7,
    }
}

impl PpoConfig {
    /// Whether every value is in its range; `place` names the table in the file.
    ///
    /// # Errors
    /// A configuration error with the key, its value and its rule.
    pub fn check(&self, place: &str) -> Result<()> {
        self.check_common(place)?;
        let at_least_zero = [
            ("value_learning_rate", self.value_learning_rate.unwrap_or(0.0)),
            ("vf_coef", self.vf_coef),
            ("kl_coef", self.kl_coef),
        ];
        for (key, value) in at_least_zero {
            require(place, key, value, value.is_finite() && value >= 0.0, "at least 0")?;
        }
        let mut above_zero = vec![
            ("cliprange", self.cliprange),
            ("cliprange_value", self.cliprange_value),
            ("reward_scale", self.reward_scale),
            ("temperature", self.temperature),
        ];
        if let Some(adaptive) = self.adaptive_kl {
            above_zero.extend([("adaptive_kl.target", adaptive.target), ("adaptive_kl.horizon", adaptive.horizon)]);
        }
        for (key, value) in above_zero {
            require(place, key, value, value.is_finite() && value > 0.0, "above 0")?;
        }
        for (key, value) in [("gamma", self.gamma), ("lam", self.lam)] {
            require(place, key, value, (0.0..=1.0).contains(&value), "between 0 and 1")?;
        }
        for (key, value) in [("num_ppo_epochs", self.num_ppo_epochs), ("num_mini_batches", self.num_mini_batches)] {
            require(place, key, value, value > 0, "at least 1")?;
        }
        require(
            place,
            "num_mini_batches",
            self.num_mini_batches,
            self.num_mini_batches <= self.batch_size,
            "at most batch_size",
        )
    }
}
