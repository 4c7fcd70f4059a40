//! One safetensors file: its header, checked, and its tensors, copied out piece by piece.
//!
//! In: a file that nobody vouches for. Out: tensors of the type that is asked for. The file is mapped and never read
//! as a whole: a piece of [`PIECE`] values is copied, checked, converted and its pages given back before the next one,
//! so that loading holds the weights once, whatever the size of the largest tensor.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap, UncheckedAdvice};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// Values that are looked at in one go: as many as libtorch computes on one thread. Its threads gain nothing here, and
/// wait for each other at every piece where the machine has other things to do.
const PIECE: usize = 32_768;
/// The longest header, as the format's own library has it.
const MAX_HEADER: u64 = 100_000_000;
/// The file begins with the length of the header.
const LENGTH: usize = size_of::<u64>();

/// One mapped safetensors file.
pub(super) struct Shard {
    pub(super) path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    /// Where tensor data starts: after the length word and the header.
    data: usize,
}

impl Shard {
    /// Maps the file and checks its header: well-formed, tensors side by side, as long as the file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let wrong = |problem: &str| Error::model(path.display(), problem);
        let file = File::open(path).map_err(|e| wrong("cannot open this weight file").because(e))?;
        // SAFETY: the map is read only and lives while a folder is loaded; a file that another process cuts short
        // in that time ends this one (SIGBUS), as with every memory map.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| wrong("cannot map this weight file").because(e))?;
        // It is no more than advice, which may fail.
        let _ = map.advise(Advice::Sequential);
        let (metadata, data) = header(&map).map_err(|problem| wrong(&problem))?;
        let shard = Shard { path: path.to_path_buf(), map, metadata, data };
        shard.forget();
        Ok(shard)
    }

    /// The names of the tensors, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.metadata.tensors().into_keys()
    }

    /// What the header says about a tensor.
    pub(super) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    fn wrong(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        Error::model(self.path.display(), format!("tensor {name} {problem}"))
    }

    /// An error unless the tensor is there with this shape.
    pub(super) fn check(&self, name: &str, shape: &[i64]) -> Result<()> {
        let info = self.info(name).ok_or_else(|| self.wrong(name, "is missing"))?;
        let found: Vec<i64> = info.shape.iter().map(|n| *n as i64).collect();
        if found == shape {
            return Ok(());
        }
        Err(self.wrong(name, format!("has shape {found:?}; the configuration needs {shape:?}")))
    }

    /// Whether tensor `name` has the type and bytes of tensor `other` of another file or this one.
    pub(super) fn same_bytes(&self, name: &str, shard: &Shard, other: &str) -> bool {
        let (Some(ours), Some(theirs)) = (self.info(name), shard.info(other)) else { return false };
        if (ours.dtype, &ours.shape) != (theirs.dtype, &theirs.shape) {
            return false;
        }
        let length = ours.data_offsets.1 - ours.data_offsets.0;
        (0..length).step_by(PIECE).all(|at| {
            let piece = |start: usize| start + at..start + length.min(at + PIECE);
            let (a, b) = (piece(self.data + ours.data_offsets.0), piece(shard.data + theirs.data_offsets.0));
            let same = self.map.get(a).is_some_and(|bytes| Some(bytes) == shard.map.get(b));
            self.forget();
            shard.forget();
            same
        })
    }

    /// The tensor `name`, which must have this shape and finite values, as `kind` on `device`.
    pub(super) fn tensor(&self, name: &str, shape: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.check(name, shape)?;
        let out = Tensor::f_empty(shape, (kind, device))?;
        let flat = out.f_view(-1)?;
        let mut at = 0;
        self.pieces(name, |piece| {
            let length = piece.numel() as i64;
            flat.f_narrow(0, at, length)?.f_copy_(&piece)?;
            at += length;
            Ok(())
        })?;
        Ok(out)
    }

    /// An error unless every value of the tensor is finite.
    pub(super) fn check_values(&self, name: &str) -> Result<()> {
        self.pieces(name, |_| Ok(()))
    }

    /// Gives the values in order, `[n]` each, in the type of the file; each is finite.
    fn pieces(&self, name: &str, mut take: impl FnMut(Tensor) -> Result<()>) -> Result<()> {
        let info = self.info(name).ok_or_else(|| self.wrong(name, "is missing"))?;
        let kind = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => return Err(self.wrong(name, format!("has type {other:?}; only F32, F16 and BF16 are supported"))),
        };
        let (start, end) = (self.data + info.data_offsets.0, self.data + info.data_offsets.1);
        let size = kind.elt_size_in_bytes();
        for from in (start..end).step_by(PIECE * size) {
            let bytes = self
                .map
                .get(from..end.min(from + PIECE * size))
                .ok_or_else(|| self.wrong(name, "lies outside of the file"))?;
            let values = (bytes.len() / size) as i64;
            let piece = Tensor::f_from_data_size(bytes, &[values], kind)?;
            self.forget();
            // The extremes of values with a NaN among them are NaN.
            let (least, most) = piece.f_aminmax(None, false)?;
            if !least.f_double_value(&[])?.is_finite() || !most.f_double_value(&[])?.is_finite() {
                return Err(self.wrong(name, "holds values that are not finite (NaN or infinity)"));
            }
            take(piece)?;
        }
        Ok(())
    }

    /// Gives all pages back, those that the kernel mapped ahead of a read too; who needs them again has them from the
    /// file.
    fn forget(&self) {
        // SAFETY: the map is private and read only, so dropped pages read the same bytes again. Advice may fail.
        let _ = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

/// The header of a file and where its data starts, or what is wrong with it.
///
/// The format's own reader adds up numbers of the header without a check, so the sizes are compared here.
fn header(bytes: &[u8]) -> std::result::Result<(Metadata, usize), String> {
    if let Some(other) = other_format(bytes) {
        return Err(other.to_string());
    }
    let invalid = |problem: String| format!("is not a valid safetensors file: {problem}");
    let cut =
        |expected: u64| format!("is cut short: it has {} of {expected} bytes; was it copied in full?", bytes.len());
    let length = bytes.first_chunk::<LENGTH>().map(|bytes| u64::from_le_bytes(*bytes));
    let length = length.ok_or_else(|| cut(LENGTH as u64))?;
    if length > MAX_HEADER {
        return Err(invalid(format!("a header of {length} bytes is too long")));
    }
    let data = LENGTH + length as usize;
    let text = bytes.get(LENGTH..data).ok_or_else(|| cut(data as u64))?;
    let metadata: Metadata = serde_json::from_slice(text).map_err(|e| invalid(format!("its header: {e}")))?;
    let end = metadata.tensors().values().map(|info| info.data_offsets.1).max().unwrap_or(0) as u64;
    let expected = end.checked_add(data as u64).ok_or_else(|| invalid("its sizes overflow".into()))?;
    match expected.cmp(&(bytes.len() as u64)) {
        std::cmp::Ordering::Less => {
            Err(invalid(format!("it has {} bytes after the last tensor of its header", bytes.len() as u64 - expected)))
        }
        std::cmp::Ordering::Greater => Err(cut(expected)),
        std::cmp::Ordering::Equal => Ok((metadata, data)),
    }
}

/// What a file is that is often found under this name.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"version https://git-lfs") {
        return Some("is a pointer of Git LFS and not the weights; fetch them with `git lfs pull`");
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        return Some(
            "holds a pickle under the name of safetensors; pickle can run code when it is read, so it is refused: \
             save the model with safe_serialization=True",
        );
    }
    None
}
