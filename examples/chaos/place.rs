//! Where one run lives, and the command that works on it.
//!
//! In: a configuration, the kind of store. Out: `salmon run` with small settings, and folders of the run's own for
//! scratch and cache, so that no run lives on what another one fetched.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use salmon::world::{RECIPE, write_prompts};

use crate::Failure;

/// A policy with fixed principles.
const POLICY: &str = r#"
[[policies]]
name = "brief"
principles = ["Concise", "not Polite"]
draw = 0
"#;

/// A second one, with draws: stages that share their inputs.
const SECOND: &str = r#"
[[policies]]
name = "drawn"
principles = ["Honest"]
draw_set = "rl"
draw = 2
"#;

/// The demo's configuration in seconds; a checkpoint after every step.
pub const TINY: [&str; 14] = [
    "self_align.prompts=8",
    "self_align.samples=2",
    "sft.num_train_epochs=1",
    "sft.batch_size=4",
    "responses.prompts=8",
    "responses.test_prompts=3",
    "responses.rounds=2",
    "preferences.passes=2",
    "reward.trainer.batch_size=8",
    "ppo.steps=3",
    "ppo.trainer.batch_size=6",
    "evaluate.prompts=3",
    "evaluate.samples=1",
    "checkpoint_seconds=0",
];

/// The same with a hundred shards or steps in every stage that has such.
pub const LONG: [&str; 14] = [
    "self_align.prompts=220",
    "self_align.samples=1",
    "sft.num_train_epochs=1",
    "sft.batch_size=2",
    "responses.prompts=40",
    "responses.test_prompts=5",
    "responses.rounds=2",
    "preferences.passes=5",
    "reward.trainer.batch_size=2",
    "ppo.steps=100",
    "ppo.trainer.batch_size=4",
    "evaluate.prompts=2",
    "evaluate.samples=1",
    "checkpoint_seconds=0",
];

/// Copies of the prompts in the long configuration: 26,400 rows are 104 shards. All but the first are for tests, of which
/// few are used, so that a pass stays short.
const COPIES: usize = 96;

/// A configuration on disk.
#[derive(Debug, Clone)]
pub struct Configuration {
    file: PathBuf,
    sets: &'static [&'static str],
}

impl Configuration {
    /// The small one.
    pub fn tiny(folder: &Path) -> Result<Configuration, Failure> {
        Configuration::write(folder, &TINY, &[POLICY, SECOND])
    }

    /// The long one, with many copies of every prompt.
    pub async fn long(folder: &Path) -> Result<Configuration, Failure> {
        let configuration = Configuration::write(folder, &LONG, &[POLICY])?;
        let (few, many) = (folder.join("few.parquet"), folder.join("prompts.parquet"));
        std::fs::rename(&many, &few)?;
        let context = SessionContext::new();
        context.register_parquet("few", few.display().to_string(), ParquetReadOptions::default()).await?;
        let copies: Vec<String> = (0..COPIES).map(|copy| format!("({copy})")).collect();
        let sql = format!(
            "select concat(prompt_id, '-', cast(copy as varchar)) prompt_id, instruction, source, kind, language, \
             length_bonus, case when copy = 0 then split else 'test' end split \
             from few cross join (values {}) as copies(copy)",
            copies.join(", ")
        );
        let rows = context.sql(&sql).await?;
        let options = DataFrameWriteOptions::new().with_single_file_output(true);
        rows.write_parquet(&many.display().to_string(), options, None).await?;
        Ok(configuration)
    }

    fn write(folder: &Path, sets: &'static [&'static str], policies: &[&str]) -> Result<Configuration, Failure> {
        std::fs::create_dir_all(folder)?;
        write_prompts(&folder.join("prompts.parquet"))?;
        let (before, rest) = RECIPE.split_once("[[policies]]").ok_or("the recipe has no policies")?;
        let (_, after) = rest.split_once("[evaluate]").ok_or("the recipe has no [evaluate]")?;
        let file = folder.join("salmon.toml");
        std::fs::write(&file, format!("{before}{}\n[evaluate]{after}", policies.concat()))?;
        Ok(Configuration { file, sets })
    }
}

/// One run.
pub struct Place {
    /// Scratch, cache and log of the run; the run itself when it is on disk.
    pub folder: PathBuf,
    /// The run's URL.
    pub url: String,
    /// Its name in the log and in messages.
    pub name: String,
    configuration: Configuration,
    variables: Vec<(String, String)>,
}

impl Place {
    /// A run on disk in `folder`.
    pub fn disk(name: &str, folder: PathBuf, configuration: &Configuration) -> Result<Place, Failure> {
        let url = folder.join("run").display().to_string();
        Place::make(name, folder, url, configuration, Vec::new())
    }

    /// A run at `url`, which `variables` say how to reach.
    pub fn remote(
        name: &str,
        folder: PathBuf,
        url: String,
        configuration: &Configuration,
        variables: Vec<(String, String)>,
    ) -> Result<Place, Failure> {
        Place::make(name, folder, url, configuration, variables)
    }

    fn make(
        name: &str,
        folder: PathBuf,
        url: String,
        configuration: &Configuration,
        variables: Vec<(String, String)>,
    ) -> Result<Place, Failure> {
        for part in ["tmp", "cache"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        Ok(Place { folder, url, name: name.to_string(), configuration: configuration.clone(), variables })
    }

    /// `salmon run`, with what is said beside the plain lines as JSON.
    pub fn command(&self, salmon: &Path) -> Command {
        let mut command = Command::new(salmon);
        self.arguments(&mut command);
        command
    }

    /// The arguments and variables of [`Place::command`].
    pub fn arguments(&self, command: &mut Command) {
        command.args(["--log-format", "json", "run", "--config"]).arg(&self.configuration.file);
        command.arg("--run").arg(&self.url);
        for set in self.configuration.sets {
            command.args(["--set", set]);
        }
        command
            .env("SALMON_LOG", "warn,salmon::stage=debug")
            .env("TMPDIR", self.folder.join("tmp"))
            .env("XDG_CACHE_HOME", self.folder.join("cache"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// The log of its attempts, to append to.
    pub fn log(&self) -> Result<File, Failure> {
        Ok(OpenOptions::new().create(true).append(true).open(self.folder.join("attempts.log"))?)
    }
}
