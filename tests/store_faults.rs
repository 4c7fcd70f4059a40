//! What can go wrong with a store, in one clear line each.

use std::io::{Read, Write};
use std::sync::Arc;

use salmon::error::Kind;
use salmon::stage::{Graph, Job, Options, Stage, plan};
use salmon::store::{Artifact, Lineage, Manifest, Store, Version, check_name};

use crate::store_common::{CHILD, child, metrics, run, stage, stream};

/// A run on disk with metrics and a stage that reads them.
struct Fixture {
    folder: tempfile::TempDir,
    store: Store,
    graph: Graph,
    version: Version,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let makes = stage("sft", vec![], vec![Artifact::table("metrics")], Lineage::default());
        let reads = Stage::new(
            "report",
            vec![Artifact::table("metrics")],
            vec![Artifact::table("evaluations")],
            Lineage::default(),
            |job: Arc<Job>| async move {
                let ctx = datafusion::prelude::SessionContext::new();
                job.bind(&ctx)?;
                let sql = "select 'sft' what, cast(null as text) principle, cast(null as text) subset, name metric, value, step n from metrics order by step";
                let rows = ctx.sql(sql).await?.execute_stream().await?;
                job.write_table("evaluations", rows).await.map(drop)
            },
        );
        let made = run(&Graph::new(vec![makes.clone()]).unwrap(), &store, &Options::default()).await.unwrap();
        let version = Version::new(Artifact::table("metrics"), &made[0].fingerprint).unwrap();
        Fixture { folder, store, graph: Graph::new(vec![makes, reads]).unwrap(), version }
    }

    fn edit(&self, file: &str, change: impl Fn(&mut Vec<u8>)) {
        let path = self.folder.path().join(self.version.key(file));
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    /// Runs everything and gives the error without the temporary folder.
    async fn error(&self) -> String {
        let error = run(&self.graph, &self.store, &Options::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Store, "{error}");
        let text = error.to_string().replace(self.folder.path().to_str().unwrap(), "RUN");
        assert!(!text.contains('\n'));
        text.replace(self.version.fingerprint(), "PRINT")
    }
}

#[tokio::test]
async fn damaged_manifests() {
    let fixture = Fixture::new().await;
    let key = "RUN/tables/metrics/PRINT/manifest.json";
    let original = std::fs::read(fixture.folder.path().join(fixture.version.key("manifest.json"))).unwrap();
    let restore = || fixture.edit("manifest.json", |bytes| *bytes = original.clone());

    fixture.edit("manifest.json", |bytes| bytes.truncate(200));
    let error = fixture.error().await;
    assert!(error.starts_with(&format!("{key}: is damaged (EOF while parsing")), "{error}");
    assert!(error.ends_with("delete it and run again"), "{error}");
    restore();
    fixture.edit("manifest.json", |bytes| bytes.clear());
    assert!(fixture.error().await.contains("is damaged (EOF"));
    restore();
    fixture.edit("manifest.json", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replace("\"rows\": 10", "\"rows\": 11").into_bytes();
    });
    assert_eq!(
        fixture.error().await,
        format!("{key}: is damaged (its checksum does not match); delete it and run again")
    );
    restore();
    fixture.edit("manifest.json", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replace("\"format\": 1", "\"format\": 2").into_bytes();
    });
    assert_eq!(
        fixture.error().await,
        format!("{key}: was written by a newer salmon (format 2, this one reads up to 1); update salmon")
    );
    // A manifest copied to another version's place.
    restore();
    let other = Version::new(Artifact::table("metrics"), "other").unwrap();
    fixture.store.put(&other.key("manifest.json"), original.clone()).await.unwrap();
    let error = Manifest::read(&fixture.store, &other).await.unwrap_err().to_string();
    assert!(error.contains("is damaged (it describes another version)"), "{error}");
    // The advice works.
    fixture.edit("manifest.json", |bytes| bytes.truncate(200));
    fixture.store.delete(&fixture.version.key("manifest.json")).await.unwrap();
    run(&fixture.graph, &fixture.store, &Options::default()).await.unwrap();
}

