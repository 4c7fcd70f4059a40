//! Proximal policy optimisation of a policy against shaped rewards, with a KL penalty to a reference.
//!
//! ```text
//! rows (query, response, reward) ─> evaluate ─> token rewards: -kl_coef * kl_t (+ reward on the last token)
//!                                                  │
//!                            GAE <─────────────────┘
//!                             │ advantages (whitened), returns
//!                             └─> num_ppo_epochs x num_mini_batches updates of policy and value
//! ```
//!
//! Sampling and reward scoring happen outside; one call of [`PpoTrainer::step`] is one rollout batch. Rows,
//! metrics and defaults follow TRL's PPO trainer; the recipe is that of SALMON (arXiv 2310.05910, section 3).

pub mod gae;
pub mod kl;
pub mod loss;
mod player;
mod rows;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::checkpoint::{self, Saved};
use super::config::PpoConfig;
use super::gradient::{Gradients, Replica};
use super::optimizer::{AdamW, copy_into};
use super::parallel::Team;
use super::schedule::Schedule;
use super::{Metrics, Run};
use crate::model::{Head, Network};
use crate::torch::guard;
use crate::{Error, Result};
use player::{Lesson, Player, Rules, Sums};
pub use rows::{Evaluation, Row, RowUpdate};
use rows::{Targets, pieces};

#[derive(Debug, Serialize, Deserialize)]
struct State {
    step: usize,
    episodes: u64,
    /// The bits of the f64 coefficient: JSON numbers do not come back exactly.
    kl_coef_bits: u64,
}

/// Trains a policy and its value model.
pub struct PpoTrainer {
    run: Run,
    config: PpoConfig,
    schedule: Schedule,
    policy: Network,
    value: Network,
    policy_optimizer: AdamW,
    value_optimizer: AdamW,
    team: Team<Player>,
    state: State,
}

/// What one step gives.
#[derive(Debug, Clone)]
pub struct PpoStep {
    /// Per row, in row order.
    pub rows: Vec<RowUpdate>,
    /// Under TRL's names.
    pub metrics: Metrics,
}

/// Means over the tokens of one mini-batch, and the norms of its gradients.
struct Update {
    means: Sums,
    policy_norm: f64,
    value_norm: f64,
}

impl PpoTrainer {
    /// A trainer at step 0. `policy` and `value` need trainable tensors, `value` a head; `reference` is only read.
    ///
    /// # Errors
    /// A configuration error for values out of range, a value model without a head, or nothing to train.
    pub fn new(policy: Network, reference: Network, value: Network, config: PpoConfig, run: Run) -> Result<Self> {
        config.check(&run.stage)?;
        if value.head() == Head::None {
            return Err(Error::config(&run.stage, "the value model has no head"));
        }
        guard(&run.stage.clone(), || {
            let common = config.common();
            let checkpointing = |network: Network| network.with_gradient_checkpointing(common.gradient_checkpointing);
            let (policy, value) = (checkpointing(policy), checkpointing(value));
            let player = || -> Result<Player> {
                Ok(Player {
                    policy: Replica::of(&policy)?,
                    reference: Replica::of(&reference)?,
                    value: Replica::of(&value)?,
                })
            };
            let team = Team::new(&run.stage, (0..run.workers.max(1)).map(|_| player()).collect::<Result<_>>()?)?;
            Ok(PpoTrainer {
                schedule: common.schedule(run.total_steps),
                policy_optimizer: AdamW::new(common.adamw, policy.trainable())?,
                value_optimizer: AdamW::new(common.adamw, value.trainable())?,
                state: State { step: 0, episodes: 0, kl_coef_bits: config.kl_coef.to_bits() },
                run,
                config,
                policy,
                value,
                team,
            })
        })
    }

    /// What policy, reference and value model say of responses, without training.
    ///
    /// # Errors
    /// A data error for a bad row.
    pub fn evaluate(&self, rows: &[Row]) -> Result<Vec<Evaluation>> {
        guard(&self.run.place(self.state.step), || {
            self.check(rows)?;
            let all: Vec<usize> = (0..rows.len()).collect();
            self.evaluate_in(rows, &[&all])
        })
    }

