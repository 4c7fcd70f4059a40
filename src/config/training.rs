//! The sections of the stages that train: what the stage does, with the trainer's own settings inside.

use serde::{Deserialize, Serialize};

use crate::train::config::{PpoConfig, RewardConfig};

/// The reward head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardHead {
    /// A linear layer on the last position's hidden state.
    Linear,
    /// logit(yes) - logit(no) of the next token: no new weights, exports as a plain causal LM.
    YesNo,
}

/// `[reward]`: the principle-following reward model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reward {
    /// `linear` or `yes_no`.
    pub head: RewardHead,
    /// The two tokens of the Yes/No head. With the linear head: where given, the head starts as the difference of
    /// their unembedding rows instead of at random.
    pub answers: Option<[String; 2]>,
    /// Most tokens of the instruction, cut from the left.
    pub max_query_tokens: i64,
    /// Most tokens of the response, cut from the right.
    pub max_response_tokens: i64,
    /// The trainer.
    pub trainer: RewardConfig,
}

impl Default for Reward {
    fn default() -> Self {
        Reward {
            head: RewardHead::Linear,
            answers: None,
            max_query_tokens: 128,
            max_response_tokens: 768,
            trainer: RewardConfig::default(),
        }
    }
}

/// `[reward_pretraining]`: human preferences first, under a generic rubric.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardPretraining {
    /// Most rows, drawn; 0 = all.
    pub max_rows: i64,
    /// Most tokens of the prompt, cut from the left.
    pub max_query_tokens: i64,
    /// Most tokens of the response, cut from the right.
    pub max_response_tokens: i64,
    /// The trainer.
    #[serde(deserialize_with = "over_pretraining_defaults")]
    pub trainer: RewardConfig,
}

/// A trainer's table on top of the defaults of pre-training, which are not those of the type.
fn over_pretraining_defaults<'de, D: serde::Deserializer<'de>>(given: D) -> Result<RewardConfig, D::Error> {
    let given = toml::Table::deserialize(given)?;
    let mut table = toml::Table::try_from(RewardPretraining::default().trainer).map_err(serde::de::Error::custom)?;
    table.extend(given);
    table.try_into().map_err(|e: toml::de::Error| serde::de::Error::custom(e.message()))
}

impl Default for RewardPretraining {
    fn default() -> Self {
        RewardPretraining {
            max_rows: 320_000,
            max_query_tokens: 256,
            max_response_tokens: 640,
            trainer: RewardConfig { learning_rate: 5e-5, ..RewardConfig::default() },
        }
    }
}

/// What a policy starts its value model from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueInit {
    /// The reward model, head included (the method).
    Reward,
    /// The SFT policy with a head of zeros.
    Sft,
}

/// How scores become rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// As the head gives them (the method; `trainer.reward_scale` multiplies).
    None,
    /// Shifted and divided by the mean and deviation of the first step's scores, which then stay fixed.
    FirstBatch,
}

/// `[ppo]`: section 3 of the method. `[[policies]]` entries may override any of these.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ppo {
    /// PPO steps; 0 = `trainer.num_train_epochs` passes over the prompts.
    pub steps: i64,
    /// Most tokens of a response.
    pub max_tokens: i64,
    /// Nucleus sampling of the rollouts (1 keeps their log-probabilities those of the policy).
    pub top_p: f64,
    /// Strings that end a response.
    pub stop: Vec<String>,
    /// Largest length bonus per unit of a prompt's multiplier.
    pub length_bonus: f64,
    /// Tokens at which the length ratio is 1.
    pub length_bonus_tokens: f64,
    /// The length ratio times the multiplier is cut here.
    pub length_bonus_cap: f64,
    /// Taken off where a response never stopped.
    pub stop_penalty: f64,
    /// How scores become rewards.
    pub normalize: Normalize,
    /// What the value model starts from.
    pub value_init: ValueInit,
    /// Shorter prompts are left out, in tokens ...
    pub min_prompt_tokens: i64,
    /// ... and longer ones.
    pub max_prompt_tokens: i64,
    /// The trainer; `batch_size` is the rollouts per step.
    pub trainer: PpoConfig,
}

impl Default for Ppo {
    fn default() -> Self {
        Ppo {
            steps: 0,
            max_tokens: 1024,
            top_p: 1.0,
            stop: vec!["###".into()],
            length_bonus: 5.0,
            length_bonus_tokens: 1024.0,
            length_bonus_cap: 0.8,
            stop_penalty: 6.0,
            normalize: Normalize::None,
            value_init: ValueInit::Reward,
            min_prompt_tokens: 2,
            max_prompt_tokens: 256,
            trainer: PpoConfig::default(),
        }
    }
}
