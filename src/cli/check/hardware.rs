//! The devices that a run may be estimated for.
//!
//! In: `8xA100-80GB`, or `this`. Out: peak arithmetic, memory and bandwidth of one device, and how many there are.
//! `this` is measured here, in about a second.

use std::time::{Duration, Instant};

use crate::{Error, Result, torch};

/// One kind of device, and how many.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hardware {
    pub(super) name: String,
    pub(super) count: u64,
    /// Floating-point operations per second that large matrix products reach.
    pub(super) flops: f64,
    /// Bytes; 0 where it is not known.
    pub(super) memory: f64,
    /// Bytes per second.
    pub(super) bandwidth: f64,
    /// Whether it is this machine, whose engine computes in f32.
    pub(super) own: bool,
}

/// Name, peak bf16 FLOP/s without sparsity, bytes, bytes per second: the vendor's data sheets.
const KNOWN: [(&str, f64, f64, f64); 8] = [
    ("A100-40GB", 312e12, 40e9, 1.555e12),
    ("A100-80GB", 312e12, 80e9, 2.039e12),
    ("H100-80GB", 989e12, 80e9, 3.35e12),
    ("H200-141GB", 989e12, 141e9, 4.8e12),
    ("L40S-48GB", 362e12, 48e9, 0.864e12),
    ("A10-24GB", 125e12, 24e9, 0.6e12),
    ("RTX4090-24GB", 165e12, 24e9, 1.008e12),
    ("V100-32GB", 125e12, 32e9, 0.9e12),
];

/// The share of the peak that training and reading of long batches reach on such devices.
const SHARE: f64 = 0.4;

impl Hardware {
    /// For the head of a table.
    pub(super) fn title(&self) -> String {
        match self.own {
            true => format!("{}: {:.0} GFLOP/s, {:.1} GB/s", self.name, self.flops / 1e9, self.bandwidth / 1e9),
            false => format!("{} x {} at {:.0} % of the peak", self.count, self.name, 100.0 * SHARE),
        }
    }

    /// `NAME` or `COUNTxNAME`; `this` with `workers` threads.
    ///
    /// # Errors
    /// A configuration error that lists the known names.
    pub(super) fn parse(text: &str, workers: usize) -> Result<Self> {
        if text == "this" {
            return measured(workers);
        }
        let counted = text.split_once('x').and_then(|(count, name)| Some((count.parse::<u64>().ok()?, name)));
        let (count, name) = counted.unwrap_or((1, text));
        match KNOWN.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)) {
            Some(&(name, peak, memory, bandwidth)) if count > 0 => {
                Ok(Hardware { name: name.into(), count, flops: SHARE * peak, memory, bandwidth, own: false })
            }
            _ => {
                let known: Vec<&str> = KNOWN.iter().map(|(name, ..)| *name).collect();
                let problem = format!(
                    "`{text}` is none of `this` and {}, or a number of them as in 8xA100-80GB",
                    known.join(", ")
                );
                Err(Error::config("--hardware", problem))
            }
        }
    }
}

/// This machine: f32 products of the size that a micro-batch has, and copies of memory, by all workers at once.
fn measured(workers: usize) -> Result<Hardware> {
    const TIME: Duration = Duration::from_millis(400);
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    });
    Ok(Hardware {
        name: format!("this machine, {workers} threads"),
        count: 1,
        flops: torch::speed(workers, TIME)?,
        memory: memory.unwrap_or(0.0) * 1024.0,
        bandwidth: torch::together(workers, || copies(TIME))?,
        own: true,
    })
}

/// Bytes per second that one thread reads, from more memory than caches hold.
fn copies(time: Duration) -> Result<f64> {
    let (from, mut to) = (vec![1u8; 64 << 20], vec![0u8; 64 << 20]);
    let (start, mut done) = (Instant::now(), 0.0);
    while start.elapsed() < time {
        to.copy_from_slice(&from);
        std::hint::black_box(&mut to);
        // Read once and written once.
        done += 2.0 * from.len() as f64;
    }
    Ok(done / start.elapsed().as_secs_f64())
}
