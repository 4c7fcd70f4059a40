//! `salmon gc`: what is listed, what stays, and what a run at the same time can count on.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use salmon::stage::{Graph, Job, Options, Progress, Stage, State, Stop, plan};
use salmon::store::gc::{self, Ages, What};
use salmon::store::{Artifact, Claim, Lineage, Store, leases};
use serde_json::{Value, json};

use crate::cli_support::{Ran, salmon};
use crate::pipeline_support::{POLICIES, Place, assert_same, files, whole};
use crate::store_common::{run, stage};

const NOTHING_YOUNG: Ages = Ages { versions: Duration::ZERO, others: Duration::ZERO };

/// prompts -> pairs -> metrics, where `seed` changes the first.
fn graph(seed: u64) -> Graph {
    let table = Artifact::table;
    let seeded = Lineage { seed: Some(seed), ..Lineage::default() };
    Graph::new(vec![
        stage("prompts", vec![], vec![table("prompts")], seeded),
        stage("pairs", vec![table("prompts")], vec![table("pairs")], Lineage::default()),
        stage("sft", vec![table("pairs")], vec![table("metrics")], Lineage::default()),
    ])
    .unwrap()
}

struct Fixture {
    folder: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        Fixture { folder, store }
    }

    async fn run(&self, graph: &Graph) -> BTreeSet<String> {
        let planned = run(graph, &self.store, &Options::default()).await.unwrap();
        planned.into_iter().map(|planned| planned.fingerprint).collect()
    }

    /// `salmon gc` where nothing is too young.
    fn gc(&self, more: &[&str]) -> Ran {
        let mut args =
            vec!["gc", "--run", self.folder.path().to_str().unwrap(), "--keep-days", "0", "--older-than", "0s"];
        args.extend(more);
        salmon(&args)
    }

    fn names(&self) -> BTreeSet<String> {
        files(self.folder.path()).into_keys().collect()
    }

    fn write(&self, key: &str, text: &str) {
        let path = self.folder.path().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// What a JSON list names: (what, key).
fn listed(rows: &[Value]) -> Vec<(&str, &str)> {
    rows.iter().map(|row| (row["what"].as_str().unwrap(), row["key"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_nothing_needs_are_listed_and_then_removed() {
    let fixture = Fixture::new();
    let old = fixture.run(&graph(1)).await;
    let new = fixture.run(&graph(2)).await;
    let before = fixture.names();
    let rows = fixture.gc(&["--format", "json"]).rows();
    let found = listed(&rows);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|(what, key)| *what == "version" && old.contains(key.rsplit('/').next().unwrap())));
    assert!(rows.iter().all(|row| row["bytes"].as_u64().unwrap() > 0 && row["files"] == 2), "{rows:?}");
    assert_eq!(fixture.names(), before, "a list removes nothing");
    let said = fixture.gc(&[]);
    assert!(said.err.starts_with("would free ") && said.err.ends_with("; --yes removes them\n"), "{said:?}");

    // They are not a week old.
    let young = salmon(&["gc", "--run", fixture.folder.path().to_str().unwrap()]);
    assert_eq!(young.out, "");
    assert!(young.err.starts_with("nothing to remove\nkept 3 young versions ("), "{young:?}");

    let said = fixture.gc(&["--yes"]);
    assert!(said.err.starts_with("freed ") && said.err.contains(": 3 versions ("), "{said:?}");
    assert_eq!(said.out.lines().count(), 4, "{said:?}");
    let left = fixture.names();
    assert!(!left.iter().any(|name| old.iter().any(|print| name.contains(print.as_str()))), "{left:?}");
    assert!(new.iter().all(|print| left.iter().any(|name| name.contains(print.as_str()))));
    let folders = fs::read_dir(fixture.folder.path().join("tables/prompts")).unwrap().count();
    assert_eq!(folders, 1, "no empty folder stays");
    assert!(leases(&fixture.store).await.unwrap().is_empty());
    // The run reads as before, and the older configuration is made again.
    let planned = plan(&graph(2), &fixture.store, &Options::default()).await.unwrap();
    assert!(planned.iter().all(|planned| planned.state == State::Cached));
    assert_eq!(fixture.run(&graph(1)).await, old);
    assert_eq!(fixture.gc(&["--yes"]).err.lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_current_version_was_made_from_stays() {
    let fixture = Fixture::new();
    fixture.run(&graph(1)).await;
    let options = Options { select: vec!["prompts".into()], ..Options::default() };
    run(&graph(2), &fixture.store, &options).await.unwrap();
    // The pointer to prompts moved; pairs is still made from the old ones.
    let said = fixture.gc(&[]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", "nothing to remove\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_go_by_their_age_and_their_leases() {
    let fixture = Fixture::new();
    let print = fixture.run(&graph(1)).await.into_iter().next().unwrap();
    let version = fixture.names().into_iter().find(|name| name.contains(&print)).unwrap();
    let version = version.rsplit_once('/').unwrap().0.to_string();
    fixture.write("tables/responses/aaaa/part-00000.parquet", "abandoned");
    fixture.write("tables/responses/bbbb/shards/00000.json", "worked on");
    fixture.write("models/sft/cccc/checkpoints/step-00000001.json", "needed by a run");
    fixture.write(&format!("{version}/shards/00000.json"), "swept up late");
    fixture.write("tables/prompts/dddd/part-00000.parquet#1", "half");
    fixture.write("runs/y.json#1", "being written");
    fixture.write("runs/x.json#12", "half");
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::options()
        .write(true)
        .open(fixture.folder.path().join("runs/x.json#12"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let holder = |boot: &str, pid: u32| {
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
        json!({"format": 1, "work": "x", "began": "", "seconds": 30.0, "beat": 0, "keeps": ["tables/nothing/x"],
               "holder": {"host": "h", "boot": boot, "namespace": namespace.to_str().unwrap(), "pid": pid, "started": 1, "nonce": "n"}})
        .to_string()
    };
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fixture.write("leases/run-dead/00001.json", &holder(boot.trim(), pid));
    fixture.write("leases/run-elsewhere/00001.json", &holder("another", 1));
    let works = Claim::new(&fixture.store, "responses-bbbb").take().await.unwrap().unwrap();
    let needs = Claim::own(&fixture.store, "run", vec!["models/sft/cccc".into()]).take().await.unwrap().unwrap();

    let rows = fixture.gc(&["--format", "json"]).rows();
    let mut wanted = vec![
        ("attempt", "tables/responses/aaaa"),
        ("unnamed", version.as_str()),
        ("scratch", "runs/x.json#12"),
        ("scratch", "tables/prompts/dddd/part-00000.parquet#1"),
        ("lease", "leases/run-dead/00001.json"),
    ];
    assert_eq!(listed(&rows), wanted);
    // Nothing of it is a day old.
    let young =
        salmon(&["gc", "--run", fixture.folder.path().to_str().unwrap(), "--keep-days", "0", "--format", "json"]);
    assert_eq!(listed(&young.rows()), [("lease", "leases/run-dead/00001.json")]);

    works.release().await;
    needs.release().await;
    wanted.insert(0, ("attempt", "models/sft/cccc"));
    wanted.insert(2, ("attempt", "tables/responses/bbbb"));
    let rows = fixture.gc(&["--format", "json", "--yes"]).rows();
    assert_eq!(listed(&rows), wanted);
    let gone = ["aaaa", "bbbb", "cccc", "dddd", "/shards/", "#12"];
    let left = fixture.names();
    assert!(!left.iter().any(|name| gone.iter().any(|part| name.contains(part))), "{left:?}");
    let leases: Vec<&String> = left.iter().filter(|name| name.starts_with("leases/")).collect();
    assert_eq!(leases, ["leases/run-elsewhere/00001.json"]);
    assert_eq!(fixture.gc(&[]).err, "nothing to remove\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_manifest_cannot_be_read_no_version_is_removed() {
    let fixture = Fixture::new();
    fixture.run(&graph(1)).await;
    fixture.run(&graph(2)).await;
    let manifest = fixture.names().into_iter().find(|name| name.ends_with("manifest.json")).unwrap();
    let text = fs::read_to_string(fixture.folder.path().join(&manifest)).unwrap();
    for damaged in [&text[..40], &text.replace("\"format\": 1", "\"format\": 2")] {
        fixture.write(&manifest, damaged);
        fixture.write("tables/responses/aaaa/part-00000.parquet", "abandoned");
        let said = fixture.gc(&["--yes"]);
        assert_eq!(said.code, 0);
        assert!(said.err.contains("no version was removed, for one cannot be read: "), "{said:?}");
        assert!(said.err.contains(&manifest), "{said:?}");
        assert!(said.err.contains("1 abandoned attempt ("), "the rest goes on: {said:?}");
    }
    fixture.write(&manifest, &text);
    assert!(fixture.gc(&["--yes"]).err.contains("3 versions ("));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_keeps_what_it_needs_from_its_beginning_on() {
    let store = Store::open("memory://").unwrap();
    run(&graph(1), &store, &Options::default()).await.unwrap();
    run(&graph(2), &store, &Options::default()).await.unwrap();
    let versions = async |store: &Store| {
        let litter = gc::plan(store, &NOTHING_YOUNG).await.unwrap().litter;
        litter.into_iter().filter(|one| one.what == What::Version).count()
    };
    assert_eq!(versions(&store).await, 3);
    // The first configuration again, with a stage at its end that looks.
    let mut stages = graph(1).stages().to_vec();
    let (seen, looks) = (Arc::new(Mutex::new(Vec::new())), store.clone());
    let notes = Arc::clone(&seen);
    stages.push(Stage::new(
        "looks",
        vec![],
        vec![Artifact::table("evaluations")],
        Lineage::default(),
        move |job: Arc<Job>| {
            let (looks, notes) = (looks.clone(), Arc::clone(&notes));
            async move {
                // Another run's pointers, as if that one ended just now.
                run(&graph(2), &looks, &Options::default()).await?;
                let found = gc::plan(&looks, &NOTHING_YOUNG).await?.litter.len();
                notes.lock().unwrap().push(found);
                let rows = arrow::array::RecordBatch::new_empty(salmon::table::evaluations().schema());
                job.write_table("evaluations", crate::store_common::stream(vec![rows])).await.map(drop)
            }
        },
    ));
    run(&Graph::new(stages).unwrap(), &store, &Options::default()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [0]);
}

#[derive(Debug)]
struct Watcher(tokio::sync::mpsc::UnboundedSender<String>);

impl Progress for Watcher {
    fn cached(&self, _: &str) {}
    fn started(&self, stage: &str, _: &str) {
        self.0.send(format!("{stage} started")).unwrap();
    }
    fn waiting(&self, stage: &str, holder: &str) {
        self.0.send(format!("{stage} waits for {holder}")).unwrap();
    }
    fn advanced(&self, _: &str, _: u64, _: Option<u64>, _: &str) {}
    fn finished(&self, _: &str, _: u64, _: f64) {}
    fn ended(&self, _: &str) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_begins_waits_for_a_removal_and_a_second_removal_is_refused() {
    let store = Store::open("memory://").unwrap();
    let removing = gc::begin(&store).await.unwrap();
    let refused = gc::begin(&store).await.unwrap_err().to_string();
    assert!(refused.contains("salmon gc runs here already (process "), "{refused}");
    let (send, mut said) = tokio::sync::mpsc::unbounded_channel();
    let begins = store.clone();
    let runs = tokio::spawn(async move {
        salmon::stage::run(&graph(1), &begins, &Options::default(), Arc::new(Watcher(send)), &Stop::new()).await
    });
    assert!(said.recv().await.unwrap().starts_with("run waits for salmon gc, process "));
    removing.release().await;
    assert_eq!(said.recv().await.unwrap(), "prompts started");
    runs.await.unwrap().unwrap();
}

#[test]
fn ages_have_a_unit() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().to_str().unwrap();
    fs::write(folder.path().join("config.toml"), "").unwrap();
    for age in ["5x", "d", "-1d", "1.5h", "", "99999999999999999999d", "99999999999999999d"] {
        let said = salmon(&["gc", "--run", run, &format!("--older-than={age}")]).failed(2);
        assert!(said.contains("--older-than"), "{age}: {said}");
    }
    for age in ["0", "90s", "30m", "12h", "2d"] {
        assert_eq!(salmon(&["gc", "--run", run, "--older-than", age]).err, "nothing to remove\n");
    }
}

#[test]
fn removals_beside_a_run_disturb_nothing() {
    let place = Place::new(POLICIES);
    let mut runner = place.command(&[]).stderr(Stdio::null()).spawn().unwrap();
    let (mut removals, url) = (0, place.run().display().to_string());
    let status = loop {
        if let Some(status) = runner.try_wait().unwrap() {
            break status;
        }
        if place.run().join("config.toml").exists() {
            let ran = salmon(&["gc", "--run", &url, "--keep-days", "0", "--older-than", "0s", "--yes"]);
            assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
            removals += 1;
        }
    };
    assert!(status.success() && removals > 3, "{status:?} {removals}");
    assert_same(&place.contents(), &whole().contents(), "beside removals");
}

/// Enough of S3 for `salmon gc`: an empty bucket but for one object, three uploads, and a note of what was asked.
fn s3(asked: Arc<Mutex<Vec<String>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0u8; 8192]);
            let head = loop {
                let n = connection.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..n]);
                let end = request.windows(4).position(|w| w == b"\r\n\r\n");
                if let Some(end) = end {
                    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
                    let length =
                        head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
                    if request.len() >= end + 4 + length.unwrap_or(0) {
                        break String::from_utf8_lossy(&request[..end]).into_owned();
                    }
                }
                if n == 0 {
                    break String::new();
                }
            };
            let line = head.lines().next().unwrap_or_default().to_string();
            let signed = head.to_lowercase().contains("authorization: aws4-hmac-sha256 credential=akiakeykey/");
            let body = if line.starts_with("GET") && line.contains("uploads=") {
                let upload = |key: &str, id: &str, at: &str| {
                    format!(
                        "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiator><ID>x</ID></Initiator><Initiated>{at}</Initiated></Upload>"
                    )
                };
                let second = line.contains("key-marker=m");
                let (more, uploads) = if second {
                    ("false", upload("team/run-neighbour/x", "third", "2020-01-01T00:00:00.000Z"))
                } else {
                    let fresh = upload("team/run/tables/b/part", "second", "2200-01-01T00:00:00.000Z");
                    (
                        "true",
                        upload("team/run/models/sft/a &amp; b/model.safetensors", "first", "2020-01-01T00:00:00.000Z")
                            + &fresh,
                    )
                };
                format!(
                    "<?xml version=\"1.0\"?><ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                         <Bucket>bucket</Bucket><NextKeyMarker>m</NextKeyMarker><NextUploadIdMarker>n</NextUploadIdMarker>\
                         <IsTruncated>{more}</IsTruncated>{uploads}</ListMultipartUploadsResult>"
                )
            } else if line.starts_with("GET") && line.contains("list-type=2") {
                let one = "<Contents><Key>team/run/config.toml</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified><ETag>x</ETag><Size>1</Size></Contents>";
                let whole = line.contains("prefix=team%2Frun%2F&") || line.contains("prefix=team%2Frun%2F ");
                format!(
                    "<ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>",
                    if whole { one } else { "" }
                )
            } else if line.starts_with("POST") {
                "<DeleteResult></DeleteResult>".to_string()
            } else {
                String::new()
            };
            asked.lock().unwrap().push(format!("{line} signed={signed}"));
            let status = if line.starts_with("DELETE") { "204 No Content" } else { "200 OK" };
            let _ = write!(
                connection,
                "HTTP/1.1 {status}\r\netag: \"x\"\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    endpoint
}

#[test]
fn multipart_uploads_that_never_ended_are_aborted() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let endpoint = s3(Arc::clone(&asked));
    let gc = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_salmon"))
            .args(["gc", "--run", "s3://bucket/team/run", "--format", "json"])
            .args(more)
            .env("AWS_ENDPOINT_URL", &endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "AKIAKEYKEY")
            .env("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
            .env("AWS_REGION", "eu-central-1")
            .env_remove("AWS_SESSION_TOKEN")
            .env_remove("SALMON_LOG")
            .current_dir(Path::new(env!("CARGO_TARGET_TMPDIR")))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?} {:?}", asked.lock().unwrap());
        serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap()
    };
    let wanted = [("upload", "models/sft/a & b/model.safetensors")];
    assert_eq!(listed(&gc(&[])), wanted);
    let deletes = || {
        asked
            .lock()
            .unwrap()
            .iter()
            .filter(|line| line.starts_with("DELETE") && line.contains("uploadId"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(deletes(), [] as [String; 0]);
    assert!(
        asked.lock().unwrap().iter().filter(|line| line.contains("uploads=")).all(|line| line.contains("signed=true"))
    );
    assert_eq!(listed(&gc(&["--yes"])), wanted);
    let deletes = deletes();
    assert_eq!(deletes.len(), 1, "{deletes:?}");
    assert!(
        deletes[0].contains("/bucket/team/run/models/sft/a%20%26%20b/model.safetensors?uploadId=first"),
        "{deletes:?}"
    );
}
