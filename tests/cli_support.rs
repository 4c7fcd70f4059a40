//! Runs the real program, and makes one tiny run that all tests of a process look at.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use arrow::json::ReaderBuilder;
use arrow::json::writer::JsonArray;
use parquet::arrow::ArrowWriter;
use salmon::table;
use serde_json::Value;

/// What the program said and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Standard output of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Standard output as JSON rows.
    #[track_caller]
    pub(crate) fn rows(self) -> Vec<Value> {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Standard error of a failure with this code; nothing is on standard output.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        self.err
    }
}

/// Runs the program in `folder` with something on its standard input.
pub(crate) fn salmon_in(folder: &Path, args: &[&str], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_salmon"))
        .args(args)
        .current_dir(folder)
        .env("COLUMNS", "100")
        .env_remove("SALMON_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs the program.
pub(crate) fn salmon(args: &[&str]) -> Ran {
    salmon_in(Path::new(env!("CARGO_TARGET_TMPDIR")), args, "")
}

/// The demo in seconds: few prompts, two PPO steps, two policies of which one adds a principle to the other.
pub(crate) const TINY: [&str; 13] = [
    "policies=[{name=\"brief\",principles=[\"Concise\"],draw=0},{name=\"brief-kind\",principles=[\"Concise\",\"Polite\"],draw=0}]",
    "ppo.steps=2",
    "ppo.trainer.batch_size=8",
    "self_align.prompts=24",
    "self_align.samples=2",
    "sft.batch_size=16",
    "responses.prompts=8",
    "responses.test_prompts=4",
    "responses.rounds=1",
    "preferences.passes=2",
    "reward.trainer.batch_size=8",
    "evaluate.prompts=4",
    "evaluate.samples=1",
];

/// `--set` for each of these.
pub(crate) fn sets<'a>(values: &[&'a str]) -> Vec<&'a str> {
    values.iter().flat_map(|value| ["--set", value]).collect()
}

/// A finished tiny run that nobody may change.
pub(crate) fn tiny() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        for entry in fs::read_dir(&home).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(process) = name.strip_prefix("tiny-run-") else { continue };
            if !Path::new("/proc").join(process).exists() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let run = home.join(format!("tiny-run-{}", std::process::id())).display().to_string();
        let mut args = vec!["demo", "--run", &run];
        args.extend(sets(&TINY));
        salmon(&args).ok();
        run
    })
}

/// A copy of the tiny run, to change.
pub(crate) fn copy_of_tiny() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    copy(Path::new(tiny()), &run);
    let url = run.display().to_string();
    (folder, url)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// A folder as `salmon init` writes it.
pub(crate) fn starter() -> tempfile::TempDir {
    static STARTER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = STARTER.get_or_init(|| {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        salmon_in(folder.path(), &["init"], "").ok();
        folder
    });
    let folder = tempfile::tempdir().unwrap();
    copy(made.path(), folder.path());
    folder
}

/// The rows of a statement over the tiny run, without a process of its own.
pub(crate) fn ask(sql: &str) -> Vec<Value> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let batches = runtime.block_on(async {
        let ctx = salmon::catalog::session(tiny()).await.unwrap();
        salmon::query::sql(&ctx, sql, &Default::default()).await.unwrap().collect().await.unwrap()
    });
    let mut writer = arrow::json::WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    serde_json::from_slice(&writer.into_inner()).unwrap()
}

/// Rows of a table as a batch in which every column may be null.
pub(crate) fn batch(name: &str, rows: &[Value]) -> RecordBatch {
    let fields: Vec<Field> =
        table::by_name(name).unwrap().columns.iter().map(|c| Field::new(c.name, c.data_type.clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).build_decoder().unwrap();
    decoder.serialize(rows).unwrap();
    decoder.flush().unwrap().unwrap_or_else(|| RecordBatch::new_empty(schema))
}

/// The batch as a Parquet file.
pub(crate) fn parquet(path: &Path, batch: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}
