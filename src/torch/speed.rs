//! How fast this machine computes.
//!
//! In: threads and a time. Out: what they reach together, measured for that long.

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use super::{guard, single_thread};
use crate::{Error, Result};

/// Floating-point operations per second: f32 products of the size that a micro-batch has, by all threads at once.
///
/// # Errors
/// A model error where libtorch fails.
pub fn speed(threads: usize, time: Duration) -> Result<f64> {
    together(threads, || products(time))
}

/// The sum of what `work` gives in each of so many threads at once.
///
/// # Errors
/// The first thread's that fails.
pub fn together(threads: usize, work: impl Fn() -> Result<f64> + Sync) -> Result<f64> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let failed = || Error::internal("measurement", "one of its threads died");
        threads.into_iter().map(|thread| thread.join().map_err(|_| failed())?).sum()
    })
}

/// Floating-point operations per second of one thread.
fn products(time: Duration) -> Result<f64> {
    guard("measurement", || {
        single_thread();
        let _frozen = tch::no_grad_guard();
        let (n, k, m) = (512, 512, 1024);
        let kind = (Kind::Float, Device::Cpu);
        let (x, w) = (Tensor::ones([n, k], kind), Tensor::ones([m, k], kind));
        drop(x.linear(&w, None::<Tensor>));
        let (start, mut done) = (Instant::now(), 0.0);
        while start.elapsed() < time {
            drop(x.linear(&w, None::<Tensor>));
            done += 2.0 * (n * k * m) as f64;
        }
        Ok(done / start.elapsed().as_secs_f64())
    })
}
