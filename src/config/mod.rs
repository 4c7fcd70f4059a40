//! `salmon.toml`: every knob of a run, with the published recipe as the default.
//!
//! In: a TOML file and `--set key=value` pairs. Out: a checked [`Config`]; an unknown key, a wrong type or
//! a value out of range is one line that names the file and the key.

mod load;
mod stored;
mod training;

use serde::{Deserialize, Serialize};

pub use load::{parse, read};
pub use training::{Normalize, Ppo, Reward, RewardHead, RewardPretraining, ValueInit};

use crate::model::{LoraConfig, QuantizationConfig};
use crate::train::config::SftConfig;

/// A whole run. Sections stand in the order in which data flows through them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Seed of every random draw of the run.
    pub seed: u64,
    /// Seconds between the checkpoints of a trainer: what a kill can cost. Results do not depend on it.
    pub checkpoint_seconds: f64,
    /// The models to start from.
    pub model: Model,
    /// The prompts and human preferences to read.
    pub data: Data,
    /// The principle files and which of their sets are used where.
    pub principles: Principles,
    /// The prompt templates, by what they are used for.
    pub templates: Templates,
    /// Stage `demonstrations`: self-align answers.
    pub self_align: SelfAlign,
    /// Stage `sft`: principle engraving.
    pub sft: SftConfig,
    /// Stage `responses`: two or more answers per prompt.
    pub responses: Responses,
    /// Stage `judgments`.
    pub judge: Judge,
    /// Stage `preferences`: aggregation of judgments into labels.
    pub preferences: Preferences,
    /// Stage `reward_pretraining`, left out when the section is missing.
    pub reward_pretraining: Option<RewardPretraining>,
    /// Stage `reward`.
    pub reward: Reward,
    /// Stage `policy:<name>`: what all policies share.
    pub ppo: Ppo,
    /// One policy each: its name and the principles put into its reward prompt.
    pub policies: Vec<Policy>,
    /// Stages `evaluate:<what>`.
    pub evaluate: Evaluate,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            seed: 1,
            checkpoint_seconds: 60.0,
            model: Model::default(),
            data: Data::default(),
            principles: Principles::default(),
            templates: Templates::default(),
            self_align: SelfAlign::default(),
            sft: SftConfig::default(),
            responses: Responses::default(),
            judge: Judge::default(),
            preferences: Preferences::default(),
            reward_pretraining: None,
            reward: Reward::default(),
            ppo: Ppo::default(),
            policies: vec![Policy::default()],
            evaluate: Evaluate::default(),
        }
    }
}

/// `[model]`: the checkpoints to start from and where they run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Folder of a LLaMA-family model from Hugging Face, or its URL; `pocket` for the one that salmon ships, `pretrain` to make that
    /// one first.
    pub base: String,
    /// `float32` or `bfloat16`: what the weights are held in while training.
    pub dtype: Dtype,
    /// `cpu`, `cuda` or `auto`: where training runs.
    pub device: String,
    /// CPU threads for inference and training, 0 = all cores.
    pub workers: usize,
    /// Quantised projections of the frozen base; needs `[model.lora]`.
    pub quantization_config: Option<QuantizationConfig>,
    /// LoRA for every trained model; without this section all weights are trained.
    pub lora: Option<LoraConfig>,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            base: "pocket".into(),
            dtype: Dtype::Float32,
            device: "cpu".into(),
            workers: 0,
            quantization_config: None,
            lora: None,
        }
    }
}

/// The number format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats.
    Float32,
    /// bfloat16 for computing; whatever trains, and its optimizer state, stays 32-bit.
    Bfloat16,
}

/// `[data]`: files that `salmon import` made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// Parquet files with the columns of table `prompts`, by path or URL.
    pub prompts: Vec<String>,
    /// Parquet files with `prompt`, `chosen`, `rejected`, by path or URL, for `reward_pretraining`.
    pub human_preferences: Vec<String>,
}

/// `[principles]`: where principles come from and which sets are used.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Principles {
    /// Embedded files by name (`self_align`, `reward`, `rl`, ...) or paths of your own.
    pub files: Vec<String>,
    /// The set the judge goes through, one by one.
    pub judge_set: String,
    /// The subset whose judgments become labels.
    pub aggregate_set: String,
    /// Combinations kept out of reward training, to measure it on combinations it has not seen.
    pub held_out: Vec<Vec<String>>,
}

impl Default for Principles {
    fn default() -> Self {
        Principles {
            files: ["self_align", "reward", "rl", "interventions"].map(String::from).to_vec(),
            judge_set: "reward".into(),
            aggregate_set: "aggregation".into(),
            held_out: vec![],
        }
    }
}

/// `[templates]`: names of embedded templates, or of files in `folder`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Templates {
    /// A folder whose `*.jinja` files replace or add to the embedded ones.
    pub folder: Option<String>,
    /// Rules, exemplars and the prompt; ends where the answer begins.
    pub self_align: String,
    /// The layout that is trained and sampled: the prompt alone; ends where the answer begins.
    pub chat: String,
    /// The judge's question; ends just before the answer letter.
    pub judge: String,
    /// The reward model's input.
    pub reward: String,
    /// The reward model's input for human preferences, with a generic rubric.
    pub reward_rubric: String,
}

impl Default for Templates {
    fn default() -> Self {
        Templates {
            folder: None,
            self_align: "self_align".into(),
            chat: "chat".into(),
            judge: "judge".into(),
            reward: "reward".into(),
            reward_rubric: "reward_rubric".into(),
        }
    }
}

