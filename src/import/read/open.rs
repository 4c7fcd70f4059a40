//! Finding the files and telling what is in them: gzip, JSON lines, a JSON array, CSV or Parquet.
//!
//! In: paths (folders stand for the data files in them). Out: [`Records`] of a file, or the one line that says why the
//! file is none of these: a Git LFS pointer, another compression, UTF-16, ...

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use indicatif::ProgressBar;

use super::array::Elements;
use super::csv::Csv;
use super::lines::Lines;
use super::parquet::Parquet;
use super::{Record, Records};
use crate::import::clean;
use crate::store::shown;
use crate::{Error, Result};

pub(super) const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// How much of a file is looked at to tell what it is.
const HEAD_BYTES: u64 = 4096;

/// What is taken from a folder.
const EXTENSIONS: [&str; 6] = ["json", "jsonl", "ndjson", "csv", "tsv", "parquet"];

/// Beginnings of files that hold no rows, and what to say.
const OTHERS: [(&[u8], &str); 9] = [
    (b"version https://git-lfs", "is a Git LFS pointer, not the data; run `git lfs pull`, or download the file itself"),
    (b"/annex/objects/", "is a git-annex pointer, not the data; run `git annex get`"),
    (b"../.git/annex/", "is a git-annex pointer, not the data; run `git annex get`"),
    (b"\xff\xfe", "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it first (gzip is read as it is)"),
    (b"\xfd7zXZ", "is compressed with xz; unpack it first (gzip is read as it is)"),
    (b"BZh", "is compressed with bzip2; unpack it first (gzip is read as it is)"),
    (b"PK\x03\x04", "is a ZIP archive; unpack it first"),
];

/// The extension in lower case, without a final `.gz`.
fn extension(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.').map(|(_, extension)| extension.to_owned()).unwrap_or_default()
}

/// The files to read in order: as named, and for a folder every data file below it, sorted by path. `outputs` are
/// never read: an error when named, passed over in a folder.
pub(crate) fn files(inputs: &[PathBuf], outputs: &[&Path]) -> Result<Vec<PathBuf>> {
    let outputs: Vec<PathBuf> = outputs.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let is_output = |path: &Path| path.canonicalize().is_ok_and(|path| outputs.contains(&path));
    let mut files = Vec::new();
    for input in inputs {
        let place = shown(input);
        let about = std::fs::metadata(input).map_err(|error| Error::data(&place, "cannot be opened").because(error))?;
        if !about.is_dir() {
            if is_output(input) {
                return Err(Error::config(place, "is both an input and the output; choose another --out"));
            }
            files.push(input.clone());
            continue;
        }
        let before = files.len();
        walk(input, &mut files)?;
        let found = files.split_off(before);
        files.extend(found.into_iter().filter(|path| !is_output(path)));
        if files.len() == before {
            return Err(Error::data(
                place,
                format_args!("no data file in this folder; expected {} (also .gz)", EXTENSIONS.join(", ")),
            ));
        }
    }
    Ok(files)
}

/// Data files below a folder; hidden entries and other files are passed over, links to folders are not followed.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |error| Error::data(folder.display(), "cannot be listed").because(error);
    let entries: std::io::Result<Vec<_>> = std::fs::read_dir(folder).map_err(failed)?.collect();
    let mut entries = entries.map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(failed)?.is_dir() {
            walk(&path, files)?;
        } else if path.is_file() && EXTENSIONS.contains(&extension(&path).as_str()) {
            files.push(path);
        } else {
            tracing::info!("{}: passed over, no data file by its name", path.display());
        }
    }
    Ok(())
}

/// A failure in the middle of a file.
pub(super) fn read_error(name: &str, error: std::io::Error) -> Error {
    let problem = match error.kind() {
        ErrorKind::UnexpectedEof => "the gzip data end in the middle (a torn download?); fetch the file again",
        ErrorKind::InvalidInput | ErrorKind::InvalidData => "the gzip data are damaged; fetch the file again",
        _ => "cannot be read",
    };
    Error::data(name, problem).because(error)
}

/// The first bytes of a reader (fewer at its end).
fn head(reader: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head)
}