    /// Evaluates rows in the micro-batches that training on these mini-batches will use.
    fn evaluate_in(&self, rows: &[Row], mini_batches: &[&[usize]]) -> Result<Vec<Evaluation>> {
        let mut out = vec![Evaluation::default(); rows.len()];
        let items = mini_batches.iter().flat_map(|members| self.pieces(rows, members)).collect();
        let temperature = self.config.temperature;
        self.team.map(
            items,
            move |player, piece| player.evaluate(&piece, temperature),
            |evaluations| {
                for (row, evaluation) in evaluations {
                    out[row] = evaluation;
                }
                Ok(())
            },
        )?;
        Ok(out)
    }

    fn pieces(&self, rows: &[Row], members: &[usize]) -> Vec<rows::Piece> {
        pieces(rows, members, self.config.micro_batch_tokens)
    }

    /// One PPO step on a batch of rollouts.
    ///
    /// Metrics: `objective/kl` (nats per response, k1), `objective/entropy`, `objective/non_score_reward`,
    /// `objective/scores`, `objective/rlhf_reward`, `objective/kl_coef`, `policy/approxkl_avg`,
    /// `policy/clipfrac_avg`, `policy/entropy_avg`, `policy/grad_norm`, `loss/policy_avg`, `loss/value_avg`,
    /// `val/clipfrac_avg`, `val/ratio`, `val/ratio_var`, `val/grad_norm`, `lr`, `episode`.
    ///
    /// # Errors
    /// A data error for a bad row; a training error where a loss or a gradient is not finite, with the parameters
    /// as the mini-batch before left them.
    pub fn step(&mut self, rows: &[Row]) -> Result<PpoStep> {
        guard(&self.run.place(self.state.step), || {
            tch::set_num_threads(1);
            self.check(rows)?;
            let mini_batch = rows.len().div_ceil(self.config.num_mini_batches);
            let order =
                |epoch: usize| self.run.key.with(self.state.step as u64).with(epoch as u64).permutation(rows.len());
            let orders: Vec<Vec<usize>> = (0..self.config.num_ppo_epochs).map(order).collect();
            let first: Vec<&[usize]> = orders.iter().take(1).flat_map(|order| order.chunks(mini_batch)).collect();
            let evaluations = self.evaluate_in(rows, &first)?;
            let kl_coef = f64::from_bits(self.state.kl_coef_bits);
            let (updates, targets, penalties) = self.targets(rows, evaluations, kl_coef);
            let targets = Arc::new(targets);

            let factor = self.schedule.factor(self.state.step);
            let learning_rate = self.config.learning_rate * factor;
            let mut done = Vec::new();
            for members in orders.iter().flat_map(|order| order.chunks(mini_batch)) {
                done.push(self.update(rows, members, &targets, factor)?);
            }

            self.state.step += 1;
            self.state.episodes += rows.len() as u64;
            let kl = updates.iter().map(|row| row.kl).sum::<f64>() / rows.len() as f64;
            if let Some(control) = self.config.adaptive_kl {
                self.state.kl_coef_bits = kl::adapt(kl_coef, control, kl, rows.len()).to_bits();
            }
            let mut metrics = objective_metrics(rows, &updates, &penalties, kl_coef);
            metrics.extend(update_metrics(&done));
            metrics.extend([("lr", learning_rate), ("episode", self.state.episodes as f64)]);
            Ok(PpoStep { rows: updates, metrics })
        })
    }

