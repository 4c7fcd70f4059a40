//! The reward model: Bradley-Terry on preference pairs.
//!
//! In: [`PairExample`]s, whose sequences end where the head reads its score (the last token). Out: a network whose
//! score of the chosen sequence exceeds that of the rejected one. Loss of a pair: `-log sigmoid(r_c - r_r)`, the
//! binary cross-entropy on the difference of rewards; the loss of a step is its mean over the batch.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::batch::{Padded, Plan, micro_batches};
use super::checkpoint::{self, Saved};
use super::config::RewardConfig;
use super::gradient::{Gradients, Replica};
use super::optimizer::{AdamW, copy_into};
use super::parallel::Team;
use super::schedule::Schedule;
use super::{Metrics, Run, steps};
use crate::model::{Head, Network};
use crate::torch::guard;
use crate::{Error, Result};

/// Two complete reward prompts over the same instruction and principles.
#[derive(Debug, Clone, PartialEq)]
pub struct PairExample {
    /// Token ids with the preferred response.
    pub chosen: Vec<u32>,
    /// Token ids with the other one.
    pub rejected: Vec<u32>,
}

impl PairExample {
    fn longest(&self) -> usize {
        self.chosen.len().max(self.rejected.len())
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    step: usize,
    num_tokens: u64,
}

/// Trains one network with a head on pairs.
pub struct RewardTrainer {
    run: Run,
    config: RewardConfig,
    schedule: Schedule,
    network: Network,
    optimizer: AdamW,
    team: Team<Replica>,
    state: State,
}

/// A micro-batch of pairs on its way to a worker: the chosen rows, then the rejected ones.
struct Piece {
    ids: Padded,
    /// The flat position of each row's last token.
    ends_n: Vec<i64>,
    /// One over the pairs of the whole batch.
    scale: f64,
}

struct Answer {
    gradients: Gradients,
    loss: f64,
    /// Scores as they lie in the piece.
    scores_n: Vec<f32>,
}

impl RewardTrainer {
    /// A trainer for the trainable tensors of `network`, at step 0.
    ///
    /// # Errors
    /// A configuration error for values out of range, for a network without a head, and for one with nothing to
    /// train.
    pub fn new(network: Network, config: RewardConfig, run: Run) -> Result<Self> {
        config.check(&run.stage)?;
        if network.head() == Head::None {
            return Err(Error::config(&run.stage, "the network has no reward head; choose linear or yes_no"));
        }
        guard(&run.stage.clone(), || {
            let common = config.common();
            let network = network.with_gradient_checkpointing(common.gradient_checkpointing);
            let optimizer = AdamW::new(common.adamw, network.trainable())?;
            let replicas = (0..run.workers.max(1)).map(|_| Replica::of(&network)).collect::<Result<_>>()?;
            let team = Team::new(&run.stage, replicas)?;
            let schedule = common.schedule(run.total_steps);
            Ok(RewardTrainer { run, config, schedule, network, optimizer, team, state: State::default() })
        })
    }

    /// Runs the steps of `plan` that are not done yet. `each` sees every step's metrics, `epoch` included; an
    /// error from it stops the run after that step.
    ///
    /// # Errors
    /// Those of [`RewardTrainer::step`] and of `each`.
    pub fn train(
        &mut self,
        pairs: &[PairExample],
        plan: &Plan,
        mut each: impl FnMut(&Self, &Metrics) -> Result<()>,
    ) -> Result<()> {
        steps(plan, self.state.step, |rows, epoch| {
            let batch: Vec<&PairExample> = rows.iter().filter_map(|&row| pairs.get(row)).collect();
            let mut metrics = self.step(&batch)?;
            metrics.push(("epoch", epoch));
            each(self, &metrics)
        })
    }