#[tokio::test]
async fn damaged_parts() {
    let fixture = Fixture::new().await;
    let key = "RUN/tables/metrics/PRINT/part-00000.parquet";
    let original = std::fs::read(fixture.folder.path().join(fixture.version.key("part-00000.parquet"))).unwrap();
    let restore = || fixture.edit("part-00000.parquet", |bytes| *bytes = original.clone());

    fixture.edit("part-00000.parquet", |bytes| bytes.truncate(500));
    assert_eq!(
        fixture.error().await,
        format!("{key}: has 500 bytes, but its manifest says {}; run its stage again with --force", original.len())
    );
    restore();
    // The same size: the checksum finds it, in the footer as in the values.
    for at in [original.len() - 30, 60] {
        fixture.edit("part-00000.parquet", |bytes| bytes[at..at + 8].fill(0xff));
        let manifest = Manifest::read(&fixture.store, &fixture.version).await.unwrap().unwrap();
        let error = manifest.verify(&fixture.store).await.unwrap_err().to_string();
        assert!(error.contains("part-00000.parquet: checksum mismatch: the manifest says"), "{error}");
        let error = fixture.error().await;
        assert!(error.starts_with(&format!("{key}: checksum mismatch")), "{error}");
        restore();
    }
    fixture.store.delete(&fixture.version.key("part-00000.parquet")).await.unwrap();
    assert_eq!(
        fixture.error().await,
        format!("{key}: is missing although a manifest names it; run its stage again with --force")
    );
    // The advice works.
    let force = Options { force: vec!["sft".into()], ..Options::default() };
    run(&fixture.graph, &fixture.store, &force).await.unwrap();
    let manifest = Manifest::read(&fixture.store, &fixture.version).await.unwrap().unwrap();
    manifest.verify(&fixture.store).await.unwrap();
}

