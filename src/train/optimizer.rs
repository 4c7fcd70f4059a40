//! AdamW over named parameters (Loshchilov and Hutter, arXiv 1711.05101), fused in libtorch.
//!
//! In: summed gradients and a learning rate. Out: parameters and moments changed in place. The state is named
//! tensors, so that a checkpoint is a safetensors file and a restored optimizer goes on bit for bit.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::gradient::Gradients;
use crate::torch::shim::{self, AdamWStep};
use crate::{Error, Result};

/// The constants of AdamW, in their Hugging Face names.
#[derive(Debug, Clone, Copy)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment.
    pub adam_beta2: f64,
    /// Added to the root of the second moment.
    pub adam_epsilon: f64,
    /// Decoupled weight decay on matrices; vectors (norm weights) have none, as in the Hugging Face trainer.
    pub weight_decay: f64,
    /// The largest gradient norm; 0 for no limit.
    pub max_grad_norm: f64,
}

/// The optimizer of one network.
pub struct AdamW {
    config: AdamWConfig,
    names: Vec<String>,
    parameters: Vec<Tensor>,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
    /// Steps taken per parameter, 0-d f32: one without a gradient does not count the step.
    steps: Vec<Tensor>,
}

/// Names of the state in files: those of `torch.optim.AdamW`.
const STATE: [&str; 3] = ["exp_avg", "exp_avg_sq", "step"];

impl AdamW {
    /// An optimizer with zero moments for `Network::trainable`.
    ///
    /// # Errors
    /// A configuration error when there is nothing to train.
    pub fn new(config: AdamWConfig, trainable: Vec<(String, Tensor)>) -> Result<Self> {
        if trainable.is_empty() {
            return Err(Error::config("training", "the network has no trainable tensor; add LoRA or full training"));
        }
        let (names, parameters): (Vec<String>, Vec<Tensor>) = trainable.into_iter().unzip();
        let zeros = || parameters.iter().map(|p| p.detach().zeros_like()).collect::<Vec<_>>();
        let (first, second) = (zeros(), zeros());
        let steps = parameters.iter().map(|p| Tensor::zeros([], (Kind::Float, p.device()))).collect();
        Ok(AdamW { config, names, parameters, first, second, steps })
    }

    /// Clips `gradients` (whose norm is `norm`) and takes one step. Parameters without a gradient stay.
    ///
    /// # Errors
    /// A training error when the norm is not finite, before anything changes.
    pub fn step(&mut self, place: &str, gradients: &Gradients, norm: f64, learning_rate: f64) -> Result<()> {
        if !norm.is_finite() {
            return Err(Error::train(
                place,
                format!("the gradient norm is {norm}; lower the learning rate or look at this step's rows"),
            ));
        }
        if gradients.0.len() != self.parameters.len() {
            return Err(Error::internal(place, "gradients and parameters differ in number"));
        }
        gradients.clip(norm, self.config.max_grad_norm)?;
        for decayed in [true, false] {
            let mut lists: [Vec<Tensor>; 5] = Default::default();
            for (i, gradient) in gradients.0.iter().enumerate() {
                let Some(gradient) = gradient else { continue };
                if (self.parameters[i].dim() >= 2) == decayed {
                    let _ = self.steps[i].g_add_scalar_(1.0);
                    let tensors = [&self.parameters[i], gradient, &self.first[i], &self.second[i], &self.steps[i]];
                    for (list, tensor) in lists.iter_mut().zip(tensors) {
                        list.push(tensor.shallow_clone());
                    }
                }
            }
            let [parameters, gradients, first, second, steps] = lists;
            let step = AdamWStep {
                lr: learning_rate,
                beta1: self.config.adam_beta1,
                beta2: self.config.adam_beta2,
                weight_decay: if decayed { self.config.weight_decay } else { 0.0 },
                eps: self.config.adam_epsilon,
            };
            if !parameters.is_empty() {
                shim::fused_adamw(&parameters, &gradients, &first, &second, &steps, step)?;
            }
        }
        Ok(())
    }

    /// The moments and step counts as `<parameter>.exp_avg`, `.exp_avg_sq` and `.step`; the tensors are the live
    /// ones, not copies.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut out = Vec::with_capacity(3 * self.names.len());
        for (i, name) in self.names.iter().enumerate() {
            for (part, list) in STATE.iter().zip([&self.first, &self.second, &self.steps]) {
                out.push((format!("{name}.{part}"), list[i].shallow_clone()));
            }
        }
        out
    }

    /// Copies a state from [`AdamW::state`] back in. `place` names its file.
    ///
    /// # Errors
    /// A store error for a missing tensor or one of another shape.
    pub fn load_state(&mut self, place: &str, state: &BTreeMap<String, Tensor>) -> Result<()> {
        copy_into(place, state, self.state())
    }
}

/// Copies tensors of `from` into those of the same names, in place.
pub(super) fn copy_into(place: &str, from: &BTreeMap<String, Tensor>, into: Vec<(String, Tensor)>) -> Result<()> {
    // All are checked before the first one changes.
    for (name, tensor) in &into {
        let saved = from.get(name).ok_or_else(|| Error::store(place, format!("tensor {name} is missing")))?;
        if saved.size() != tensor.size() || saved.kind() != tensor.kind() {
            return Err(Error::store(
                place,
                format!(
                    "tensor {name} is {:?} {:?}, not {:?} {:?}",
                    saved.kind(),
                    saved.size(),
                    tensor.kind(),
                    tensor.size()
                ),
            ));
        }
    }
    let _no_grad = tch::no_grad_guard();
    for (name, mut tensor) in into {
        if let Some(saved) = from.get(&name) {
            tensor.copy_(saved);
        }
    }
    Ok(())
}
