//! A worker's copy of a network, and the gradients it hands back.
//!
//! In: the network that is trained. Out: replicas that read the same parameter values but own their gradients,
//! and sums of those gradients.

use tch::Tensor;

use crate::model::Network;
use crate::torch::shim;
use crate::{Error, Result};

/// A network for one worker. Its parameters share their storage with the master's, so an optimizer step on the
/// master is seen by all replicas at once; autograd state (graph, gradients) is its own.
pub struct Replica {
    /// The network to run.
    pub network: Network,
    parameters: Vec<Tensor>,
}

impl Replica {
    /// A replica of `master`.
    ///
    /// # Errors
    /// When libtorch cannot copy a tensor.
    pub fn of(master: &Network) -> Result<Self> {
        let network = master.replicate()?;
        let mut parameters = Vec::new();
        for ((name, mut replica), (master_name, master)) in network.trainable().into_iter().zip(master.trainable()) {
            if name != master_name {
                return Err(Error::internal(name, format!("a replica lists it where its master lists {master_name}")));
            }
            // The copy that `replicate` made is freed here.
            tch::no_grad(|| replica.set_data(&master.detach()));
            parameters.push(replica);
        }
        Ok(Replica { network, parameters })
    }

    /// Backpropagates the scalar `loss` and takes the gradients out of the parameters.
    ///
    /// # Errors
    /// When libtorch cannot compute them.
    pub fn gradients_of(&self, loss: &Tensor) -> Result<Gradients> {
        // A job that failed half-way may have left some.
        self.take()?;
        loss.backward();
        self.take()
    }

    fn take(&self) -> Result<Gradients> {
        Ok(Gradients(self.parameters.iter().map(shim::take_grad).collect::<Result<_>>()?))
    }
}

/// One gradient per trainable parameter, in the order of `Network::trainable`; `None` where the loss does not
/// depend on it.
#[derive(Debug, Default)]
pub struct Gradients(pub Vec<Option<Tensor>>);

impl Gradients {
    /// Adds `other` to this sum, in place.
    ///
    /// # Errors
    /// When the two are of different networks.
    pub fn add(&mut self, other: Gradients) -> Result<()> {
        // A micro-batch without a token to learn from has none at all.
        if other.0.is_empty() {
            return Ok(());
        }
        if self.0.is_empty() {
            *self = other;
            return Ok(());
        }
        if self.0.len() != other.0.len() {
            return Err(Error::internal("gradients", "two micro-batches differ in their number"));
        }
        let (mut into, mut from) = (Vec::new(), Vec::new());
        for (sum, new) in self.0.iter_mut().zip(other.0) {
            match (sum.as_ref(), new) {
                (Some(sum), Some(new)) => {
                    into.push(sum.shallow_clone());
                    from.push(new);
                }
                (None, new) => *sum = new,
                (Some(_), None) => {}
            }
        }
        shim::add(&into, &from)
    }

    /// Those that are there.
    fn defined(&self) -> Vec<Tensor> {
        self.0.iter().flatten().map(Tensor::shallow_clone).collect()
    }

    /// The Euclidean norm over all of them.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn norm(&self) -> Result<f64> {
        shim::global_norm(&self.defined())
    }

    /// Scales them so that their norm, given as `norm`, is at most `max` (as `torch.nn.utils.clip_grad_norm_`).
    /// A `max` of 0 leaves them alone.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn clip(&self, norm: f64, max: f64) -> Result<()> {
        if max > 0.0 && norm > max {
            shim::scale(&self.defined(), max / (norm + 1e-6))?;
        }
        Ok(())
    }
}