#[tokio::test]
async fn a_failed_attempt_is_invisible() {
    let store = Store::open("memory://").unwrap();
    let fails = |fails: bool| {
        let act = move |job: Arc<Job>| async move {
            let mut rows = vec![Ok(metrics(0..2000))];
            if fails {
                rows.push(Err(salmon::Error::data("row 2001", "is bad")));
            }
            job.write_table("metrics", futures::stream::iter(rows)).await?;
            job.write_table("pairs", stream(vec![])).await.map(drop)
        };
        let outputs = vec![Artifact::table("metrics"), Artifact::table("pairs")];
        Graph::new(vec![Stage::new("s", vec![], outputs, Lineage::default(), act)]).unwrap()
    };
    let error = run(&fails(true), &store, &Options::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "row 2001: is bad");
    let ctx =
        salmon::catalog::Catalog::of(vec![(None, store.clone())], &Default::default()).unwrap().session().unwrap();
    assert_eq!(ctx.sql("select * from metrics").await.unwrap().count().await.unwrap(), 0);
    // One output committed, the other not: the stage is not done, and the next attempt completes it.
    run(&fails(false), &store, &Options::default()).await.unwrap();
    let pairs =
        store.list("tables/pairs").await.unwrap().into_iter().find(|e| e.key.ends_with("manifest.json")).unwrap();
    store.delete(&pairs.key).await.unwrap();
    let planned = plan(&fails(false), &store, &Options::default()).await.unwrap();
    assert_eq!(planned[0].state, salmon::stage::State::Run("its last attempt did not finish".into()));
    run(&fails(false), &store, &Options::default()).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_committed() {
    let graph = Graph::new(vec![Stage::new(
        "s",
        vec![],
        vec![Artifact::table("metrics")],
        Lineage::default(),
        |job: Arc<Job>| async move {
            let rows = (0..60).map(|n| metrics(n * 1000..(n + 1) * 1000)).collect();
            job.write_table("metrics", stream(rows)).await.map(drop)
        },
    )])
    .unwrap();
    if let Ok(folder) = std::env::var(CHILD) {
        // Files of this process may have one megabyte: a disk that fills up in the middle of a part.
        let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
        // SAFETY: both calls change only this process, which has no other threads that write files.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
        }
        let error = run(&graph, &Store::open(&folder).unwrap(), &Options::default()).await.unwrap_err();
        eprintln!("ERROR {}|{error}", error.kind().exit_code());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = child("store_faults::a_full_disk_leaves_nothing_half_committed", folder.path(), &[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("ERROR ")).unwrap_or_else(|| panic!("{output:?}"));
    assert!(line.starts_with(&format!("5|{}/tables/metrics/", folder.path().display())), "{line}");
    assert!(
        line.ends_with(
            "writing failed: the file-size limit (ulimit -f) is reached; raise it and run the same command again"
        ),
        "{line}"
    );
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    assert!(store.list("").await.unwrap().is_empty(), "no part, no manifest, no pointer");
    run(&graph, &store, &Options::default()).await.unwrap();
}

#[test]
fn names_that_could_leave_the_run_are_refused() {
    for good in ["prompts", "policy:not Concise", "größe-界_1.2", "a b"] {
        check_name("name", good).unwrap();
    }
    let long = "x".repeat(121);
    for bad in
        ["", ".", "..", ".hidden", "../x", "a/b", "a\\b", "a\nb", "a\0", " a", "a ", "a  b", "a#1", "100%", &long]
    {
        let error = check_name("set", bad).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        // The line is printed with its runs of spaces collapsed.
        let shown = format!("set {bad:?}: ").replace("  ", " ");
        assert!(error.to_string().starts_with(&shown), "{error}");
        assert!(Version::new(Artifact::model(bad), "abc").is_err());
    }
}

#[tokio::test]
async fn unusual_names_live_on_disk_and_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["memory:///läufe", folder.path().to_str().unwrap()] {
        let store = Store::open(url).unwrap();
        let name = "policy: not Größe 界";
        let train = Stage::new(
            name,
            vec![],
            vec![Artifact::model(name)],
            Lineage::default(),
            move |job: Arc<Job>| async move {
                let scratch = job.scratch()?;
                std::fs::write(scratch.path().join("w 界.bin"), "x").unwrap();
                job.checkpoints(name)?.save(1, scratch.path()).await?;
                job.write_model(name, scratch.path()).await
            },
        );
        let graph = Graph::new(vec![train]).unwrap();
        run(&graph, &store, &Options::default()).await.unwrap();
        let again = run(&graph, &store, &Options::default()).await.unwrap();
        assert_eq!(again[0].state, salmon::stage::State::Cached);
    }
}

/// The server refuses and repeats every credential it was sent or could know; none may be shown.
#[tokio::test]
async fn secrets_are_in_no_error_and_no_debug_output() {
    if std::env::var(CHILD).is_ok() {
        let store = Store::open("s3://bucket/team/run").unwrap();
        let errors = [
            store.get("a").await.unwrap_err(),
            store.put("a", "x").await.unwrap_err(),
            store.list("a").await.unwrap_err(),
            store.put_if_absent("a", "x").await.map(drop).unwrap_err(),
        ];
        for error in errors {
            eprintln!("ERROR {error} {error:?}");
        }
        let ctx = datafusion::prelude::SessionContext::new_with_config(
            datafusion::prelude::SessionConfig::new().with_information_schema(true),
        );
        salmon::store::bind(&ctx, &store, &salmon::table::metrics(), &[]).unwrap();
        let settings = ctx.sql("select * from information_schema.df_settings").await.unwrap().collect().await.unwrap();
        eprintln!("{settings:?} {store:?} {store}");
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0u8; 8192];
            let _ = connection.read(&mut request);
            let body = "<Error><Code>AccessDenied</Code><AWSAccessKeyId>AKIAKEYKEYKEY</AWSAccessKeyId>\
                        <Secret>hunter2hunter2</Secret><Token>tokentokentoken</Token></Error>";
            let _ = write!(
                connection,
                "HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let environment = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "AKIAKEYKEYKEY"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2hunter2"),
        ("AWS_SESSION_TOKEN", "tokentokentoken"),
    ];
    let output = child("store_faults::secrets_are_in_no_error_and_no_debug_output", folder.path(), &environment);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    for secret in ["AKIAKEYKEYKEY", "hunter2hunter2", "tokentokentoken"] {
        assert!(!text.contains(secret), "{text}");
    }
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("ERROR ")).collect();
    assert_eq!(errors.len(), 4, "{text}");
    assert!(errors.iter().all(|e| e.contains("s3://bucket/team/run/a: ") && e.contains("no permission")), "{text}");
}