    /// One optimizer step. Metrics: `loss`, `accuracy` (chosen above rejected), `margin` (mean difference),
    /// `mean_reward`, `min_reward`, `max_reward`, `grad_norm`, `learning_rate`, `num_tokens`.
    ///
    /// # Errors
    /// A data error for a bad pair; a training error, with the parameters as they were, where the loss or its
    /// gradient is not finite.
    pub fn step(&mut self, batch: &[&PairExample]) -> Result<Metrics> {
        let place = self.run.place(self.state.step);
        guard(&place, || {
            tch::set_num_threads(1);
            self.check(batch)?;
            let lengths: Vec<usize> = batch.iter().map(|pair| pair.longest()).collect();
            // Two rows per pair.
            let groups = micro_batches(&lengths, self.config.micro_batch_tokens / 2);
            let pieces: Vec<Piece> = groups.iter().map(|group| Piece::new(batch, group)).collect();

            let (mut sum, mut loss, mut chosen, mut rejected) = (Gradients::default(), 0.0, Vec::new(), Vec::new());
            self.team.map(pieces, Piece::run, |answer| {
                loss += answer.loss;
                let (first, second) = answer.scores_n.split_at(answer.scores_n.len() / 2);
                chosen.extend(first.iter().map(|&score| f64::from(score)));
                rejected.extend(second.iter().map(|&score| f64::from(score)));
                sum.add(answer.gradients)
            })?;
            self.run.check_loss(self.state.step, "loss", loss)?;
            let learning_rate = self.config.learning_rate * self.schedule.factor(self.state.step);
            let grad_norm = sum.norm()?;
            self.optimizer.step(&place, &sum, grad_norm, learning_rate)?;

            self.state.step += 1;
            self.state.num_tokens +=
                batch.iter().map(|pair| (pair.chosen.len() + pair.rejected.len()) as u64).sum::<u64>();
            let count = batch.len() as f64;
            let margins: Vec<f64> = chosen.iter().zip(&rejected).map(|(c, r)| c - r).collect();
            let all = || chosen.iter().chain(&rejected).copied();
            Ok(vec![
                ("loss", loss),
                ("accuracy", margins.iter().filter(|&&margin| margin > 0.0).count() as f64 / count),
                ("margin", margins.iter().sum::<f64>() / count),
                ("mean_reward", all().sum::<f64>() / (2.0 * count)),
                ("min_reward", all().fold(f64::INFINITY, f64::min)),
                ("max_reward", all().fold(f64::NEG_INFINITY, f64::max)),
                ("grad_norm", grad_norm),
                ("learning_rate", learning_rate),
                ("num_tokens", self.state.num_tokens as f64),
            ])
        })
    }

    fn check(&self, batch: &[&PairExample]) -> Result<()> {
        if batch.is_empty() {
            return Err(Error::data(self.run.place(self.state.step), "the batch has no pair"));
        }
        for (row, pair) in batch.iter().enumerate() {
            for ids in [&pair.chosen, &pair.rejected] {
                self.run.check_ids(self.state.step, row, ids, &self.network)?;
                if ids.is_empty() {
                    let place = format!("{} row {row}", self.run.place(self.state.step));
                    return Err(Error::data(place, "one of the two sequences is empty"));
                }
            }
        }
        Ok(())
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.state.step
    }

    /// The network as it is trained.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The trained network.
    pub fn into_network(self) -> Network {
        self.network
    }

    /// Saves where the trainer stands into `folder`, replacing older steps there.
    ///
    /// # Errors
    /// A store error that names the file.
    pub fn save(&self, folder: &Path) -> Result<()> {
        guard(&self.run.stage, || {
            let files = [(NETWORK, self.network.trainable()), (OPTIMIZER, self.optimizer.state())];
            checkpoint::save(folder, self.state.step, &files, &self.state)
        })
    }

    /// Goes on from the newest step in `folder`; false where there is none.
    ///
    /// # Errors
    /// A store error for a checkpoint that is damaged or of another network.
    pub fn restore(&mut self, folder: &Path) -> Result<bool> {
        guard(&self.run.stage.clone(), || {
            let Some(saved) = Saved::newest(folder)? else { return Ok(false) };
            let state = saved.state()?;
            copy_into(&saved.place(NETWORK), &saved.tensors(NETWORK)?, self.network.trainable())?;
            self.optimizer.load_state(&saved.place(OPTIMIZER), &saved.tensors(OPTIMIZER)?)?;
            self.state = state;
            Ok(true)
        })
    }
}

const NETWORK: &str = "network.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";

impl Piece {
    fn new(batch: &[&PairExample], group: &[usize]) -> Self {
        let chosen = group.iter().map(|&row| batch[row].chosen.as_slice());
        let rejected = group.iter().map(|&row| batch[row].rejected.as_slice());
        let rows: Vec<&[u32]> = chosen.chain(rejected).collect();
        let ids = Padded::new(rows.iter().copied());
        let ends_n = rows.iter().enumerate().map(|(row, ids_)| ids.position(row, ids_.len() - 1)).collect();
        Piece { ids, ends_n, scale: 1.0 / batch.len() as f64 }
    }

    fn run(replica: &mut Replica, piece: Piece) -> Result<Answer> {
        let network = &replica.network;
        let device = network.device();
        let hidden_bth = network.hidden(&piece.ids.tensor(device))?;
        let ends_n = Tensor::from_slice(&piece.ends_n).to_device(device);
        let scores_n = network.scores(&hidden_bth.flatten(0, 1).index_select(0, &ends_n))?;
        let pairs = piece.ids.batch as i64 / 2;
        let margins = scores_n.narrow(0, 0, pairs) - scores_n.narrow(0, pairs, pairs);
        let loss = margins.log_sigmoid().sum(Kind::Float) * -piece.scale;
        let gradients = replica.gradients_of(&loss)?;
        Ok(Answer { gradients, loss: loss.double_value(&[]), scores_n: Vec::try_from(scores_n.detach())? })
    }
}
