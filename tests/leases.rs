//! Several runners on one run: each stage is made once, a dead runner's stage is taken over, two configurations leave
//! each other alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use salmon::stage::{Graph, Job, Options, Progress, Stage, State, Stop, plan};
use salmon::store::{Artifact, Claim, Current, Lineage, Store, leases, records};
use serde_json::json;

use crate::pipeline_support::{POLICIES, Place, STAGES, assert_same, files, whole};
use crate::store_common::{metrics, stream};

/// A runner in a process of its own.
struct Runner {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    said: Vec<String>,
}

impl Runner {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Runner { child, lines, said: Vec::new() }
    }

    /// Reads until a line that `wanted` says yes to.
    fn until(&mut self, wanted: impl Fn(&str) -> bool) {
        for line in self.lines.by_ref() {
            self.said.push(line.unwrap());
            if self.said.last().is_some_and(|line| wanted(line)) {
                return;
            }
        }
        panic!("it never said so: {:?}", self.said);
    }

    fn signal(&self, signal: i32) {
        // SAFETY: signals a process that this test started and has not waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Its exit code and everything it said.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        self.said.extend(self.lines.by_ref().map_while(Result::ok));
        (self.child.wait().unwrap().code(), self.said)
    }
}

/// How often each stage ran, by what the runners said.
fn executed<'a>(said: impl Iterator<Item = &'a Vec<String>>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in said.flatten() {
        if let Some((stage, _)) = line.split_once(": runs (") {
            *counts.entry(stage.to_string()).or_default() += 1;
        }
    }
    counts
}

fn lease_files(run: &Path) -> Vec<String> {
    files(run).into_keys().filter(|name| name.starts_with("leases/")).collect()
}

#[test]
fn two_runners_on_an_empty_run_make_every_stage_once() {
    let place = Place::new(POLICIES);
    let runners = [Runner::start(place.command(&[])), Runner::start(place.command(&[]))];
    let ended = runners.map(Runner::end);
    assert!(ended.iter().all(|(code, _)| *code == Some(0)), "{ended:?}");
    let counts = executed(ended.iter().map(|(_, said)| said));
    assert_eq!(counts.keys().map(String::as_str).collect::<Vec<_>>(), {
        let mut stages = STAGES.to_vec();
        stages.sort_unstable();
        stages
    });
    assert!(counts.values().all(|&n| n == 1), "{counts:?}");
    assert_same(&place.contents(), &whole().contents(), "by two runners");
    let names = files(&place.run());
    assert_eq!(names.keys().filter(|name| name.starts_with("runs/")).count(), STAGES.len());
    assert_eq!(lease_files(&place.run()), [] as [String; 0], "leases end with the work");
    assert!(place.succeed(&[]).contains("nothing to do"));
    assert_eq!(files(&place.run()), names, "an unchanged run writes nothing");
}

#[test]
fn the_stage_of_a_killed_runner_is_taken_over_at_once_and_that_of_a_stopped_one_is_waited_for() {
    let place = Place::new(POLICIES);
    let hour = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.env("SALMON_LEASE_SECONDS", "3600");
        command
    };
    let mut first = Runner::start(hour(&["demonstrations"]));
    first.until(|line| line.starts_with("demonstrations: runs ("));
    first.signal(libc::SIGSTOP);
    let mut second = Runner::start(hour(&["demonstrations"]));
    let waits = format!("demonstrations: waits for process {} on ", first.child.id());
    second.until(|line| line.starts_with(&waits));
    // Whoever waits can be asked to stop.
    second.signal(libc::SIGTERM);
    let (code, said) = second.end();
    assert_eq!(code, Some(75), "{said:?}");
    assert!(said.last().unwrap().contains("run the same command again"), "{said:?}");
    first.signal(libc::SIGKILL);
    first.end();
    assert!(!lease_files(&place.run()).is_empty(), "a killed runner leaves its leases");
    let third = place.succeed(&["demonstrations"]);
    assert!(third.contains("demonstrations: runs (") && !third.contains("waits"), "{third}");
    assert_eq!(lease_files(&place.run()), [] as [String; 0]);
}

#[test]
fn a_runner_that_lost_its_lease_stops_at_its_next_commit_and_waits() {
    let place = Place::copy("[[policies]]\nname = \"long\"\nprinciples = [\"Concise\"]\ndraw = 0\n");
    let mut command = place.command(&["--set", "ppo.steps=100000"]);
    command.env("SALMON_LEASE_SECONDS", "1");
    let mut runner = Runner::start(command);
    runner.until(|line| line.starts_with("policy:long: runs ("));
    let held = lease_files(&place.run()).into_iter().find(|name| name.contains("policy:long-")).unwrap();
    let taken = place.run().join(held.replace("00001.json", "00002.json"));
    fs::write(&taken, foreign(3.0, 0)).unwrap();
    runner.until(|line| line == "policy:long: waits for process 7 on elsewhere");
    assert!(runner.said.iter().any(|line| line == "policy:long: ended without a commit"), "{:?}", runner.said);
    assert!(runner.said.iter().any(|line| line.contains("another runner took it over")), "{:?}", runner.said);
    // Nobody renews that lease, so the stage comes back.
    runner.until(|line| line.starts_with("policy:long: runs ("));
    runner.signal(libc::SIGTERM);
    let (code, said) = runner.end();
    assert_eq!(code, Some(75), "{said:?}");
    assert!(lease_files(&place.run()).is_empty());
}