/// `[self_align]`: how the base model answers with the rules in sight.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelfAlign {
    /// How many training prompts to answer, drawn without replacement; 0 = all.
    pub prompts: i64,
    /// Answers per prompt.
    pub samples: i64,
    /// Sampling temperature.
    pub temperature: f64,
    /// Nucleus sampling.
    pub top_p: f64,
    /// Most tokens of an answer.
    pub max_tokens: i64,
    /// Strings that end an answer.
    pub stop: Vec<String>,
    /// Text between thoughts and answer; empty when the exemplars have no thoughts.
    pub answer_marker: String,
    /// Answers with fewer characters are dropped.
    pub min_chars: i64,
    /// Texts that show that rules or thoughts leaked into the answer; such answers are dropped.
    pub leaks: Vec<String>,
}

impl Default for SelfAlign {
    fn default() -> Self {
        SelfAlign {
            prompts: 0,
            samples: 1,
            temperature: 0.7,
            top_p: 1.0,
            max_tokens: 512,
            stop: vec!["### User".into(), "## Example".into()],
            answer_marker: "### Assistant".into(),
            min_chars: 16,
            leaks: ["Rules that apply", "(internal thoughts)", "### Assistant", "### User"].map(String::from).to_vec(),
        }
    }
}

/// `[responses]`: the answers that are compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Responses {
    /// How many training prompts to answer, drawn without replacement; 0 = all.
    pub prompts: i64,
    /// How many prompts more, whose pairs are kept aside to measure the reward model.
    pub test_prompts: i64,
    /// How often the drawn prompts are gone through (each round draws fresh answers).
    pub rounds: i64,
    /// Answers per prompt and round, at least 2.
    pub samples: i64,
    /// Sampling temperature.
    pub temperature: f64,
    /// Nucleus sampling.
    pub top_p: f64,
    /// Most tokens of an answer.
    pub max_tokens: i64,
    /// Strings that end an answer.
    pub stop: Vec<String>,
    /// Answers with fewer characters are dropped.
    pub min_chars: i64,
    /// Whether answers that never stopped are dropped.
    pub drop_unfinished: bool,
}

impl Default for Responses {
    fn default() -> Self {
        Responses {
            prompts: 0,
            test_prompts: 0,
            rounds: 1,
            samples: 2,
            temperature: 0.7,
            top_p: 1.0,
            max_tokens: 512,
            stop: vec!["###".into()],
            min_chars: 16,
            drop_unfinished: false,
        }
    }
}

/// `[judge]`: what the judge's next token may be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Judge {
    /// `sft` or `base`: which model judges.
    pub model: String,
    /// The two answer tokens as text; score = logit(first) - logit(second).
    pub answers: [String; 2],
    /// Most tokens of the instruction, cut from the left.
    pub max_query_tokens: i64,
    /// Most tokens of each output, cut from the right.
    pub max_response_tokens: i64,
}

impl Default for Judge {
    fn default() -> Self {
        Judge {
            model: "sft".into(),
            answers: ["a".into(), "b".into()],
            max_query_tokens: 256,
            max_response_tokens: 512,
        }
    }
}

/// `[preferences]`: section 2 of the method; every constant of the aggregation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preferences {
    /// Passes over the pairs.
    pub passes: i64,
    /// Parameter of the geometric distribution of the number of principles.
    pub geometric: f64,
    /// Larger draws are drawn again.
    pub max_principles: i64,
    /// Probability that a drawn principle is negated.
    pub negation: f64,
    /// Probability that a label is turned.
    pub noise: f64,
    /// The same for labels made by a rule.
    pub rule_noise: f64,
    /// A response with this text loses against one without ...
    pub boilerplate: String,
    /// ... with this probability.
    pub boilerplate_rate: f64,
    /// Whether a response in another language than the instruction loses.
    pub language_rule: bool,
}

impl Default for Preferences {
    fn default() -> Self {
        Preferences {
            passes: 4,
            geometric: 0.2,
            max_principles: 8,
            negation: 0.5,
            noise: 0.1,
            rule_noise: 0.25,
            boilerplate: "As an AI language model".into(),
            boilerplate_rate: 0.5,
            language_rule: true,
        }
    }
}

/// One `[[policies]]` entry: principles in, behaviour out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The name; the model and its rows are `policy:<name>`.
    pub name: String,
    /// Principles in every reward prompt, in order; `not NAME` for the negation. Interventions go here too.
    pub principles: Vec<String>,
    /// The set from which further principles are drawn by weight, per rollout.
    pub draw_set: Option<String>,
    /// How many of them.
    pub draw: i64,
    /// Values of `[ppo]` that differ for this policy.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub ppo: toml::Table,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            name: "main".into(),
            principles: vec!["interventions".into()],
            draw_set: Some("rl".into()),
            draw: 3,
            ppo: toml::Table::new(),
        }
    }
}

/// `[evaluate]`: what is measured at the end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// Test prompts each policy answers, 0 = all.
    pub prompts: i64,
    /// Answers per prompt.
    pub samples: i64,
    /// Sampling temperature of the evaluation.
    pub temperature: f64,
    /// `none`, or `pocket` for the toy world's exact checkers.
    pub world: String,
}

impl Default for Evaluate {
    fn default() -> Self {
        Evaluate { prompts: 256, samples: 1, temperature: 1.0, world: "none".into() }
    }
}
