//! What loading a model takes: seconds, and how much memory at the peak.
//!
//! ```sh
//! cargo run --example loading -- /tmp/loading            # every size, as Markdown; leaves nothing behind
//! cargo run --example loading -- /tmp/loading 500M       # one size
//! ```
//! In: a folder on a disk with 7 GB to spare. Out: a table. For each size, type and number of files, a random checkpoint
//! is written; a process of its own then loads it, as a network (libtorch) or as an engine (packed for the decoder),
//! with the files out of the page cache (cold) and in it (warm).
//!
//! Peak is the largest resident set (`VmHWM`, mapped pages of the files included) above what the process had before;
//! weights is what the loaded model needs: parameters times the bytes of the type it computes in.

#[path = "shared/checkpoint.rs"]
mod checkpoint;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use checkpoint::{Size, make};
use safetensors::tensor::Dtype;
use salmon::engine::{Engine, EngineOptions, Inference};
use salmon::model::{Head, Network, PlainWeights, Tokenizer};
use salmon::{Error, Result};
use tch::{Device, Kind};

const SIZES: [Size; 3] = [
    Size {
        name: "45M",
        vocab: 32_000,
        hidden: 512,
        intermediate: 1408,
        layers: 8,
        heads: 8,
        kv_heads: 8,
        context: 1024,
        head: false,
    },
    Size {
        name: "500M",
        vocab: 151_936,
        hidden: 896,
        intermediate: 4864,
        layers: 24,
        heads: 14,
        kv_heads: 2,
        context: 1024,
        head: false,
    },
    Size {
        name: "1.5B",
        vocab: 151_936,
        hidden: 1536,
        intermediate: 8960,
        layers: 28,
        heads: 12,
        kv_heads: 2,
        context: 1024,
        head: false,
    },
];
const TYPES: [(&str, Kind, Dtype); 3] = [
    ("float32", Kind::Float, Dtype::F32),
    ("bfloat16", Kind::BFloat16, Dtype::BF16),
    ("float16", Kind::Half, Dtype::F16),
];
/// Files of a checkpoint.
const SHARDS: [usize; 2] = [1, 4];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match texts.as_slice() {
        ["load", what, folder] => load(what, Path::new(folder)),
        [folder] => all(Path::new(folder), None),
        [folder, size] => all(Path::new(folder), Some(size)),
        _ => Err(Error::config("loading", "usage: loading FOLDER [SIZE]")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loading: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Every row of the table.
fn all(folder: &Path, only: Option<&str>) -> Result<()> {
    let bad = |e: std::io::Error| Error::store(folder.display(), "cannot be used").because(e);
    println!("| model | file | files | loaded as | cache | seconds | weights MB | peak MB | peak / weights |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for size in SIZES.iter().filter(|size| only.is_none_or(|name| name == size.name)) {
        for (name, kind, dtype) in TYPES {
            for shards in SHARDS {
                let place = folder.join(format!("{}-{name}-{shards}", size.name));
                make(&place, size, kind, dtype, shards)?;
                let what: &[&str] = match kind {
                    Kind::Float => &["network float32", "engine"],
                    _ => &["network bfloat16", "network float32", "engine"],
                };
                for what in what {
                    for cache in ["cold", "warm"] {
                        if cache == "cold" {
                            forget(&place).map_err(bad)?;
                        }
                        let row = measured(what, &place)?;
                        println!("| {} | {name} | {shards} | {what} | {cache} | {row} |", size.name);
                    }
                }
                std::fs::remove_dir_all(&place).map_err(bad)?;
            }
        }
    }
    Ok(())
}

/// Loads in a process of its own and gives what it says.
fn measured(what: &str, folder: &Path) -> Result<String> {
    let bad = |e: std::io::Error| Error::internal("loading", "cannot start itself").because(e);
    let out = Command::new(std::env::current_exe().map_err(bad)?).args(["load", what]).arg(folder).output();
    let out = out.map_err(bad)?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim().to_string()),
        false => Err(Error::internal(what, String::from_utf8_lossy(&out.stderr))),
    }
}

fn load(what: &str, folder: &Path) -> Result<()> {
    let tokenizer = Arc::new(Tokenizer::open(folder)?);
    // The code of libtorch that a first load brings in is no part of a model.
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/pocket");
    for kind in [Kind::BFloat16, Kind::Float] {
        drop(Network::open(&small, kind, Device::Cpu)?);
    }
    let before = resident("VmRSS")?;
    // From here on, VmHWM is the largest resident set since now.
    std::fs::write("/proc/self/clear_refs", "5").map_err(|e| Error::internal("/proc/self/clear_refs", e))?;
    let start = Instant::now();
    let (parameters, bytes) = match what {
        "engine" => {
            let weights = PlainWeights::open(folder, Kind::Float)?;
            let config = weights.config().clone();
            // Keys and values are allocated when needed.
            let options = EngineOptions { workers: 1, ..EngineOptions::default() };
            let engine = Engine::new(&config, weights, tokenizer, Head::None, options)?;
            assert_eq!(engine.context(), config.max_position_embeddings);
            (parameters(folder)?, 4)
        }
        _ => {
            let (kind, bytes) = if what.ends_with("float32") { (Kind::Float, 4) } else { (Kind::BFloat16, 2) };
            let network = Network::open(folder, kind, Device::Cpu)?;
            assert_eq!(network.kind(), kind);
            (parameters(folder)?, bytes)
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let peak = resident("VmHWM")? - before;
    let weights = (parameters * bytes) as f64;
    let mb = |bytes: f64| bytes / 1e6;
    println!("{seconds:.2} | {:.0} | {:.0} | {:.3}", mb(weights), mb(peak), peak / weights);
    Ok(())
}

/// The parameters of a folder.
fn parameters(folder: &Path) -> Result<u64> {
    let bad = |e: std::io::Error| Error::internal(folder.display(), e);
    let text = std::fs::read_to_string(folder.join("parameters")).map_err(bad)?;
    text.parse().map_err(|e| Error::internal(folder.display(), e))
}

/// A size in `/proc/self/status`, in bytes.
fn resident(name: &str) -> Result<f64> {
    let bad = || Error::internal("/proc/self/status", format!("has no {name}"));
    let text = std::fs::read_to_string("/proc/self/status").map_err(|_| bad())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).ok_or_else(bad)?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().map_err(|_| bad())?;
    Ok(kib * 1024.0)
}

/// Writes the files of a folder to the disk and takes them out of the page cache.
fn forget(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        // SAFETY: advice about an open file.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    Ok(())
}