#[test]
fn two_configurations_at_once_make_what_each_makes_alone() {
    let (alone, both) = (Place::new(POLICIES), Place::new(POLICIES));
    let other = ["--set", "seed=2", "judgments"];
    alone.succeed(&other);
    let runners = [Runner::start(both.command(&["judgments"])), Runner::start(both.command(&other))];
    let ended = runners.map(Runner::end);
    assert!(ended.iter().all(|(code, _)| *code == Some(0)), "{ended:?}");
    let (found, whole, alone) = (both.contents(), whole().contents(), alone.contents());
    for (name, bytes) in &found {
        let wanted = alone.get(name).or_else(|| whole.get(name));
        assert!(wanted == Some(bytes), "{name} has other bytes than alone, or was not made alone");
    }
    let judgments = |contents: &BTreeMap<String, Vec<u8>>| {
        contents.keys().filter(|name| name.starts_with("tables/judgments/") && name.ends_with("manifest.json")).count()
    };
    assert_eq!((judgments(&found), judgments(&alone)), (2, 1));
    assert!(alone.keys().all(|name| found.contains_key(name)));
    // The pointers and the kept configuration are those of one of them: running it again changes nothing.
    let before = files(&both.run());
    let kept = fs::read_to_string(both.run().join("config.toml")).unwrap();
    if kept.contains("\nseed = 2\n") {
        both.succeed(&other);
    } else {
        both.succeed(&["judgments"]);
    }
    assert_eq!(files(&both.run()), before);
}

/// A lease object of a process of another machine.
fn foreign(seconds: f64, beat: u64) -> String {
    let holder =
        json!({"host": "elsewhere", "boot": "another", "namespace": "pid:[1]", "pid": 7, "started": 1, "nonce": "n"});
    json!({"format": 1, "work": "w", "holder": holder, "began": "2026-01-01T00:00:00Z", "seconds": seconds, "beat": beat})
        .to_string()
}

/// Notes who was waited for.
#[derive(Debug, Default)]
struct Watcher(Mutex<Vec<String>>);

impl Progress for Watcher {
    fn cached(&self, stage: &str) {
        self.0.lock().unwrap().push(format!("{stage} cached"));
    }
    fn started(&self, stage: &str, _: &str) {
        self.0.lock().unwrap().push(format!("{stage} started"));
    }
    fn waiting(&self, stage: &str, holder: &str) {
        self.0.lock().unwrap().push(format!("{stage} waits for {holder}"));
    }
    fn made_elsewhere(&self, stage: &str) {
        self.0.lock().unwrap().push(format!("{stage} made elsewhere"));
    }
    fn advanced(&self, _: &str, _: u64, _: Option<u64>, _: &str) {}
    fn finished(&self, _: &str, _: u64, _: f64) {}
    fn ended(&self, _: &str) {}
}

/// Two stages that need nothing, and one that needs both.
fn graph() -> Graph {
    let makes = |name: &str, inputs: &[&str], output: &str| {
        let output = output.to_string();
        let inputs = inputs.iter().map(|input| Artifact::table(*input)).collect();
        Stage::new(name, inputs, vec![Artifact::table(&output)], Lineage::default(), move |job: Arc<Job>| {
            let output = output.clone();
            async move {
                let rows = match output.as_str() {
                    "metrics" => metrics(0..10),
                    other => arrow::array::RecordBatch::new_empty(salmon::table::by_name(other).unwrap().schema()),
                };
                job.write_table(&output, stream(vec![rows])).await.map(drop)
            }
        })
    };
    Graph::new(vec![
        makes("first", &[], "metrics"),
        makes("second", &[], "pairs"),
        makes("third", &["metrics", "pairs"], "evaluations"),
    ])
    .unwrap()
}

async fn run_watched(graph: &Graph, store: &Store) -> Vec<String> {
    let watcher = Arc::new(Watcher::default());
    let progress: Arc<dyn Progress> = Arc::clone(&watcher) as _;
    salmon::stage::run(graph, store, &Options::default(), progress, &Stop::new()).await.unwrap();
    watcher.0.lock().unwrap().clone()
}

