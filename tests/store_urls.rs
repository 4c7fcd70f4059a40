//! Models, data and files to import by URL: fetched once, verified, bounded; exports to a URL.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use salmon::world::base;

use crate::pipeline_support::{POLICIES, Place, files, salmon, succeeded, whole};
use crate::s3_process::S3;

/// A server that logs what it is asked, and a cache.
struct Far {
    s3: S3,
    home: tempfile::TempDir,
}

impl Far {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("requests");
        Far { s3: S3::start(&["--log", log.to_str().unwrap()]), home }
    }

    /// Puts a folder of this machine at `key`.
    fn put(&self, key: &str, folder: &Path) {
        for (name, bytes) in files(folder) {
            let path = self.s3.object(key).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    fn run(&self, command: Command) -> Output {
        self.s3.reach(command).env("XDG_CACHE_HOME", self.home.path()).output().unwrap()
    }

    /// Standard output of a success.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(salmon(arguments));
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The objects that were read since the last call, by name.
    fn read(&self) -> Vec<String> {
        let log = self.home.path().join("requests");
        let requests = fs::read_to_string(&log).unwrap();
        fs::write(log, "").unwrap();
        let gets = requests.lines().filter_map(|line| line.strip_prefix("GET ")).filter(|line| !line.contains('?'));
        gets.map(|line| line.rsplit('/').next().unwrap().to_string()).collect()
    }

    /// The folders of the cache.
    fn cached(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home.path().join("salmon/models")).unwrap();
        let mut folders: Vec<PathBuf> =
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
    }
}

const ASK: [&str; 9] = [
    "generate",
    "--model",
    "s3://bucket/models/pocket",
    "--prompt",
    "question",
    "--temperature",
    "0",
    "--max-tokens",
    "8",
];

#[test]
fn a_model_at_a_url_is_fetched_once_and_again_when_it_is_damaged() {
    let far = Far::new();
    let folder = base::folder().unwrap();
    far.put("models/pocket", &folder);
    let mut here = ASK;
    here[2] = folder.to_str().unwrap();
    let wanted = far.ok(&here);
    assert_eq!(far.ok(&ASK), wanted);
    let first = far.read();
    assert!(first.iter().any(|name| name == "model.safetensors") && first.iter().any(|name| name == "config.json"));
    assert_eq!(far.ok(&ASK), wanted);
    assert_eq!(far.read(), [""; 0], "nothing is read again");

    // One byte of the copy changes; then a file of it is cut.
    let copy = far.cached().pop().unwrap().join("model.safetensors");
    let mut bytes = fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&copy, &bytes).unwrap();
    let output = far.run(salmon(&ASK));
    assert!(succeeded(&output).contains("is damaged; fetched again"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), wanted);
    assert_eq!(far.read().len(), first.len());
    fs::write(&copy, &bytes[..middle]).unwrap();
    assert_eq!(far.ok(&ASK), wanted);
    assert_eq!(far.read().len(), first.len());

    // Another object is another model.
    let tokenizer = far.s3.object("models/pocket/tokenizer.json");
    fs::write(&tokenizer, fs::read_to_string(&tokenizer).unwrap() + "\n").unwrap();
    assert_eq!(far.ok(&ASK), wanted);
    assert_eq!(far.read().len(), first.len());
    assert_eq!(far.cached().len(), 2);
    let rows = far.ok(&["logprobs", "--model", ASK[2], "--text", "question", "--format", "json"]);
    assert!(rows.starts_with('['), "{rows}");
    assert_eq!(far.read(), [""; 0], "one cache for all commands");

    let missing = far.run(salmon(&["generate", "--model", "s3://bucket/models/other", "--prompt", "x"]));
    let line = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(5));
    assert_eq!(line, "salmon: s3://bucket/models/other: there are no files at this URL; check it\n");
}

