//! Fills a run with made-up judgments, so that `salmon run preferences` has nothing to do but to aggregate them.
//!
//! ```sh
//! cargo run --example aggregation_input -- FOLDER URL ROWS
//! ```
//! In: a folder for `salmon.toml` and prompts, the URL of the run, how many preference rows are to come out. Out: a run in
//! which every stage before `preferences` is committed: `judgments` with two responses of 1 KB in each row, the others
//! without files. The pairs are in as many parts as the stage makes of so many.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use salmon::draw::{Key, key};
use salmon::pipeline::{Setup, graph};
use salmon::stage::{Options, plan};
use salmon::store::{Artifact, FileEntry, Lineage, Manifest, Shards, Store, Version};
use salmon::world::{RECIPE, write_prompts};
use salmon::{Error, Result, config, table};

/// Letters of each response.
const LETTERS: usize = 1024;
/// Pairs of one record batch.
const BATCH: u64 = 256;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some([folder, url]), Some(rows)) =
        (arguments.first_chunk(), arguments.get(2).and_then(|rows| rows.parse().ok()))
    else {
        eprintln!("usage: aggregation_input FOLDER URL ROWS");
        return ExitCode::from(2);
    };
    match fill(Path::new(folder), url, rows).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("aggregation_input: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

async fn fill(folder: &Path, url: &str, rows: u64) -> Result<()> {
    let toml = folder.join("salmon.toml");
    let bad = |e: std::io::Error| Error::store(toml.display(), "cannot be written").because(e);
    fs::create_dir_all(folder).map_err(bad)?;
    fs::write(&toml, RECIPE).map_err(bad)?;
    write_prompts(&folder.join("prompts.parquet"))?;
    let config = config::read(&toml, &[])?;
    let pairs = rows / config.preferences.passes as u64;
    let setup = Arc::new(Setup::load(config, folder).await?);
    let store = Store::open(url)?;
    let graph = graph(&setup)?;
    let plan = plan(&graph, &store, &Options::default()).await?;
    for (stage, planned) in graph.stages().iter().zip(&plan) {
        for output in &stage.outputs {
            let version = Version::new(output.clone(), &planned.fingerprint)?;
            let files = if *output == Artifact::table("judgments") {
                judgments(&store, &version, &setup, pairs).await?
            } else {
                vec![]
            };
            let schema = table::by_name(&output.name).map(|table| table.schema());
            let manifest = Manifest::new(&version, files, schema.as_deref(), Lineage::default(), Default::default());
            manifest.publish(&store).await?;
        }
        if stage.name == "judgments" {
            break;
        }
    }
    Ok(())
}

/// Writes the parts of `judgments`.
async fn judgments(store: &Store, version: &Version, setup: &Setup, pairs: u64) -> Result<Vec<FileEntry>> {
    let principles: Vec<String> =
        setup.library.set("judge_set", &setup.config.principles.judge_set)?.iter().map(|p| p.name.clone()).collect();
    let count = pairs.div_ceil(256).clamp(1, 200.max(pairs / 25_000));
    let shards = Shards::open(store, version, &table::judgments(), count as usize).await?;
    for shard in shards.missing() {
        let (first, end) = (pairs * shard as u64 / count, pairs * (shard as u64 + 1) / count);
        let starts = (first..end).step_by(BATCH as usize);
        let batches = starts.map(|start| batch(start..(start + BATCH).min(end), &principles));
        shards.write(shard, futures::stream::iter(batches)).await?;
    }
    shards.finish().await
}

/// The rows of some pairs under every principle.
fn batch(pairs: std::ops::Range<u64>, principles: &[String]) -> Result<RecordBatch> {
    let rows: Vec<(u64, usize)> = pairs.flat_map(|pair| (0..principles.len()).map(move |p| (pair, p))).collect();
    let text = |make: &dyn Fn(u64, usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(pair, p)| make(*pair, *p))))
    };
    let whole = |value: i64| -> ArrayRef { Arc::new(Int64Array::from_value(value, rows.len())) };
    let score = |pair: u64, p: usize, order: &str| key(pair, &[order, &principles[p]]).normal(0);
    let scores = |order: &str| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|(pair, p)| score(*pair, *p, order))))
    };
    let verdict = |pair: u64, p: usize| match (score(pair, p, "ab") > 0.0, score(pair, p, "ba") > 0.0) {
        (true, true) => "first".to_string(),
        (false, false) => "second".to_string(),
        _ => "tie".to_string(),
    };
    Ok(RecordBatch::try_from_iter([
        ("prompt_id", text(&|pair, _| format!("{pair:010}"))),
        ("instruction", text(&|pair, _| letters(key(pair, &["instruction"]), 80))),
        ("language", text(&|_, _| "eng".into())),
        ("split", text(&|_, _| "train".into())),
        ("sample_1", whole(0)),
        ("sample_2", whole(1)),
        ("response_1", text(&|pair, _| letters(key(pair, &["first"]), LETTERS))),
        ("response_2", text(&|pair, _| letters(key(pair, &["second"]), LETTERS))),
        ("principle", text(&|_, p| principles[p].clone())),
        ("score_ab", scores("ab")),
        ("score_ba", scores("ba")),
        ("verdict", text(&verdict)),
    ])?)
}

/// So many letters of words that a compressor finds as hard as most.
fn letters(key: Key, count: usize) -> String {
    let mut text = String::with_capacity(count + 20);
    let mut n = 0;
    while text.len() < count {
        text.push_str(&format!("{:05x} ", key.draw(n) & 0xf_ffff));
        n += 1;
    }
    text.truncate(count);
    text
}