    /// Rewards per token, advantages and returns: `(per row, per row for the losses, KL penalty per row)`.
    fn targets(
        &self,
        rows: &[Row],
        evaluations: Vec<Evaluation>,
        kl_coef: f64,
    ) -> (Vec<RowUpdate>, Vec<Targets>, Vec<f64>) {
        let wide = |list: &[f32]| list.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let mut penalties = Vec::with_capacity(rows.len());
        let mut rewards = Vec::with_capacity(rows.len());
        for (row, evaluation) in rows.iter().zip(&evaluations) {
            let pairs = evaluation.logprobs.iter().zip(&evaluation.ref_logprobs);
            let mut tokens: Vec<f64> = pairs
                .map(|(&p, &q)| -kl_coef * self.config.kl_estimator.estimate(f64::from(p), f64::from(q)))
                .collect();
            penalties.push(tokens.iter().sum::<f64>());
            if let Some(last) = tokens.last_mut() {
                *last += row.reward;
            }
            rewards.push(tokens);
        }
        if self.config.whiten_rewards {
            gae::whiten(&mut rewards, true);
        } else {
            rewards.iter_mut().flatten().for_each(|reward| *reward *= self.config.reward_scale);
        }
        let mut updates = Vec::with_capacity(rows.len());
        for (evaluation, rewards) in evaluations.into_iter().zip(&rewards) {
            let values = wide(&evaluation.values);
            let (advantages, returns) = gae::advantages(rewards, &values, self.config.gamma, self.config.lam);
            let kl = wide(&evaluation.logprobs).iter().zip(wide(&evaluation.ref_logprobs)).map(|(p, q)| p - q).sum();
            updates.push(RowUpdate { evaluation, kl, advantages, returns });
        }
        let mut whitened: Vec<Vec<f64>> = updates.iter().map(|row| row.advantages.clone()).collect();
        gae::whiten(&mut whitened, false);
        let narrow = |list: &[f64]| list.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let targets = updates
            .iter()
            .zip(&whitened)
            .map(|(row, advantages)| Targets {
                logprobs: row.evaluation.logprobs.clone(),
                values: row.evaluation.values.clone(),
                advantages: narrow(advantages),
                returns: narrow(&row.returns),
            })
            .collect();
        (updates, targets, penalties)
    }

    /// One optimizer step of policy and value model on a mini-batch.
    fn update(&mut self, rows: &[Row], members: &[usize], targets: &Arc<Vec<Targets>>, factor: f64) -> Result<Update> {
        let tokens = members.iter().map(|&row| rows[row].response_ids.len()).sum::<usize>() as f64;
        let rules = Rules {
            temperature: self.config.temperature,
            cliprange: self.config.cliprange,
            cliprange_value: self.config.cliprange_value,
            vf_coef: self.config.vf_coef,
            tokens,
        };
        let targets = Arc::clone(targets);
        let (mut policy, mut value, mut sums) = (Gradients::default(), Gradients::default(), Sums::default());
        self.team.map(
            self.pieces(rows, members),
            move |player, piece| {
                let mut flat = Targets::default();
                for (row, _) in piece.spans() {
                    flat.extend(&targets[row]);
                }
                player.learn(&piece, &flat, rules)
            },
            |lesson: Lesson| {
                sums.add(lesson.sums);
                policy.add(lesson.policy)?;
                value.add(lesson.value)
            },
        )?;
        let means = sums.means(tokens);
        let (step, place) = (self.state.step, self.run.place(self.state.step));
        self.run.check_loss(step, "policy loss", means.policy_loss)?;
        self.run.check_loss(step, "value loss", means.value_loss)?;
        let (policy_norm, value_norm) = (policy.norm()?, value.norm()?);
        // Checked before the policy moves, so that neither of the two does where one cannot.
        self.run.check_loss(step, "gradient norm of the value model", value_norm)?;
        let learning_rate = factor * self.config.learning_rate;
        let value_learning_rate = factor * self.config.value_learning_rate.unwrap_or(self.config.learning_rate);
        self.policy_optimizer.step(&place, &policy, policy_norm, learning_rate)?;
        self.value_optimizer.step(&place, &value, value_norm, value_learning_rate)?;
        Ok(Update { means, policy_norm, value_norm })
    }

    fn check(&self, rows: &[Row]) -> Result<()> {
        if rows.is_empty() {
            return Err(Error::data(self.run.place(self.state.step), "there are no rollouts"));
        }
        for (number, row) in rows.iter().enumerate() {
            let ids = [row.query_ids.as_slice(), &row.response_ids].concat();
            self.run.check_ids(self.state.step, number, &ids, &self.policy)?;
            let wrong =
                |problem: &str| Error::data(format!("{} row {number}", self.run.place(self.state.step)), problem);
            if row.query_ids.is_empty() || row.response_ids.is_empty() {
                return Err(wrong("the query or the response has no token"));
            }
            if !row.reward.is_finite() {
                return Err(wrong(&format!("the reward is {}", row.reward)));
            }
        }
        Ok(())
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.state.step
    }

