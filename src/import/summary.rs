//! What an import did, file by file.
//!
//! In: counts. Out: a table for people; `read` is always `kept` + `dropped`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::reason::Reason;

/// The counts of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// The file, as it was named.
    pub file: String,
    /// The format it was read as; nothing when the file has no rows.
    pub format: Option<&'static str>,
    /// Rows read.
    pub read: u64,
    /// Rows in the output.
    pub kept: u64,
    /// Rows dropped, by reason.
    pub dropped: BTreeMap<Reason, u64>,
}

impl FileSummary {
    /// All dropped rows.
    pub fn dropped_rows(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// The counts of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Each file that was read, in order.
    pub files: Vec<FileSummary>,
    /// The output.
    pub out: PathBuf,
    /// The Parquet file with the dropped rows.
    pub dropped_out: PathBuf,
}

impl Summary {
    /// The counts over all files.
    pub fn total(&self) -> FileSummary {
        let mut total = FileSummary { file: "total".into(), format: None, read: 0, kept: 0, dropped: BTreeMap::new() };
        for file in &self.files {
            total.read += file.read;
            total.kept += file.kept;
            for (reason, count) in &file.dropped {
                *total.dropped.entry(*reason).or_default() += count;
            }
        }
        total
    }
}

/// `duplicate 3, empty 1`: the most frequent first.
pub(crate) fn reasons(dropped: &BTreeMap<Reason, u64>) -> String {
    let mut counts: Vec<_> = dropped.iter().collect();
    counts.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), **reason));
    counts.iter().map(|(reason, count)| format!("{} {count}", reason.name())).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![["file", "format", "read", "kept", "dropped", "reasons"].map(str::to_owned)];
        let total = (self.files.len() != 1).then(|| self.total());
        for file in self.files.iter().chain(&total) {
            lines.push([
                file.file.clone(),
                file.format.unwrap_or("").to_owned(),
                file.read.to_string(),
                file.kept.to_string(),
                file.dropped_rows().to_string(),
                reasons(&file.dropped),
            ]);
        }
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let [w0, w1, w2, w3, w4] = [0, 1, 2, 3, 4].map(width);
        for [file, format, read, kept, dropped, reasons] in &lines {
            let line = format!("{file:<w0$}  {format:<w1$}  {read:>w2$}  {kept:>w3$}  {dropped:>w4$}  {reasons}");
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f, "kept:    {}", self.out.display())?;
        writeln!(f, "dropped: {}", self.dropped_out.display())
    }
}
