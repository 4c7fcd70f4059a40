//! Fine-tuning on prompt -> answer: next-token cross-entropy on the answer tokens.
//!
//! In: [`Example`]s (token ids, a loss weight per token). Out: a trained network, metrics per step, and the loss
//! of every token. The loss of a step is `sum(w * -log p) / sum(w)` over the whole batch, whatever its split.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::batch::{Padded, Plan, micro_batches};
use super::checkpoint::{self, Saved};
use super::config::SftConfig;
use super::gradient::{Gradients, Replica};
use super::optimizer::{AdamW, copy_into};
use super::parallel::Team;
use super::schedule::Schedule;
use super::{Metrics, Run, steps};
use crate::model::Network;
use crate::torch::guard;
use crate::{Error, Result};

/// One row to learn from.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Token ids, prompt and answer.
    pub ids: Vec<u32>,
    /// Loss weight per token: how much predicting `ids[t]` counts. The first one is never predicted.
    pub weights: Vec<f32>,
}

impl Example {
    /// A prompt and an answer whose every token counts 1.
    pub fn answer(prompt: &[u32], answer: &[u32]) -> Self {
        let weights = std::iter::repeat_n(0.0, prompt.len()).chain(std::iter::repeat_n(1.0, answer.len())).collect();
        Example { ids: [prompt, answer].concat(), weights }
    }
}

/// What one step gives.
#[derive(Debug, Clone)]
pub struct SftStep {
    /// `loss`, `grad_norm`, `learning_rate`, `mean_token_accuracy`, `num_tokens`.
    pub metrics: Metrics,
    /// Per example and token: `-log p(ids[t])` in nats before the step; 0 where the weight is 0.
    pub token_losses: Vec<Vec<f32>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    step: usize,
    num_tokens: u64,
}

/// Trains one network on examples.
pub struct SftTrainer {
    run: Run,
    config: SftConfig,
    schedule: Schedule,
    network: Network,
    optimizer: AdamW,
    team: Team<Replica>,
    state: State,
}

/// One micro-batch on its way to a worker.
struct Piece {
    ids: Padded,
    /// Flat positions whose next token counts, those tokens, and their weights divided by the batch's sum.
    positions_n: Vec<i64>,
    targets_n: Vec<i64>,
    weights_n: Vec<f32>,
}

struct Answer {
    gradients: Gradients,
    loss: f64,
    correct: f64,
    losses_n: Vec<f32>,
}

impl SftTrainer {
    /// A trainer for the trainable tensors of `network`, at step 0.
    ///
    /// # Errors
    /// A configuration error for values out of range and for a network with nothing to train.
    pub fn new(network: Network, config: SftConfig, run: Run) -> Result<Self> {
        config.check(&run.stage)?;
        guard(&run.stage.clone(), || {
            let common = config.common();
            let network = network.with_gradient_checkpointing(common.gradient_checkpointing);
            let optimizer = AdamW::new(common.adamw, network.trainable())?;
            let replicas = (0..run.workers.max(1)).map(|_| Replica::of(&network)).collect::<Result<_>>()?;
            let team = Team::new(&run.stage, replicas)?;
            let schedule = common.schedule(run.total_steps);
            Ok(SftTrainer { run, config, schedule, network, optimizer, team, state: State::default() })
        })
    }

    /// Runs the steps of `plan` that are not done yet. `each` sees every step's metrics, `epoch` included; an
    /// error from it stops the run after that step.
    ///
    /// # Errors
    /// Those of [`SftTrainer::step`] and of `each`.
    pub fn train(
        &mut self,
        examples: &[Example],
        plan: &Plan,
        mut each: impl FnMut(&Self, &Metrics) -> Result<()>,
    ) -> Result<()> {
        steps(plan, self.state.step, |rows, epoch| {
            let batch: Vec<&Example> = rows.iter().filter_map(|&row| examples.get(row)).collect();
            let mut metrics = self.step(&batch)?.metrics;
            metrics.push(("epoch", epoch));
            each(self, &metrics)
        })
    }

    /// One optimizer step at the scheduled learning rate.
    ///
    /// # Errors
    /// A data error for a bad example; a training error, with the parameters as they were, where the loss or its
    /// gradient is not finite.
    pub fn step(&mut self, batch: &[&Example]) -> Result<SftStep> {
        let learning_rate = self.config.learning_rate * self.schedule.factor(self.state.step);
        self.step_at(batch, learning_rate)
    }

