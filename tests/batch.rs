//! The Slurm script of `docs/batch.md`, with a real signal: it is put back into the queue, and the job that follows ends
//! with the bytes of an uninterrupted run.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::pipeline_support::{POLICIES, Place, TINY, assert_same, whole};

fn script() -> &'static str {
    let page = include_str!("../docs/batch.md");
    page.split("```bash\n").nth(1).unwrap().split("```").next().unwrap()
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The job as Slurm would start it: `salmon` with the tiny settings, and an `scontrol` that writes down what it is told.
fn start(place: &Place) -> Child {
    let bin = place.folder.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let sets: Vec<String> = TINY.iter().map(|set| format!("--set '{set}'")).collect();
    let salmon = format!("#!/bin/sh\nexec '{}' \"$@\" {}\n", env!("CARGO_BIN_EXE_salmon"), sets.join(" "));
    executable(&bin.join("salmon"), &salmon);
    executable(&bin.join("scontrol"), "#!/bin/sh\necho \"$@\" >> requeued\n");
    executable(&place.folder.join("job.sh"), script());
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    Command::new("./job.sh")
        .current_dir(&place.folder)
        .env("PATH", path)
        .env("RUN", place.run())
        .env("SLURM_JOB_ID", "42")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_preempted_slurm_job_is_queued_again_and_finishes() {
    let place = Place::new(POLICIES);
    let mut job = start(&place);
    let mut lines = BufReader::new(job.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("responses: runs (")), "the job reaches the stage");
    // SAFETY: signals a process that this test started and has not waited for.
    unsafe { libc::kill(job.id() as i32, libc::SIGTERM) };
    let said: Vec<String> = lines.collect();
    assert_eq!(job.wait().unwrap().code(), Some(75), "{said:?}");
    assert_eq!(fs::read_to_string(place.folder.join("requeued")).unwrap(), "requeue 42\n");
    let mut again = start(&place);
    let said: Vec<String> = BufReader::new(again.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
    assert!(again.wait().unwrap().success(), "{said:?}");
    assert_eq!(fs::read_to_string(place.folder.join("requeued")).unwrap(), "requeue 42\n", "and not once more");
    assert_same(&place.contents(), &whole().contents(), "after the preemption");
}