    /// The policy as it is trained.
    pub fn policy(&self) -> &Network {
        &self.policy
    }

    /// The value model as it is trained.
    pub fn value(&self) -> &Network {
        &self.value
    }

    /// The coefficient of the KL penalty in the next step.
    pub fn kl_coef(&self) -> f64 {
        f64::from_bits(self.state.kl_coef_bits)
    }

    /// Saves where the trainer stands into `folder`, replacing older steps there.
    ///
    /// # Errors
    /// A store error that names the file.
    pub fn save(&self, folder: &Path) -> Result<()> {
        guard(&self.run.stage, || {
            let files = [
                (POLICY, self.policy.trainable()),
                (VALUE, self.value.trainable()),
                (POLICY_OPTIMIZER, self.policy_optimizer.state()),
                (VALUE_OPTIMIZER, self.value_optimizer.state()),
            ];
            checkpoint::save(folder, self.state.step, &files, &self.state)
        })
    }

    /// Goes on from the newest step in `folder`; false where there is none.
    ///
    /// # Errors
    /// A store error for a checkpoint that is damaged or of other networks.
    pub fn restore(&mut self, folder: &Path) -> Result<bool> {
        guard(&self.run.stage.clone(), || {
            let Some(saved) = Saved::newest(folder)? else { return Ok(false) };
            let state = saved.state()?;
            copy_into(&saved.place(POLICY), &saved.tensors(POLICY)?, self.policy.trainable())?;
            copy_into(&saved.place(VALUE), &saved.tensors(VALUE)?, self.value.trainable())?;
            let (policy, value) = (&mut self.policy_optimizer, &mut self.value_optimizer);
            policy.load_state(&saved.place(POLICY_OPTIMIZER), &saved.tensors(POLICY_OPTIMIZER)?)?;
            value.load_state(&saved.place(VALUE_OPTIMIZER), &saved.tensors(VALUE_OPTIMIZER)?)?;
            self.state = state;
            Ok(true)
        })
    }
}

const POLICY: &str = "policy.safetensors";
const VALUE: &str = "value.safetensors";
const POLICY_OPTIMIZER: &str = "policy_optimizer.safetensors";
const VALUE_OPTIMIZER: &str = "value_optimizer.safetensors";

fn objective_metrics(rows: &[Row], updates: &[RowUpdate], penalties: &[f64], kl_coef: f64) -> Metrics {
    let mean = |sum: f64| sum / rows.len() as f64;
    let surprise = updates.iter().flat_map(|row| &row.evaluation.logprobs).map(|&p| -f64::from(p)).sum();
    let (scores, penalty) = (mean(rows.iter().map(|row| row.reward).sum()), mean(penalties.iter().sum()));
    vec![
        ("objective/kl", mean(updates.iter().map(|row| row.kl).sum())),
        ("objective/entropy", mean(surprise)),
        ("objective/non_score_reward", penalty),
        ("objective/scores", scores),
        ("objective/rlhf_reward", scores + penalty),
        ("objective/kl_coef", kl_coef),
    ]
}

fn update_metrics(updates: &[Update]) -> Metrics {
    let count = updates.len() as f64;
    let mean = |f: &dyn Fn(&Update) -> f64| updates.iter().map(f).sum::<f64>() / count;
    let ratio = mean(&|u| u.means.ratio);
    let squares: f64 = updates.iter().map(|u| (u.means.ratio - ratio).powi(2)).sum();
    vec![
        ("policy/approxkl_avg", mean(&|u| u.means.approx_kl)),
        ("policy/clipfrac_avg", mean(&|u| u.means.policy_clipped)),
        ("policy/entropy_avg", mean(&|u| u.means.entropy)),
        ("policy/grad_norm", mean(&|u| u.policy_norm)),
        ("loss/policy_avg", mean(&|u| u.means.policy_loss)),
        ("loss/value_avg", mean(&|u| u.means.value_loss)),
        ("val/clipfrac_avg", mean(&|u| u.means.value_clipped)),
        ("val/ratio", ratio),
        ("val/ratio_var", squares / (count - 1.0).max(1.0)),
        ("val/grad_norm", mean(&|u| u.value_norm)),
    ]
}