#[tokio::test]
async fn a_stale_lease_of_another_machine_expires_while_other_stages_run() {
    for url in ["memory://", tempfile::tempdir().unwrap().path().to_str().unwrap()] {
        let (graph, store) = (graph(), Store::open(url).unwrap());
        let print = plan(&graph, &store, &Options::default()).await.unwrap()[0].fingerprint.clone();
        store.put(&format!("leases/first-{print}/00004.json"), foreign(1.0, 3)).await.unwrap();
        let said = run_watched(&graph, &store).await;
        assert_eq!(
            said,
            ["first waits for process 7 on elsewhere", "second started", "first started", "third started"]
        );
        assert!(leases(&store).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_lease_that_beats_is_not_taken() {
    let (graph, store) = (graph(), Store::open("memory://").unwrap());
    let planned = plan(&graph, &store, &Options::default()).await.unwrap();
    let key = format!("leases/first-{}/00001.json", planned[0].fingerprint);
    store.put(&key, foreign(1.0, 0)).await.unwrap();
    let (other, began) = (store.clone(), Instant::now());
    let lives = tokio::spawn(async move {
        for beat in 1..12 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            other.put(&key, foreign(1.0, beat)).await.unwrap();
        }
        // The other one's commit, and its end.
        let only = Graph::new(vec![graph_first()]).unwrap();
        other.delete(&key).await.unwrap();
        crate::store_common::run(&only, &other, &Options::default()).await.unwrap();
    });
    let said = run_watched(&graph, &store).await;
    lives.await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(2500));
    assert_eq!(said[..2], ["first waits for process 7 on elsewhere", "second started"]);
    // Whichever of both took it at the end, it was made once.
    let made = records(&store).await.unwrap().into_iter().filter(|record| record.stage == "first").count();
    assert_eq!(made, 1);
}

fn graph_first() -> Stage {
    graph().stages()[0].clone()
}

#[tokio::test]
async fn one_of_many_gets_a_lease_and_the_next_one_after_its_end() {
    let store = Store::open("memory://").unwrap();
    let mut claims: Vec<Claim> = (0..5).map(|_| Claim::new(&store, "work")).collect();
    let mut held = Vec::new();
    for claim in &mut claims {
        match claim.take().await.unwrap() {
            Ok(lease) => held.push(lease),
            Err(holder) => assert!(holder.starts_with(&format!("process {} on ", std::process::id())), "{holder}"),
        }
    }
    assert_eq!(held.len(), 1);
    assert_eq!(leases(&store).await.unwrap().len(), 1);
    held.remove(0).release().await;
    assert!(claims[3].take().await.unwrap().is_ok());
}

#[tokio::test]
async fn damaged_leases_expire_like_others() {
    let store = Store::open("memory://").unwrap();
    for text in ["", "{}", "[1]", "\u{0}", r#"{"format":99,"seconds":1e999}"#] {
        store.put("leases/work/00001.json", text.to_string()).await.unwrap();
        let holder = Claim::new(&store, "work").holder().await.unwrap();
        assert_eq!(holder.as_deref(), Some("another process"));
    }
    // Of a process of this machine that is dead: nothing is waited for.
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    let holder = |pid: u32, started: u64| {
        json!({"format": 1, "work": "work", "began": "", "seconds": 3600.0, "beat": 0,
               "holder": {"host": "h", "boot": boot.trim(), "namespace": namespace.to_str().unwrap(), "pid": pid, "started": started, "nonce": "n"}})
        .to_string()
    };
    store.put("leases/work/00001.json", holder(pid, 5)).await.unwrap();
    assert_eq!(Claim::new(&store, "work").holder().await.unwrap(), None);
    // Its number went to another process since.
    store.put("leases/work/00001.json", holder(std::process::id(), 5)).await.unwrap();
    assert_eq!(Claim::new(&store, "work").holder().await.unwrap(), None);
}

#[tokio::test]
async fn pointers_are_those_of_the_run_that_ends_last() {
    let store = Store::open("memory://").unwrap();
    let one = graph();
    run_watched(&one, &store).await;
    // Another configuration moves a pointer while the first one runs: its third stage does so.
    let thief = store.clone();
    let mut stages: Vec<Stage> = one.stages().to_vec();
    let wrapped = stages[2].run.clone();
    stages[2] = Stage::new(
        "third",
        stages[2].inputs.clone(),
        stages[2].outputs.clone(),
        Lineage { seed: Some(5), ..Lineage::default() },
        move |job: Arc<Job>| {
            let (thief, wrapped) = (thief.clone(), wrapped.clone());
            async move {
                let mut current = Current::load(&thief).await?;
                current.set(&thief, &Artifact::table("metrics"), "first", "0123456789abcdef").await?;
                current.set(&thief, &Artifact::table("metrics"), "a stage of its own", "0123456789abcdef").await?;
                wrapped(job).await
            }
        },
    );
    let two = Graph::new(stages).unwrap();
    run_watched(&two, &store).await;
    let planned = plan(&two, &store, &Options::default()).await.unwrap();
    assert!(planned.iter().all(|planned| planned.state == State::Cached));
    let current = Current::load(&store).await.unwrap();
    let metrics: Vec<_> = current.versions(&Artifact::table("metrics")).collect();
    assert_eq!(metrics, [("first", planned[0].fingerprint.as_str())]);
}
