//! Killed attempts: invisible, and resumed to the same bytes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use salmon::Error;
use salmon::error::Kind;
use salmon::stage::{Graph, Job, Options, Silent, Stage, State, Stop, plan};
use salmon::store::{Artifact, Checkpoints, Lineage, Manifest, Shards, Store, Version};
use salmon::table;

use crate::store_common::{CHILD, child, contents, metrics, run, stream, version};

const SHARDS: usize = 5;

/// A stage that makes metrics in shards and a model in steps, and dies as `fate` says.
fn pipeline(fate: Option<(&'static str, usize)>) -> Graph {
    let dies = move |what: &str, at: usize| {
        if fate == Some((what, at)) {
            // SAFETY: sends a signal to this very process, which is what the test is about.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    };
    let sharded = Stage::new(
        "shards",
        vec![],
        vec![Artifact::table("metrics")],
        Lineage::default(),
        move |job: Arc<Job>| async move {
            let shards = job.shards("metrics", SHARDS).await?;
            for shard in shards.missing() {
                job.stop().check("stage shards")?;
                let start = 300 * shard as i64;
                let rows = futures::StreamExt::map(
                    stream(vec![metrics(start..start + 170), metrics(start + 170..start + 300)]),
                    {
                        let mut batch = 0;
                        move |rows| {
                            batch += 1;
                            if batch == 2 {
                                dies("shard", shard);
                            }
                            rows
                        }
                    },
                );
                shards.write(shard, rows).await?;
            }
            dies("commit", 0);
            job.write_shards("metrics", shards).await
        },
    );
    let trained = Stage::new(
        "train",
        vec![Artifact::table("metrics")],
        vec![Artifact::model("sft")],
        Lineage::default(),
        move |job: Arc<Job>| async move {
            let scratch = job.scratch()?;
            let checkpoints = job.checkpoints("sft")?;
            let weights = scratch.path().join("weights");
            let mut step = checkpoints.restore(scratch.path()).await?.unwrap_or(0);
            let rows = job.rows("metrics")?;
            if step == 0 {
                std::fs::write(&weights, rows.to_le_bytes()).unwrap();
            }
            while step < 7 {
                job.stop().check("stage train")?;
                step += 1;
                let before = std::fs::read(&weights).unwrap();
                std::fs::write(&weights, blake3::hash(&before).as_bytes()).unwrap();
                dies("step", step as usize);
                checkpoints.save(step, scratch.path()).await?;
            }
            job.write_model("sft", scratch.path()).await
        },
    );
    Graph::new(vec![trained, sharded]).unwrap()
}

fn path(folder: &Path) -> &str {
    folder.to_str().unwrap()
}

#[tokio::test]
async fn kills_anywhere_resume_to_the_same_bytes() {
    const FATES: [(&str, usize); 5] = [("shard", 0), ("shard", 3), ("commit", 0), ("step", 1), ("step", 6)];
    if let Ok(folder) = std::env::var(CHILD) {
        let fate: usize = std::env::var("FATE").unwrap().parse().unwrap();
        let store = Store::open(&folder).unwrap();
        run(&pipeline(Some(FATES[fate])), &store, &Options::default()).await.unwrap();
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let whole = Store::open(path(&scratch.path().join("whole"))).unwrap();
    run(&pipeline(None), &whole, &Options::default()).await.unwrap();
    let expected = contents(&whole, "").await;

    for (fate, (what, at)) in FATES.iter().enumerate() {
        let folder = scratch.path().join(format!("killed-{fate}"));
        let output =
            child("store_resume::kills_anywhere_resume_to_the_same_bytes", &folder, &[("FATE", &fate.to_string())]);
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(output.status.signal(), Some(libc::SIGKILL), "{output:?}");
        let store = Store::open(path(&folder)).unwrap();

        // What was not committed is invisible.
        let ctx =
            salmon::catalog::Catalog::of(vec![(None, store.clone())], &Default::default()).unwrap().session().unwrap();
        let rows = ctx.sql("select * from metrics").await.unwrap().count().await.unwrap();
        assert_eq!(rows, if *what == "step" { 1500 } else { 0 }, "{what} {at}");

        let planned = run(&pipeline(None), &store, &Options::default()).await.unwrap();
        let cached = planned.iter().filter(|p| p.state == State::Cached).count();
        assert_eq!(cached, usize::from(*what == "step"), "{what} {at}");
        // History differs: it tells of processes.
        let found = contents(&store, "").await;
        let kept = |c: &std::collections::BTreeMap<String, Vec<u8>>| {
            c.iter()
                .filter(|(key, _)| !key.starts_with("runs/"))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect::<Vec<_>>()
        };
        assert!(kept(&found) == kept(&expected), "{what} {at}: {:?}", found.keys());
    }
}

#[tokio::test]
async fn finished_shards_are_kept_and_damaged_ones_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(path(folder.path())).unwrap();
    let version = version("metrics");
    let open = |count| Shards::open(&store, &version, &METRICS, count);
    static METRICS: std::sync::LazyLock<table::Table> = std::sync::LazyLock::new(table::metrics);
    let shards = open(4).await.unwrap();
    for shard in [2, 0, 1] {
        shards.write(shard, stream(vec![metrics(0..10)])).await.unwrap();
    }
    assert_eq!(shards.missing(), [3]);
    assert_eq!(shards.rows(), 30);
    drop(shards);
    assert_eq!(open(4).await.unwrap().missing(), [3]);
    // Another cut of the driver table shares nothing.
    assert_eq!(open(5).await.unwrap().missing(), [0, 1, 2, 3, 4]);

    let edit = |file: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let path = folder.path().join(version.key(file));
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    };
    edit("part-00000.parquet", &|bytes| bytes[100] ^= 1);
    assert_eq!(open(4).await.unwrap().missing(), [0, 3]);
    edit("part-00001.parquet", &|bytes| bytes.truncate(100));
    assert_eq!(open(4).await.unwrap().missing(), [0, 1, 3]);
    edit("shards/00002.json", &|bytes| bytes.truncate(30));
    assert_eq!(open(4).await.unwrap().missing(), [0, 1, 2, 3]);

    // Nothing is committed with a shard missing.
    let error = open(4).await.unwrap().finish().await.unwrap_err();
    assert!(error.to_string().contains("shard 0 of 4 was not written"), "{error}");
    // A driver table without rows makes a table without rows, which still has its columns.
    let files = open(0).await.unwrap().finish().await.unwrap();
    assert_eq!((files.len(), files[0].rows), (1, 0));
}

/// `rows` with the number of their shard.
fn of_shards(numbers: &[i64], rows: RecordBatch) -> RecordBatch {
    let mut columns = vec![("shard", Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef)];
    let schema = rows.schema();
    columns.extend(schema.fields().iter().map(|field| field.name().as_str()).zip(rows.columns().iter().cloned()));
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test]
async fn a_stream_of_several_shards_commits_each_when_its_last_row_has_passed() {
    let table = table::metrics();
    let store = || Store::open("memory://").unwrap();
    let (alone, together, version) = (store(), store(), version("metrics"));
    let shards = Shards::open(&alone, &version, &table, 5).await.unwrap();
    for (shard, rows) in [(1, 0..0), (2, 0..7), (3, 7..9), (4, 9..9)] {
        shards.write(shard, stream(vec![metrics(rows)])).await.unwrap();
    }
    // Shards 1 and 4 have no rows; 2 ends within a batch.
    let (first, second) = (of_shards(&[2; 5], metrics(0..5)), of_shards(&[2, 2, 3, 3], metrics(5..9)));
    let shards = Shards::open(&together, &version, &table, 5).await.unwrap();
    let committed = AtomicUsize::new(0);
    let count = || {
        committed.fetch_add(1, Ordering::Relaxed);
    };
    shards.write_all(1..=4, stream(vec![first.clone(), second.clone()]), count).await.unwrap();
    assert_eq!((committed.load(Ordering::Relaxed), shards.missing()), (4, vec![0]));
    assert!(contents(&together, "").await == contents(&alone, "").await);

    // What fails later takes nothing back, and what is not whole is not there.
    let store = store();
    let shards = Shards::open(&store, &version, &table, 5).await.unwrap();
    let failing = futures::stream::iter([Ok(first.clone()), Ok(second.clone()), Err(Error::data("rows", "end here"))]);
    assert!(shards.write_all(1..=4, failing, || ()).await.unwrap_err().to_string().contains("end here"));
    assert_eq!(shards.missing(), [0, 3, 4]);
    for (what, batches) in [("order", vec![second, first.clone()]), ("range", vec![first])] {
        let range = if what == "range" { 3..=4 } else { 1..=4 };
        let error = shards.write_all(range, stream(batches), || ()).await.unwrap_err();
        assert!(error.to_string().contains("a row of shard 2 came among those of shards 3 to 4"), "{what}: {error}");
    }
}

#[tokio::test]
async fn the_last_two_checkpoints_stay_and_a_damaged_one_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(path(folder.path())).unwrap();
    let version = Version::new(Artifact::model("sft"), "feed").unwrap();
    let checkpoints = Checkpoints::new(&store, &version);
    let scratch = || tempfile::tempdir().unwrap();
    assert_eq!(checkpoints.restore(scratch().path()).await.unwrap(), None);
    for step in [5u64, 10, 15] {
        let from = scratch();
        std::fs::create_dir(from.path().join("optimizer")).unwrap();
        std::fs::write(from.path().join("weights"), format!("w{step}")).unwrap();
        std::fs::write(from.path().join("optimizer/m"), vec![step as u8; 3_000_000]).unwrap();
        checkpoints.save(step, from.path()).await.unwrap();
    }
    assert_eq!(checkpoints.steps().await.unwrap(), [10, 15]);
    let restored = async || {
        let into = scratch();
        let step = checkpoints.restore(into.path()).await?;
        let read = |name: &str| std::fs::read(into.path().join(name)).ok();
        Ok::<_, salmon::Error>((step, read("weights"), read("optimizer/m").map(|m| m.len())))
    };
    assert_eq!(restored().await.unwrap(), (Some(15), Some(b"w15".to_vec()), Some(3_000_000)));
    // An attempt that died while it saved step 20 left files but no marker.
    store.put(&version.key("checkpoints/step-00000020/weights"), "half").await.unwrap();
    assert_eq!(restored().await.unwrap().0, Some(15));
    store.put(&version.key("checkpoints/step-00000015/optimizer/m"), "damaged").await.unwrap();
    assert_eq!(restored().await.unwrap(), (Some(10), Some(b"w10".to_vec()), Some(3_000_000)));
    // A scratch folder that cannot be written is an error, not a reason to start over.
    let gone = folder.path().join("file");
    std::fs::write(&gone, "").unwrap();
    let error = checkpoints.restore(&gone).await.unwrap_err();
    assert!(error.to_string().contains("a part of the path is a file"), "{error}");
}

#[tokio::test]
async fn a_stop_ends_at_a_commit_and_the_next_run_goes_on() {
    let written = Arc::new(AtomicUsize::new(0));
    let stop = Stop::new();
    let graph = |stop: Option<Stop>| {
        let written = Arc::clone(&written);
        Graph::new(vec![Stage::new(
            "shards",
            vec![],
            vec![Artifact::table("metrics")],
            Lineage::default(),
            move |job: Arc<Job>| {
                let (written, stop) = (Arc::clone(&written), stop.clone());
                async move {
                    let shards = job.shards("metrics", SHARDS).await?;
                    for shard in shards.missing() {
                        job.stop().check("stage shards")?;
                        shards.write(shard, stream(vec![metrics(0..10)])).await?;
                        if written.fetch_add(1, Ordering::SeqCst) == 1 {
                            stop.iter().for_each(Stop::ask);
                        }
                    }
                    job.write_shards("metrics", shards).await
                }
            },
        )])
        .unwrap()
    };
    let store = Store::open("memory://").unwrap();
    let stopping = graph(Some(stop.clone()));
    let error = salmon::stage::run(&stopping, &store, &Options::default(), Arc::new(Silent), &stop).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert_eq!(error.kind().exit_code(), 75);
    assert_eq!(written.load(Ordering::SeqCst), 2);
    let planned = plan(&graph(None), &store, &Options::default()).await.unwrap();
    assert_eq!(planned[0].state, State::Run("no version yet".into()));
    run(&graph(None), &store, &Options::default()).await.unwrap();
    assert_eq!(written.load(Ordering::SeqCst), SHARDS, "two shards were not made again");
}

#[tokio::test]
async fn a_stop_ends_a_table_that_never_ends() {
    let stop = Stop::new();
    let asks = stop.clone();
    let endless =
        Stage::new("endless", vec![], vec![Artifact::table("metrics")], Lineage::default(), move |job: Arc<Job>| {
            let asks = asks.clone();
            async move {
                let first = futures::stream::once(async { Ok::<_, salmon::Error>(metrics(0..10)) });
                let rest = futures::stream::once(async move {
                    asks.ask();
                    std::future::pending().await
                });
                let rows = Box::pin(futures::StreamExt::chain(first, rest));
                job.write_table("metrics", rows).await.map(drop)
            }
        });
    let store = Store::open("memory://").unwrap();
    let graph = Graph::new(vec![endless]).unwrap();
    let error = salmon::stage::run(&graph, &store, &Options::default(), Arc::new(Silent), &stop).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert!(store.list("").await.unwrap().is_empty());
}

#[tokio::test]
async fn signals_ask_first_and_end_second() {
    if let Ok(folder) = std::env::var(CHILD) {
        let stop = Stop::new();
        stop.on_signals().unwrap();
        // SAFETY: sends a signal to this very process, which handles it.
        let signal = |number| unsafe { libc::kill(libc::getpid(), number) };
        signal(libc::SIGTERM);
        stop.wait().await;
        std::fs::write(Path::new(&folder).join("asked"), "").unwrap();
        signal(libc::SIGINT);
        std::future::pending::<()>().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = child("store_resume::signals_ask_first_and_end_second", folder.path(), &[]);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(folder.path().join("asked").exists());
}

#[tokio::test]
async fn a_stop_that_reaches_no_commit_ends_after_eight_seconds() {
    if std::env::var(CHILD).is_ok() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
        Stop::new().on_signals().unwrap();
        // SAFETY: sends a signal to this very process, which handles it.
        unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
        // A step that takes long, on the runtime's only thread.
        std::thread::sleep(std::time::Duration::from_secs(60));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let began = std::time::Instant::now();
    let output = child("store_resume::a_stop_that_reaches_no_commit_ends_after_eight_seconds", folder.path(), &[]);
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(seconds > salmon::stage::PATIENCE.as_secs_f64() && seconds < 10.0, "{seconds}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let said: Vec<&str> =
        stderr.lines().filter(|line| line.contains("run the same command again to continue")).collect();
    assert_eq!(said.len(), 1, "{stderr}");
    assert!(said[0].contains("no commit was reached within 8 s"), "{stderr}");
}

#[test]
fn scratch_of_a_killed_process_is_removed_by_the_next() {
    use salmon::stage::Scratch;
    if std::env::var(CHILD).is_ok() {
        let scratch = Scratch::new().unwrap();
        std::fs::write(scratch.path().join("large"), "x").unwrap();
        println!("SCRATCH {}", scratch.path().display());
        // SAFETY: ends this very process as a kill would.
        unsafe { libc::raise(libc::SIGKILL) };
    }
    let temporary = tempfile::tempdir().unwrap();
    let killed = || {
        let variables = [("TMPDIR", temporary.path().to_str().unwrap())];
        let name = "store_resume::scratch_of_a_killed_process_is_removed_by_the_next";
        let output = child(name, temporary.path(), &variables);
        let stdout = String::from_utf8(output.stdout).unwrap();
        let line = stdout.lines().find_map(|line| line.split_once("SCRATCH ")).unwrap_or_else(|| panic!("{stdout}"));
        std::path::PathBuf::from(line.1)
    };
    let first = killed();
    assert!(first.join("large").exists());
    let second = killed();
    assert!(!first.exists() && second.join("large").exists());
}

#[tokio::test]
async fn what_a_killed_write_left_is_removed_by_who_makes_the_version() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    let graph = pipeline(None);
    let planned = plan(&graph, &store, &Options::default()).await.unwrap();
    let print = &planned.iter().find(|stage| stage.stage == "shards").unwrap().fingerprint;
    let write = |key: String| {
        let path = folder.path().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "half").unwrap();
        path
    };
    let ours =
        ["part-00001.parquet#1", "shards/00001.json#2"].map(|name| write(format!("tables/metrics/{print}/{name}")));
    // Somebody else may be writing this one.
    let other = write("tables/metrics/another/part-00001.parquet#1".into());
    run(&graph, &store, &Options::default()).await.unwrap();
    assert_eq!(ours.map(|path| path.exists()), [false, false]);
    assert!(other.exists());
}

#[tokio::test]
async fn two_attempts_at_once_commit_one_version() {
    let store = Store::open("memory://").unwrap();
    let manifest = |files| Manifest::new(&version("metrics"), files, None, Lineage::default(), Default::default());
    let file = |hash: &str| salmon::store::FileEntry {
        path: "part-00000.parquet".into(),
        size: 1,
        blake3: hash.into(),
        rows: 1,
    };
    manifest(vec![file("aa")]).publish(&store).await.unwrap();
    manifest(vec![file("aa")]).publish(&store).await.unwrap();
    let error = manifest(vec![file("bb")]).publish(&store).await.unwrap_err();
    assert!(error.to_string().contains("another process committed this version with other bytes"), "{error}");
}
