//! What the tests of the whole pipeline share: one tiny run of the program, made once, and copies of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use datafusion::prelude::SessionContext;
use salmon::world::{RECIPE, write_prompts};

/// The demo's configuration, but small.
pub const TINY: [&str; 13] = [
    "self_align.prompts=24",
    "self_align.samples=2",
    "sft.num_train_epochs=1",
    "sft.batch_size=16",
    "responses.prompts=20",
    "responses.test_prompts=6",
    "responses.rounds=2",
    "preferences.passes=3",
    "reward.trainer.batch_size=16",
    "ppo.steps=3",
    "ppo.trainer.batch_size=8",
    "evaluate.prompts=8",
    "evaluate.samples=1",
];

/// Two policies: fixed principles, and one with draws.
pub const POLICIES: &str = r#"
[[policies]]
name = "brief"
principles = ["Concise", "not Polite"]
draw = 0

[[policies]]
name = "drawn"
principles = ["Honest"]
draw_set = "rl"
draw = 2
"#;

/// Every stage of a run with these policies, in order.
pub const STAGES: [&str; 16] = [
    "principles",
    "prompts",
    "demonstrations",
    "sft",
    "responses",
    "pairs",
    "judgments",
    "preferences",
    "reward",
    "policy:brief",
    "policy:drawn",
    "evaluate:judge",
    "evaluate:reward",
    "evaluate:policy:sft",
    "evaluate:policy:brief",
    "evaluate:policy:drawn",
];

/// A folder with a configuration, prompts and a run.
pub struct Place {
    pub folder: PathBuf,
    /// Kept until the place is dropped; the run that all tests share stays.
    _scratch: Option<tempfile::TempDir>,
}

impl Place {
    fn make(folder: PathBuf, scratch: Option<tempfile::TempDir>, policies: &str) -> Self {
        write_prompts(&folder.join("prompts.parquet")).unwrap();
        let place = Place { folder, _scratch: scratch };
        place.configure(policies);
        place
    }

    /// An empty run.
    pub fn new(policies: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        Place::make(scratch.path().to_path_buf(), Some(scratch), policies)
    }

    /// A copy of the run that all tests share.
    pub fn copy(policies: &str) -> Self {
        let place = Place::new(policies);
        copy(&whole().run(), &place.run());
        place
    }

    /// Writes the configuration.
    pub fn configure(&self, policies: &str) {
        let (before, rest) = RECIPE.split_once("[[policies]]").unwrap();
        let (_, after) = rest.split_once("[evaluate]").unwrap();
        fs::write(self.folder.join("salmon.toml"), format!("{before}{policies}\n[evaluate]{after}")).unwrap();
    }

    /// The run's folder.
    pub fn run(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// `salmon run` with the tiny settings and some more.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_at(self.run().to_str().unwrap(), arguments)
    }

    /// The same for a run that lies elsewhere.
    pub fn command_at(&self, url: &str, arguments: &[&str]) -> Command {
        let mut command = salmon(&["run", "--config"]);
        command.arg(self.folder.join("salmon.toml")).args(["--run", url]);
        for set in TINY {
            command.args(["--set", set]);
        }
        command.args(arguments);
        command
    }

    /// The same, to its end; gives stderr.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        succeeded(&self.command(arguments).output().unwrap())
    }

    /// The stages that `--dry-run` says would run.
    pub fn planned(&self, sets: &[&str]) -> Vec<String> {
        let mut arguments = vec!["--dry-run"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let output = self.command(&arguments).output().unwrap();
        succeeded(&output);
        let stdout = String::from_utf8(output.stdout).unwrap();
        stdout
            .lines()
            .filter(|line| line.contains("would run: "))
            .map(|line| line.split_whitespace().next().unwrap().to_string())
            .collect()
    }

    /// A session over the run's tables.
    pub async fn tables(&self) -> SessionContext {
        salmon::catalog::session(self.run().to_str().unwrap()).await.unwrap()
    }

    /// Everything below `tables/` and `models/`; manifests without what differs from run to run.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for (path, mut bytes) in files(&self.run()) {
            if !path.starts_with("tables/") && !path.starts_with("models/") {
                continue;
            }
            if path.ends_with("manifest.json") {
                let mut value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                let map = value.as_object_mut().unwrap();
                map.remove("info");
                map.remove("checksum");
                bytes = serde_json::to_vec(&value).unwrap();
            }
            found.insert(path, bytes);
        }
        found
    }

    /// Files of the newest version of a model.
    pub fn model(&self, name: &str) -> Vec<String> {
        let below = format!("models/{name}/");
        let names = files(&self.run()).into_keys().filter_map(|path| path.strip_prefix(&below).map(String::from));
        names.map(|path| path.split_once('/').unwrap().1.to_string()).collect()
    }
}

/// One number of a statement.
pub async fn number(context: &SessionContext, text: &str) -> i64 {
    let batches = context.sql(text).await.unwrap().collect().await.unwrap();
    let column = arrow::compute::cast(batches[0].column(0), &arrow::datatypes::DataType::Int64).unwrap();
    arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&column).value(0)
}

/// The program.
pub fn salmon(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_salmon"));
    command.args(arguments).env_remove("SALMON_LOG");
    command
}

/// That it ended well; gives stderr.
pub fn succeeded(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}: {stderr}", output.status);
    stderr
}

/// The run that all tests share: made once, uninterrupted, then only read.
pub fn whole() -> &'static Place {
    static WHOLE: OnceLock<Place> = OnceLock::new();
    WHOLE.get_or_init(|| {
        // One folder of the build's own, made anew by every process.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("whole-run");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        let place = Place::make(folder, None, POLICIES);
        place.succeed(&[]);
        place
    })
}

/// The path of that run.
pub fn whole_run() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| whole().run().display().to_string())
}

/// Every file below a folder by its relative path.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_string();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// That two runs have the same files with the same bytes.
pub fn assert_same(found: &BTreeMap<String, Vec<u8>>, wanted: &BTreeMap<String, Vec<u8>>, what: &str) {
    let names = |contents: &BTreeMap<String, Vec<u8>>| contents.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(wanted), "{what}");
    let differs: Vec<&String> = found.keys().filter(|name| found[*name] != wanted[*name]).collect();
    assert!(differs.is_empty(), "{what}: other bytes in {differs:?}");
}
