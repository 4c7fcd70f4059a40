//! What the model tests share: the recorded folders of `scripts/fixtures/llama.py`, and comparisons.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use salmon::model::Network;
use tch::{Device, Kind, Tensor};

/// A path below `tests/fixtures/llama`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama").join(name)
}

/// The tensors of a recorded safetensors file.
pub(crate) fn recorded(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(fixture(name)).unwrap().into_iter().collect()
}

pub(crate) fn open(name: &str, kind: Kind) -> Network {
    Network::open(&fixture(name), kind, Device::Cpu).unwrap()
}

/// The largest absolute difference.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

pub(crate) fn ids(rows: &[&[i64]]) -> Tensor {
    Tensor::stack(&rows.iter().map(|row| Tensor::from_slice(row)).collect::<Vec<_>>(), 0)
}

/// Copies a folder, so that a test can break it.
pub(crate) fn copy(name: &str, into: &Path) {
    std::fs::create_dir_all(into).unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, into.join(path.file_name().unwrap())).unwrap();
    }
}

/// All bytes of a folder, by file name.
pub(crate) fn bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect()
}