    /// One optimizer step at the given learning rate, for callers with a schedule of their own.
    ///
    /// # Errors
    /// As [`SftTrainer::step`].
    pub fn step_at(&mut self, batch: &[&Example], learning_rate: f64) -> Result<SftStep> {
        let place = self.run.place(self.state.step);
        guard(&place, || {
            tch::set_num_threads(1);
            let total = self.check(batch)?;
            // The last token is predicted, not fed.
            let lengths: Vec<usize> = batch.iter().map(|example| example.ids.len() - 1).collect();
            let groups = micro_batches(&lengths, self.config.micro_batch_tokens);
            let pieces: Vec<Piece> = groups.iter().map(|group| Piece::new(batch, group, total)).collect();
            let counted: usize = pieces.iter().map(|piece| piece.targets_n.len()).sum();

            let (mut sum, mut loss, mut correct, mut losses) = (Gradients::default(), 0.0, 0.0, Vec::new());
            self.team.map(pieces, Piece::run, |answer| {
                loss += answer.loss;
                correct += answer.correct;
                losses.push(answer.losses_n);
                sum.add(answer.gradients)
            })?;
            self.run.check_loss(self.state.step, "loss", loss)?;
            let grad_norm = sum.norm()?;
            self.optimizer.step(&place, &sum, grad_norm, learning_rate)?;

            self.state.step += 1;
            self.state.num_tokens += batch.iter().map(|example| example.ids.len() as u64).sum::<u64>();
            let metrics = vec![
                ("loss", loss),
                ("grad_norm", grad_norm),
                ("learning_rate", learning_rate),
                ("mean_token_accuracy", correct / counted as f64),
                ("num_tokens", self.state.num_tokens as f64),
            ];
            Ok(SftStep { metrics, token_losses: by_example(batch, &groups, &losses) })
        })
    }

    /// The sum of the batch's weights, after checking every row.
    fn check(&self, batch: &[&Example]) -> Result<f64> {
        let mut total = 0.0;
        for (row, example) in batch.iter().enumerate() {
            let wrong = |problem: &str| Error::data(format!("{} row {row}", self.run.place(self.state.step)), problem);
            self.run.check_ids(self.state.step, row, &example.ids, &self.network)?;
            if example.ids.len() < 2 || example.weights.len() != example.ids.len() {
                return Err(wrong("needs two tokens or more, and a weight for each"));
            }
            if example.weights.iter().any(|weight| !(0.0..=f32::MAX).contains(weight)) {
                return Err(wrong("has a loss weight that is negative or not a number"));
            }
            total += example.weights[1..].iter().map(|&weight| f64::from(weight)).sum::<f64>();
        }
        if total > 0.0 {
            return Ok(total);
        }
        Err(Error::data(self.run.place(self.state.step), "no token of the batch has a loss weight above 0"))
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

    /// The optimizer, for its state.
    pub fn optimizer(&self) -> &AdamW {
        &self.optimizer
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
    fn new(batch: &[&Example], group: &[usize], total: f64) -> Self {
        let ids = Padded::new(group.iter().map(|&row| &batch[row].ids[..batch[row].ids.len() - 1]));
        let mut piece = Piece { ids, positions_n: Vec::new(), targets_n: Vec::new(), weights_n: Vec::new() };
        for (place, &row) in group.iter().enumerate() {
            for (t, &id) in batch[row].ids.iter().enumerate().skip(1) {
                let weight = batch[row].weights[t];
                if weight > 0.0 {
                    piece.positions_n.push(piece.ids.position(place, t - 1));
                    piece.targets_n.push(i64::from(id));
                    piece.weights_n.push((f64::from(weight) / total) as f32);
                }
            }
        }
        piece
    }

    fn run(replica: &mut Replica, piece: Piece) -> Result<Answer> {
        if piece.targets_n.is_empty() {
            return Ok(Answer { gradients: Gradients::default(), loss: 0.0, correct: 0.0, losses_n: Vec::new() });
        }
        let network = &replica.network;
        let device = network.device();
        let targets_n = Tensor::from_slice(&piece.targets_n).to_device(device);
        let weights_n = Tensor::from_slice(&piece.weights_n).to_device(device);
        let hidden_bth = network.hidden(&piece.ids.tensor(device))?;
        let positions_n = Tensor::from_slice(&piece.positions_n).to_device(device);
        let logits_nv = network.logits(&hidden_bth.flatten(0, 1).index_select(0, &positions_n))?;
        let losses_n = -logits_nv.log_softmax(-1, Kind::Float).gather(1, &targets_n.unsqueeze(1), false).squeeze_dim(1);
        let loss = (&losses_n * &weights_n).sum(Kind::Float);
        let correct = logits_nv.detach().argmax(-1, false).eq_tensor(&targets_n).sum(Kind::Int64);
        let gradients = replica.gradients_of(&loss)?;
        Ok(Answer {
            gradients,
            loss: loss.double_value(&[]),
            correct: correct.int64_value(&[]) as f64,
            losses_n: Vec::try_from(losses_n.detach())?,
        })
    }
}

/// Puts the losses of the micro-batches back to their examples.
fn by_example(batch: &[&Example], groups: &[Vec<usize>], losses: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut out: Vec<Vec<f32>> = batch.iter().map(|example| vec![0.0; example.ids.len()]).collect();
    for (group, losses) in groups.iter().zip(losses) {
        let mut losses = losses.iter();
        for &row in group {
            for (slot, weight) in out[row].iter_mut().zip(&batch[row].weights).skip(1) {
                if *weight > 0.0 {
                    *slot = losses.next().copied().unwrap_or_default();
                }
            }
        }
    }
    out
}