#[test]
fn processes_that_want_a_model_at_once_fetch_it_once() {
    let far = Far::new();
    far.put("models/pocket", &base::folder().unwrap());
    let start = |_| {
        let mut command = far.s3.reach(salmon(&ASK));
        command.env("XDG_CACHE_HOME", far.home.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let processes: Vec<Child> = (0..3).map(start).collect();
    let outputs: Vec<Output> = processes.into_iter().map(|process| process.wait_with_output().unwrap()).collect();
    outputs.iter().for_each(|output| drop(succeeded(output)));
    assert!(outputs.iter().all(|output| output.stdout == outputs[0].stdout && !output.stdout.is_empty()));
    assert_eq!(far.read().iter().filter(|name| *name == "model.safetensors").count(), 1);
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_used() {
    let far = Far::new();
    let folder = base::folder().unwrap();
    let size: u64 = files(&folder).values().map(|bytes| bytes.len() as u64).sum();
    let ask = |name: &str, limit: u64| {
        let url = format!("s3://bucket/models/{name}");
        let mut command = salmon(&["generate", "--model", &url, "--prompt", "question", "--max-tokens", "1"]);
        command.env("SALMON_CACHE_BYTES", limit.to_string());
        self::succeeded(&far.run(command))
    };
    for name in ["a", "b", "c"] {
        far.put(&format!("models/{name}"), &folder);
    }
    let room = 2 * size + size / 2;
    ask("a", room);
    let a = far.cached();
    ask("b", room);
    assert_eq!(far.cached().len(), 2);
    // `a` was used last, so `b` goes.
    ask("a", room);
    ask("c", room);
    assert_eq!(far.cached().len(), 2);
    assert!(far.cached().contains(&a[0]));
    far.read();
    ask("a", room);
    assert_eq!(far.read(), [""; 0]);
    // A process that uses `a` and `c` holds their locks: they stay, although there is no room.
    let locks: Vec<fs::File> =
        far.cached().iter().map(|path| fs::File::open(path.with_extension("lock")).unwrap()).collect();
    locks.iter().for_each(|lock| lock.lock_shared().unwrap());
    let said = ask("b", size);
    assert!(said.contains("bytes in use, more than SALMON_CACHE_BYTES="), "{said}");
    assert_eq!(far.cached().len(), 3);
    drop(locks);
    // What a dead process left goes as well.
    fs::create_dir(far.home.path().join("salmon/models/.partial-dead")).unwrap();
    far.put("models/d", &folder);
    ask("d", size);
    assert_eq!(far.cached().len(), 1);
    let mut command = salmon(&ASK);
    command.env("SALMON_CACHE_BYTES", "much");
    far.put("models/pocket", &folder);
    let output = far.run(command);
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert_eq!(line, "salmon: SALMON_CACHE_BYTES=much: is not a number of bytes, e.g. 50_000_000_000\n");
}

#[test]
fn base_and_prompts_at_urls_give_the_same_run_and_an_unchanged_one_loads_no_model() {
    let far = Far::new();
    let place = Place::new(POLICIES);
    far.put("models/pocket", &base::folder().unwrap());
    fs::create_dir_all(far.s3.object("data/größe 1")).unwrap();
    fs::copy(place.folder.join("prompts.parquet"), far.s3.object("data/größe 1/prompts.parquet")).unwrap();
    let sets = [
        "--set",
        "model.base=\"s3://bucket/models/pocket\"",
        "--set",
        "data.prompts=[\"s3://bucket/data/größe 1/prompts.parquet\"]",
    ];
    let run = |more: &[&str]| {
        let command = place.command_at("s3://bucket/run", &[&["demonstrations"], &sets[..], more].concat());
        far.run(command)
    };
    // Checked without its weights.
    let config = place.folder.join("salmon.toml");
    let check = |sets: &[&str]| far.run(salmon(&[&["check", "--config", config.to_str().unwrap()], sets].concat()));
    let output = check(&sets);
    let notes = succeeded(&output);
    assert!(notes.contains("s3://bucket/models/pocket: ") && notes.contains(" MB was never fetched"), "{notes}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("ok  model: s3://bucket/models/pocket: ") && said.contains(" M parameters"), "{said}");
    assert!(said.contains("ok  data.prompts: s3://bucket/data/größe 1/prompts.parquet: "), "{said}");
    assert!(!far.read().contains(&"model.safetensors".to_string()));

    succeeded(&run(&[]));
    assert!(far.read().contains(&"model.safetensors".to_string()));
    // The same versions as with a model on disk: where it lies is in no fingerprint.
    let tables = |contents: BTreeMap<String, Vec<u8>>| -> Vec<String> {
        let demonstrations = contents.into_keys().filter(|key| key.starts_with("tables/demonstrations/"));
        demonstrations.filter(|key| key.ends_with("manifest.json")).collect()
    };
    let found = tables(files(&far.s3.object("run")));
    assert_eq!((found.len(), &found), (1, &tables(whole().contents())));

    // Unchanged, with the weights gone from the cache: nothing is fetched and nothing loaded.
    let weights = far.cached().into_iter().find(|folder| folder.join("model.safetensors").exists()).unwrap();
    fs::remove_dir_all(&weights).unwrap();
    assert!(succeeded(&run(&[])).contains("nothing to do: "));
    let read = far.read();
    assert!(!read.iter().any(|name| name == "model.safetensors" || name == "prompts.parquet"), "{read:?}");
    assert!(!weights.exists());
    succeeded(&check(&sets));
    assert!(!weights.exists());

    // What is wrong is said with the URL.
    fs::write(far.s3.object("data/größe 1/prompts.parquet"), "no Parquet").unwrap();
    let line = String::from_utf8(run(&[]).stderr).unwrap();
    assert!(line.contains("s3://bucket/data/größe 1/prompts.parquet: cannot be read as Parquet"), "{line}");
    fs::remove_file(far.s3.object("models/pocket/config.json")).unwrap();
    let line = String::from_utf8(run(&[]).stderr).unwrap();
    assert!(line.contains("s3://bucket/models/pocket: there is no config.json below this URL"), "{line}");
}

/// The commands that read a run give the same for one on a server as for the same one on disk.
#[test]
fn reading_commands_say_the_same_of_a_run_on_a_server() {
    let far = Far::new();
    far.put("run", &whole().run());
    let (url, disk) = ("s3://bucket/run", whole().run());
    let page = far.home.path().join("report.html");
    let asked =
        ["--instruction", "what is the capital of arden ?", "--response", "it is lumen .", "--principle", "Honest"];
    for arguments in [
        &["runs"][..],
        &[&["score"][..], &asked].concat(),
        &["sql", "--format", "json", "-c", "select * from evaluations order by 1, 2, 3, 4, 5"],
        &["report", "--out", page.to_str().unwrap()],
    ] {
        let of = |run: &str| far.ok(&[arguments, &["--run", run]].concat());
        let said = of(url);
        assert!(!said.is_empty(), "{arguments:?}");
        assert_eq!(said, of(disk.to_str().unwrap()), "{arguments:?}");
    }
    let chat = |run: &str| {
        let mut command = far.s3.reach(salmon(&["chat", "--run", run, "--policy", "brief", "--seed", "3"]));
        command.env("XDG_CACHE_HOME", far.home.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        process.stdin.take().unwrap().write_all(b"what is the river of arden ?\n").unwrap();
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty());
        output.stdout
    };
    assert_eq!(chat(url), chat(disk.to_str().unwrap()));
}

#[test]
fn imports_read_from_urls_and_exports_go_to_them() {
    let far = Far::new();
    fs::create_dir_all(far.s3.object("in/deep")).unwrap();
    fs::write(far.s3.object("in/a 1.jsonl"), "{\"instruction\": \"One?\"}\n{\"instruction\": \"\"}\n").unwrap();
    fs::write(far.s3.object("in/deep/b.csv"), "question\nTwo?\n").unwrap();
    let out = far.home.path().join("prompts.parquet");
    let said = far.ok(&["import", "s3://bucket/in/a 1.jsonl", "--out", out.to_str().unwrap()]);
    assert!(said.contains("s3://bucket/in/a 1.jsonl"), "{said}");
    let said = far.ok(&["import", "s3://bucket/in", "--out", out.to_str().unwrap()]);
    assert!(said.contains("s3://bucket/in/a 1.jsonl") && said.contains("s3://bucket/in/deep/b.csv"), "{said}");
    fs::write(far.s3.object("in/bad.jsonl"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let output = far.run(salmon(&["import", "s3://bucket/in/bad.jsonl", "--out", out.to_str().unwrap()]));
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.starts_with("salmon: s3://bucket/in/bad.jsonl: is a Git LFS pointer"), "{line}");

    // An export of a run on the server to the server, and one of a run on disk.
    far.put("run", &whole().run());
    let disk = whole().run();
    for (run, key) in [("s3://bucket/run", "out 1/preferences"), (disk.to_str().unwrap(), "out 2/preferences")] {
        far.ok(&["export", "preferences", "--run", run, "--out", &format!("s3://bucket/{key}")]);
        far.ok(&["export", "model", "--model", "sft", "--run", run, "--out", &format!("s3://bucket/{key}-model")]);
    }
    let one = files(&far.s3.object("out 1"));
    assert!(one.contains_key("preferences/README.md") && one.contains_key("preferences-model/config.json"));
    let data = |contents: BTreeMap<String, Vec<u8>>| {
        contents.into_iter().filter(|(name, _)| !name.ends_with("README.md")).collect::<BTreeMap<_, _>>()
    };
    assert!(data(one) == data(files(&far.s3.object("out 2"))));
    let again = far.run(salmon(&[
        "export",
        "preferences",
        "--run",
        "s3://bucket/run",
        "--out",
        "s3://bucket/out 1/preferences",
    ]));
    let line = String::from_utf8(again.stderr).unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(line.contains("s3://bucket/out 1/preferences: is there already"), "{line}");
    far.ok(&["export", "preferences", "--run", "s3://bucket/run", "--out", "s3://bucket/out 1/preferences", "--force"]);
    let rows =
        far.ok(&["sql", "--run", "s3://bucket/run", "--format", "csv", "-c", "select count(*) from preferences"]);
    assert!(rows.lines().nth(1).unwrap().parse::<u32>().unwrap() > 0, "{rows}");
}
