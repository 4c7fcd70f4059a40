//! The kept preferences of a run as a data set of another library.
//!
//! In: table `preferences`. Out: `data/train-00000-of-0000N.parquet` (or `.jsonl`) and the same for the test pairs, names
//! from which `datasets.load_dataset` finds the splits; and a card. (It would also find them in the card, but then it
//! answers from its cache when a folder of the same name was loaded before.) What a layout is, its statement in
//! `sql/export/` says. Rows stream through in the order of the table; a file ends at [`PART_BYTES`].

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::LineDelimited;
use clap::ValueEnum;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::card::{self, Dataset, Split};
use crate::query::{self, Params};
use crate::{Error, Result};

/// Bytes after which the next file begins, as on the Hugging Face Hub.
const PART_BYTES: usize = 500_000_000;
/// Rows and bytes of a Parquet row group: small, because readers hold whole groups of long texts.
const GROUP_ROWS: usize = 8192;
const GROUP_BYTES: usize = 32 << 20;

/// Whose layout the rows have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// TRL, standard: prompt, chosen and rejected as texts. Also for verl's reward trainer.
    Trl,
    /// TRL, conversational: prompt, chosen and rejected as messages.
    TrlConversational,
    /// OpenRLHF: chosen and rejected as whole conversations.
    #[value(name = "openrlhf")]
    OpenRlhf,
    /// verl: data_source, prompt, ability, reward_model, extra_info, and both answers.
    Verl,
}

impl Layout {
    fn sql(self) -> &'static str {
        match self {
            Layout::Trl => include_str!("../../sql/export/trl.sql"),
            Layout::TrlConversational => include_str!("../../sql/export/trl_conversational.sql"),
            Layout::OpenRlhf => include_str!("../../sql/export/openrlhf.sql"),
            Layout::Verl => include_str!("../../sql/export/verl.sql"),
        }
    }
}

/// How rows are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// Parquet with zstd.
    Parquet,
    /// One JSON object a line.
    Jsonl,
}

impl FileFormat {
    fn extension(self) -> &'static str {
        match self {
            FileFormat::Parquet => "parquet",
            FileFormat::Jsonl => "jsonl",
        }
    }
}

/// Writes the kept preferences and their card to `folder`; gives the rows of each split. `ctx` has one partition, so
/// that rows keep their order.
///
/// # Errors
/// A data error for a run without kept preferences; a store error for what cannot be read or written.
pub async fn write_preferences(
    ctx: &SessionContext,
    layout: Layout,
    format: FileFormat,
    about: card::Run,
    folder: &Path,
) -> Result<Vec<Split>> {
    let data = folder.join("data");
    std::fs::create_dir_all(&data).map_err(|e| Error::store(data.display(), "cannot be made").because(e))?;
    let mut splits = Vec::new();
    for name in ["train", "test"] {
        let rows = write_split(ctx, layout, format, name, &data).await?;
        if rows > 0 {
            splits.push(Split { name, rows });
        }
    }
    if splits.is_empty() {
        let hint = "`select drop_reason, count(*) from preferences group by 1` says why, if there are any";
        return Err(Error::data("table preferences", format!("has no kept rows to export; {hint}")));
    }
    let layout_name = layout.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
    let dataset = Dataset { layout: layout_name, splits: splits.clone() };
    card::dataset(ctx, &about, dataset, folder).await?;
    Ok(splits)
}

async fn write_split(
    ctx: &SessionContext,
    layout: Layout,
    format: FileFormat,
    split: &str,
    folder: &Path,
) -> Result<u64> {
    let frame = query::sql(ctx, layout.sql(), &Params::new().with("split", split)).await?;
    let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
    let mut stream = frame.execute_stream().await?;
    let part = |number: usize| folder.join(format!("{split}-{number:05}.{}", format.extension()));
    let (mut rows, mut parts, mut open) = (0, 0, None::<Part>);
    while let Some(batch) = stream.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        let mut writer = match open.take() {
            Some(writer) => writer,
            None => {
                parts += 1;
                Part::create(part(parts - 1), format, &schema)?
            }
        };
        writer.write(&batch)?;
        rows += batch.num_rows() as u64;
        if writer.bytes() < PART_BYTES { open = Some(writer) } else { writer.finish()? }
    }
    if let Some(writer) = open {
        writer.finish()?;
    }
    // How many there are is known only now.
    for number in 0..parts {
        let name = format!("{split}-{number:05}-of-{parts:05}.{}", format.extension());
        let (from, to) = (part(number), folder.join(name));
        std::fs::rename(&from, &to).map_err(|e| Error::store(to.display(), "cannot be written").because(e))?;
    }
    Ok(rows)
}

/// One file in the making.
struct Part {
    path: PathBuf,
    writer: Writer,
}

enum Writer {
    Parquet(Box<ArrowWriter<File>>),
    Jsonl(arrow::json::Writer<Counted, LineDelimited>),
}

impl Part {
    fn create(path: PathBuf, format: FileFormat, schema: &SchemaRef) -> Result<Self> {
        let file = File::create(&path).map_err(|e| Error::store(path.display(), "cannot be written").because(e))?;
        let writer = match format {
            FileFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_created_by("salmon".into())
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(GROUP_ROWS))
                    .set_max_row_group_bytes(Some(GROUP_BYTES))
                    .build();
                let writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties))
                    .map_err(|e| Error::store(path.display(), "cannot be written as Parquet").because(e))?;
                Writer::Parquet(Box::new(writer))
            }
            FileFormat::Jsonl => {
                // Every row has every field: readers take the columns from the first rows.
                let options = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
                Writer::Jsonl(options.build(Counted { out: BufWriter::new(file), bytes: 0 }))
            }
        };
        Ok(Part { path, writer })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let bad =
            |e: &dyn std::fmt::Display| Error::store(self.path.display(), "cannot be written").because(e.to_string());
        match &mut self.writer {
            Writer::Parquet(writer) => writer.write(batch).map_err(|e| bad(&e)),
            Writer::Jsonl(writer) => writer.write(batch).map_err(|e| bad(&e)),
        }
    }

    /// Bytes so far, about.
    fn bytes(&self) -> usize {
        match &self.writer {
            Writer::Parquet(writer) => writer.bytes_written() + writer.in_progress_size(),
            Writer::Jsonl(writer) => writer.get_ref().bytes,
        }
    }

    fn finish(self) -> Result<()> {
        let path = self.path;
        let bad = |e: &dyn std::fmt::Display| Error::store(path.display(), "cannot be written").because(e.to_string());
        match self.writer {
            Writer::Parquet(writer) => writer.close().map(drop).map_err(|e| bad(&e)),
            Writer::Jsonl(mut writer) => {
                writer.finish().map_err(|e| bad(&e))?;
                writer.into_inner().out.flush().map_err(|e| bad(&e))
            }
        }
    }
}

/// A file that counts.
struct Counted {
    out: BufWriter<File>,
    bytes: usize,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
