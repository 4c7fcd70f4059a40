//! What the import tests share: writing sources, running an import, reading tables back.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::json::LineDelimitedWriter;
use indicatif::ProgressBar;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use salmon::import::{Options, Summary, import};
use serde_json::Value;

/// A folder for the sources and the outputs of one test.
pub struct Bench {
    folder: tempfile::TempDir,
}

/// What an import gave: counts, kept rows, dropped rows.
pub struct Imported {
    pub summary: Summary,
    pub kept: Vec<Value>,
    pub dropped: Vec<Value>,
}

impl Imported {
    /// One column of the kept rows, as text ("" for null).
    pub fn column(&self, name: &str) -> Vec<&str> {
        self.kept.iter().map(|row| row[name].as_str().unwrap_or_default()).collect()
    }

    /// (row, reason) of every dropped row.
    pub fn reasons(&self) -> Vec<(i64, &str)> {
        self.dropped.iter().map(|row| (row["row"].as_i64().unwrap(), row["reason"].as_str().unwrap())).collect()
    }
}

impl Bench {
    pub fn new() -> Self {
        Bench { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file in the folder; folders in its name are made.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The error of an import.
    pub fn error(&self, files: &[PathBuf], options: &Options) -> salmon::Error {
        import(files, &self.path("out.parquet"), options, &ProgressBar::hidden()).unwrap_err()
    }

    /// An import, with its accounts checked: for every file read = kept + dropped, and the tables hold as many rows.
    pub fn import(&self, files: &[PathBuf], options: &Options) -> Imported {
        self.try_import(files, options).unwrap()
    }

    pub fn try_import(&self, files: &[PathBuf], options: &Options) -> salmon::Result<Imported> {
        let out = self.path("out.parquet");
        let summary = import(files, &out, options, &ProgressBar::hidden())?;
        let (kept, dropped) = (table(&out), table(&self.path("out.dropped.parquet")));
        for file in &summary.files {
            assert_eq!(file.read, file.kept + file.dropped_rows(), "{file:?}");
        }
        assert_eq!(summary.total().kept, kept.len() as u64);
        assert_eq!(summary.total().dropped_rows(), dropped.len() as u64);
        assert!(dropped.iter().all(|row| row["excerpt"].as_str().unwrap().chars().count() <= 200));
        Ok(Imported { summary, kept, dropped })
    }

    /// An import of one file with this content.
    pub fn import_text(&self, name: &str, content: impl AsRef<[u8]>, options: &Options) -> Imported {
        let file = self.file(name, content);
        self.import(&[file], options)
    }

    /// A Parquet file of text columns.
    pub fn parquet(&self, name: &str, columns: Vec<(&str, ArrayRef)>) -> PathBuf {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let path = self.path(name);
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        path
    }
}

/// The rows of a Parquet file.
pub fn table(path: &Path) -> Vec<Value> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let mut writer = LineDelimitedWriter::new(Vec::new());
    for batch in reader {
        writer.write(&batch.unwrap()).unwrap();
    }
    writer.finish().unwrap();
    let text = String::from_utf8(writer.into_inner()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(arrow::array::StringArray::from(values.to_vec()))
}

pub fn preferences() -> Options {
    Options { preferences: true, ..Options::default() }
}