/// The rows of a file. `progress` advances by the bytes read from disk.
pub(crate) fn open(path: &Path, progress: &ProgressBar) -> Result<Records> {
    let name = shown(path);
    let file = File::open(path).map_err(|error| Error::data(&name, "cannot be opened").because(error))?;
    let failed = |error| read_error(&name, error);
    let mut raw = BufReader::new(progress.wrap_read(file));
    let magic = head(&mut raw).map_err(failed)?;
    let whole = Cursor::new(magic.clone()).chain(raw);
    let mut reader: Box<dyn BufRead> = if magic.starts_with(b"\x1f\x8b") {
        Box::new(BufReader::new(MultiGzDecoder::new(whole)))
    } else {
        Box::new(whole)
    };
    let head = head(&mut reader).map_err(failed)?;
    let gzip = magic.starts_with(b"\x1f\x8b");
    if let Some((_, problem)) = OTHERS.iter().find(|(start, _)| head.starts_with(start)) {
        return Err(Error::data(&name, problem));
    }
    if !gzip && !head.is_empty() && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
        let seen = clean::excerpt_bytes(&head).chars().take(60).collect::<String>();
        return Err(Error::data(
            &name,
            format_args!("is named .gz but is no gzip file, it starts with {seen:?}; download it again, or rename it"),
        ));
    }
    if head.starts_with(b"PAR1") {
        drop(reader);
        return Ok(Box::new(Parquet::open(parquet_file(path, gzip, &name)?, name)?));
    }
    let text = head.strip_prefix(UTF8_BOM).unwrap_or(&head);
    let skip = (head.len() - text.len()) as u64;
    let shape = shape(text, &extension(path), &name)?;
    let mut cursor = Cursor::new(head);
    cursor.set_position(skip);
    let reader: Box<dyn BufRead> = Box::new(cursor.chain(reader));
    Ok(match shape {
        Shape::Empty => Box::new(std::iter::empty::<Result<Record>>()),
        Shape::Lines => Box::new(Lines { reader, name, row: 0 }),
        Shape::Array => Box::new(Elements::new(reader, name)),
        Shape::Csv(delimiter) => Box::new(Csv::open(reader, delimiter, name)?),
    })
}

/// Parquet needs a file it can seek in: the file itself, or its unpacked copy in an unnamed temporary file.
fn parquet_file(path: &Path, gzip: bool, name: &str) -> Result<File> {
    let opened = |error| Error::data(name, "cannot be opened").because(error);
    let file = File::open(path).map_err(opened)?;
    if !gzip {
        return Ok(file);
    }
    let mut unpacked = tempfile::tempfile().map_err(opened)?;
    std::io::copy(&mut MultiGzDecoder::new(BufReader::new(file)), &mut unpacked).map_err(|e| read_error(name, e))?;
    unpacked.seek(SeekFrom::Start(0)).map_err(opened)?;
    Ok(unpacked)
}

/// The layouts of text files.
enum Shape {
    Empty,
    Lines,
    Array,
    /// With this separator.
    Csv(u8),
}

/// What a text file is, from its beginning and its extension.
fn shape(head: &[u8], extension: &str, name: &str) -> Result<Shape> {
    let text = head.trim_ascii();
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let separator = |tsv: bool| match line {
        _ if tsv => b'\t',
        line if line.contains(&b',') => b',',
        line => [b'\t', b';'].into_iter().find(|byte| line.contains(byte)).unwrap_or(b','),
    };
    Ok(match (text.first(), extension) {
        (None, _) if (head.len() as u64) < HEAD_BYTES => Shape::Empty,
        (_, "csv" | "tsv") => Shape::Csv(separator(extension == "tsv")),
        (Some(b'['), _) => Shape::Array,
        (Some(b'{'), _) | (_, "json" | "jsonl" | "ndjson") => Shape::Lines,
        (_, "parquet") => {
            return Err(Error::data(name, "is named .parquet but is no Parquet file; fetch it again, or rename it"));
        }
        _ if line.contains(&b',') || line.contains(&b'\t') => Shape::Csv(separator(false)),
        _ => {
            let seen = clean::excerpt_bytes(text).chars().take(60).collect::<String>();
            return Err(Error::data(
                name,
                format_args!("is neither JSON lines, a JSON array, CSV nor Parquet: it starts with {seen:?}"),
            ));
        }
    })
}
