//! Writes a tiny LLaMA folder with random weights, to try a configuration and real data without a real model:
//!
//! ```sh
//! cargo run --example random_llama -- prompts.parquet models/random [HIDDEN LAYERS]
//! ```
//!
//! In: a prompts file of `salmon import`; sizes, for a model that is large and not tiny. Out: a Hugging Face folder whose
//! vocabulary fits those prompts.

#[path = "../tests/random_llama.rs"]
mod random_llama;

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use arrow::array::AsArray;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use random_llama::{Shape, write};
use salmon::{Error, Result};

/// The context holds the default rules and exemplars in the tokens of so small a vocabulary.
const SHAPE: Shape = Shape { vocab: 2000, hidden: 64, layers: 2, context: 8192 };

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let sizes: Option<Vec<usize>> = arguments.iter().skip(2).map(|size| size.parse().ok()).collect();
    let (Some([prompts, folder]), Some(shape)) = (arguments.first_chunk(), sizes.as_deref().and_then(shape)) else {
        eprintln!("usage: random_llama PROMPTS.parquet FOLDER [HIDDEN LAYERS]");
        return ExitCode::from(2);
    };
    match instructions(Path::new(prompts)).and_then(|texts| write(Path::new(folder), &texts, shape, 1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("random_llama: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn shape(sizes: &[usize]) -> Option<Shape> {
    match *sizes {
        [] => Some(SHAPE),
        [hidden, layers] if hidden > 0 && hidden.is_multiple_of(8) && layers > 0 => {
            Some(Shape { hidden, layers, ..SHAPE })
        }
        _ => None,
    }
}

/// The column `instruction`.
fn instructions(path: &Path) -> Result<Vec<String>> {
    let bad = |problem: &str| Error::data(path.display(), problem);
    let file = File::open(path).map_err(|e| bad("cannot be read").because(e))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|e| bad("is not a Parquet file").because(e))?;
    let mut texts = Vec::new();
    for batch in reader {
        let batch = batch?;
        let column = batch.column_by_name("instruction").and_then(|column| column.as_string_opt::<i32>());
        let column = column.ok_or_else(|| bad("has no text column `instruction`; `salmon import` makes such files"))?;
        texts.extend(column.iter().flatten().map(String::from));
    }
    Ok(texts)
}
