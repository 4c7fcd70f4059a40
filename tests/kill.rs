//! Real processes that die in every stage, and the run that follows: the same bytes as without.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::time::Duration;

use crate::pipeline_support::{POLICIES, Place, STAGES, assert_same, files, whole};

/// A run in a process of its own, with a checkpoint after every step of a trainer.
struct Attempt {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    said: Vec<String>,
}

impl Attempt {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut command = place.command(&["--set", "checkpoint_seconds=0"]);
        let mut child = command.args(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Attempt { child, lines, said: Vec::new() }
    }

    /// Reads until the stage begins.
    fn reach(&mut self, stage: &str) {
        let begin = format!("{stage}: runs (");
        for line in self.lines.by_ref() {
            self.said.push(line.unwrap());
            if self.said.last().is_some_and(|line| line.starts_with(&begin)) {
                return;
            }
        }
        panic!("{stage} did not begin: {:?}", self.said);
    }

    /// Waits until the run has a file whose path `wanted` says yes to.
    fn until(&mut self, place: &Place, wanted: impl Fn(&str) -> bool) {
        while !names(&place.run()).iter().any(|name| wanted(name)) {
            assert!(self.child.try_wait().unwrap().is_none(), "ended before its time: {:?}", self.said);
            // The file system has no event to wait for; how long this takes decides nothing.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a signal and waits for the end; gives the rest of what it said.
    fn signal(mut self, signal: i32) -> (ExitStatus, Vec<String>) {
        // SAFETY: signals a process that this test started and has not waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
        self.said.extend(self.lines.by_ref().map_while(Result::ok));
        (self.child.wait().unwrap(), self.said)
    }
}

/// Paths below a folder that changes while it is read.
fn names(folder: &Path) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else {
                found.push(entry.path().to_string_lossy().into_owned());
            }
        }
    }
    found
}

/// A file that says that the stage of this model took the checkpoint of a step.
fn checkpoint(model: &str, step: usize) -> impl Fn(&str) -> bool {
    let (model, marker) = (format!("/models/{model}/"), format!("checkpoints/step-{step:08}.json"));
    move |name: &str| name.contains(&model) && name.ends_with(&marker)
}

/// Whether a file of the run says that the stage is in the middle of its work.
type Inside = Box<dyn Fn(&str) -> bool>;

#[test]
fn kills_in_every_stage_resume_to_the_bytes_of_an_uninterrupted_run() {
    let place = Place::new(POLICIES);
    for stage in STAGES {
        // At its beginning ...
        let mut attempt = Attempt::start(&place, &[]);
        attempt.reach(stage);
        let (status, said) = attempt.signal(libc::SIGKILL);
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{said:?}");
        // ... and between its commits.
        let inside: Option<Inside> = match stage {
            "demonstrations" | "responses" => {
                let table = format!("/tables/{stage}/");
                Some(Box::new(move |name| name.contains(&table) && name.contains("/shards/")))
            }
            "sft" | "reward" => Some(Box::new(checkpoint(stage, 1))),
            "policy:brief" => Some(Box::new(checkpoint(stage, 2))),
            _ => None,
        };
        if let Some(inside) = inside {
            let mut attempt = Attempt::start(&place, &[]);
            attempt.reach(stage);
            attempt.until(&place, inside);
            attempt.signal(libc::SIGKILL);
        }
    }
    place.succeed(&[]);
    assert_same(&place.contents(), &whole().contents(), "after the kills");
    assert!(place.succeed(&[]).contains("nothing to do"));
}

#[test]
fn a_policy_without_checkpoints_starts_again_to_the_same_bytes() {
    let place = Place::new(POLICIES);
    let mut attempt = Attempt::start(&place, &["--set", "checkpoint_seconds=1000"]);
    attempt.reach("policy:brief");
    attempt.until(&place, |name| name.contains("/tables/rollouts/") && name.contains("/shards/00001"));
    attempt.signal(libc::SIGKILL);
    place.succeed(&[]);
    assert_same(&place.contents(), &whole().contents(), "after the kill");
}

#[test]
fn a_request_to_stop_ends_at_a_commit_and_is_resumed() {
    let place = Place::new(POLICIES);
    for (stage, signal) in [
        ("demonstrations", libc::SIGTERM),
        ("sft", libc::SIGINT),
        ("judgments", libc::SIGTERM),
        ("preferences", libc::SIGINT),
        ("policy:brief", libc::SIGTERM),
        ("evaluate:reward", libc::SIGTERM),
    ] {
        let mut attempt = Attempt::start(&place, &[]);
        attempt.reach(stage);
        let (status, said) = attempt.signal(signal);
        assert_eq!(status.code(), Some(75), "{stage}: {said:?}");
        let last = said.last().unwrap();
        assert!(last.starts_with("salmon: ") && last.contains("run the same command"), "{said:?}");
    }
    place.succeed(&[]);
    assert_same(&place.contents(), &whole().contents(), "after the stops");
}

#[test]
fn a_long_policy_stops_between_steps_and_goes_on_there() {
    let place = Place::copy("[[policies]]\nname = \"long\"\nprinciples = [\"Concise\"]\ndraw = 0\n");
    let steps = |place: &Place| -> Vec<String> {
        let at =
            files(&place.run()).into_keys().filter(|name| name.contains("/checkpoints/") && name.ends_with(".json"));
        at.map(|name| name.rsplit('/').next().unwrap().to_string()).filter(|name| name.starts_with("step-")).collect()
    };
    let mut reached = Vec::new();
    for step in [2, 4] {
        let mut attempt = Attempt::start(&place, &["--set", "ppo.steps=100000"]);
        attempt.reach("policy:long");
        attempt.until(&place, checkpoint("policy:long", step));
        let (status, said) = attempt.signal(libc::SIGTERM);
        assert_eq!(status.code(), Some(75), "{said:?}");
        reached.push(steps(&place));
    }
    // The last two checkpoints stay; the second attempt went on from the first one's.
    assert!(reached.iter().all(|steps| steps.len() == 2), "{reached:?}");
    assert!(reached[1] > reached[0]);
    let markers =
        names(&place.run()).into_iter().filter(|name| name.contains("/tables/rollouts/") && name.contains("/shards/"));
    let last: usize = reached[1][1].trim_start_matches("step-").trim_end_matches(".json").parse().unwrap();
    assert_eq!(markers.count(), last, "a committed step of rollouts for each");
}

/// What a configuration names by URL is fetched before the first stage, and that may take long.
#[test]
fn a_request_to_stop_before_the_first_stage_ends_with_the_same_exit_code() {
    let place = Place::new(POLICIES);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let mut command = place.command(&["--set", r#"data.prompts=["s3://bucket/prompts.parquet"]"#]);
    command.env("AWS_ENDPOINT_URL", format!("http://{}", silent.local_addr().unwrap())).env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_ACCESS_KEY_ID", "silent").env("AWS_SECRET_ACCESS_KEY", "silent-secret");
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // Once it has asked the server, which never answers, it is in the middle of fetching.
    let asked = loop {
        match silent.accept() {
            Ok(connection) => break connection,
            Err(_) => assert!(child.try_wait().unwrap().is_none(), "ended before it asked"),
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    // SAFETY: signals a process that this test started and has not waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    drop(asked);
}
