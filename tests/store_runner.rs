//! What runs, what does not, and why.

use std::io::Write;
use std::sync::{Arc, Mutex};

use salmon::cli::progress::Lines;
use salmon::stage::{Graph, Job, Options, Planned, Progress, Stage, State, Stop, fingerprint, plan};
use salmon::store::{Artifact, Current, Lineage, Store, records};
use serde_json::json;

use crate::store_common::{metrics, run, stage, stream};

/// The recipe of the `prompts` stage, with parameters as nested JSON.
fn recipe(parameters: serde_json::Value) -> Lineage {
    Lineage {
        version: 1,
        sql: Some("select 1".into()),
        parameters: parameters.as_object().unwrap().clone(),
        seed: Some(1),
        templates: [("judge".to_string(), "Which is better?".to_string())].into(),
        ..Lineage::default()
    }
}

/// prompts -> pairs; sft and policy:one both add to metrics.
fn graph(prompts: Lineage) -> Graph {
    let table = Artifact::table;
    Graph::new(vec![
        stage("report", vec![table("metrics"), table("pairs")], vec![table("evaluations")], Lineage::default()),
        stage("pairs", vec![table("prompts")], vec![table("pairs")], Lineage::default()),
        stage("sft", vec![table("pairs")], vec![table("metrics")], Lineage::default()),
        stage("policy:one", vec![table("pairs")], vec![table("metrics"), table("rollouts")], Lineage::default()),
        stage("prompts", vec![], vec![table("prompts")], prompts),
    ])
    .unwrap()
}

fn why(planned: &[Planned]) -> Vec<(&str, &str)> {
    let state = |p: &'_ Planned| match &p.state {
        State::Cached => "cached".to_string(),
        State::Run(why) => why.clone(),
    };
    planned.iter().map(|p| (p.stage.as_str(), &*state(p).leak())).collect()
}

#[tokio::test]
async fn unchanged_stages_do_not_run_and_changed_ones_say_why() {
    let store = Store::open("memory://").unwrap();
    let all = Options::default();
    let first = graph(recipe(json!({"judge": {"temperature": 0.7, "top": [1, 2]}})));
    let planned = run(&first, &store, &all).await.unwrap();
    assert_eq!(
        planned.iter().map(|p| p.stage.as_str()).collect::<Vec<_>>(),
        ["prompts", "pairs", "sft", "policy:one", "report"]
    );
    assert!(why(&planned).iter().all(|(_, why)| *why == "no version yet"));
    let objects = store.list("").await.unwrap();
    assert_eq!(records(&store).await.unwrap().len(), 5);

    // Unchanged: nothing is written.
    let again = run(&first, &store, &all).await.unwrap();
    assert!(again.iter().all(|p| p.state == State::Cached), "{again:?}");
    assert_eq!(store.list("").await.unwrap(), objects);

    // The order of keys does not matter, values do.
    let same = graph(recipe(json!({"judge": {"top": [1, 2], "temperature": 0.7}})));
    assert!(plan(&same, &store, &all).await.unwrap().iter().all(|p| p.state == State::Cached));
    let changed = graph(recipe(json!({"judge": {"temperature": 1.0, "top": [1, 2], "new": "x"}})));
    let planned = plan(&changed, &store, &all).await.unwrap();
    assert_eq!(
        why(&planned)[0],
        ("prompts", "parameter judge.new is new (\"x\"), parameter judge.temperature 0.7 -> 1.0")
    );
    let [before, after] = [&first, &changed].map(|g| fingerprint(&g.stages()[0].recipe).unwrap());
    let expected = format!("input prompts changed ({} -> {})", &before[..8], &after[..8]);
    assert_eq!(why(&planned)[1], ("pairs", expected.as_str()));
    assert!(why(&planned)[4].1.contains("input metrics/policy:one changed ("), "{planned:?}");
    assert!(why(&planned)[4].1.contains("input metrics/sft changed ("), "{planned:?}");
    assert_eq!(store.list("").await.unwrap(), objects, "a plan writes nothing");
    run(&changed, &store, &all).await.unwrap();

    // Back again: every version is still there, only the pointers move.
    let runs = records(&store).await.unwrap().len();
    let back = run(&first, &store, &all).await.unwrap();
    assert!(back.iter().all(|p| p.state == State::Cached));
    assert_eq!(records(&store).await.unwrap().len(), runs);
    let current = Current::load(&store).await.unwrap();
    assert_eq!(current.fingerprint(&Artifact::table("prompts"), "prompts"), Some(back[0].fingerprint.as_str()));
}

#[tokio::test]
async fn every_kind_of_change_has_its_words() {
    let base = recipe(json!({"a": 1, "long": "x".repeat(100)}));
    let with = |change: &dyn Fn(&mut Lineage)| {
        let mut lineage = base.clone();
        change(&mut lineage);
        lineage
    };
    let cases: Vec<(Lineage, &str)> = vec![
        (with(&|l| l.sql = Some("select 2".into())), "sql changed"),
        (with(&|l| l.seed = Some(2)), "seed 1 -> 2"),
        (with(&|l| l.seed = None), "seed 1 -> none"),
        (with(&|l| l.version = 2), "the stage's code changed (version 1 -> 2)"),
        (
            with(&|l| {
                l.parameters.remove("a");
            }),
            "parameter a is gone",
        ),
        (
            with(&|l| {
                l.templates.insert("judge".into(), "?".into());
            }),
            "template judge changed",
        ),
        (
            with(&|l| {
                l.models.insert("base".into(), "ab".into());
            }),
            "model base is new",
        ),
        (
            with(&|l| {
                l.inputs.insert("file a.jsonl".into(), "ab".into());
                l.seed = Some(3);
            }),
            "seed 1 -> 3, input file a.jsonl is new",
        ),
    ];
    let store = Store::open("memory://").unwrap();
    run(&graph(base.clone()), &store, &Options::default()).await.unwrap();
    for (changed, expected) in cases {
        let planned = plan(&graph(changed), &store, &Options::default()).await.unwrap();
        assert_eq!(why(&planned)[0].1, expected);
    }
    // Two long values that begin alike are still told apart.
    let mut long = base.clone();
    long.parameters.insert("long".into(), json!(format!("{}y", "x".repeat(99))));
    let planned = plan(&graph(long), &store, &Options::default()).await.unwrap();
    assert!(why(&planned)[0].1.starts_with("parameter long \"xxxxxxxxxxxxxxxxxxxxxxx...#"), "{planned:?}");
}

#[tokio::test]
async fn stages_are_selected_with_what_they_need_and_forced_by_name() {
    let store = Store::open("memory://").unwrap();
    let graph = graph(recipe(json!({})));
    let options = |select: &[&str], force: &[&str]| Options {
        select: select.iter().map(|s| s.to_string()).collect(),
        force: force.iter().map(|s| s.to_string()).collect(),
        cache: None,
    };
    let planned = run(&graph, &store, &options(&["sft"], &[])).await.unwrap();
    assert_eq!(planned.iter().map(|p| p.stage.as_str()).collect::<Vec<_>>(), ["prompts", "pairs", "sft"]);

    let before = store.get(&format!("tables/pairs/{}/manifest.json", planned[1].fingerprint)).await.unwrap().unwrap();
    let forced = run(&graph, &store, &options(&["sft"], &["pairs"])).await.unwrap();
    assert_eq!(why(&forced), [("prompts", "cached"), ("pairs", "forced"), ("sft", "cached")]);
    let after = store.get(&format!("tables/pairs/{}/manifest.json", planned[1].fingerprint)).await.unwrap().unwrap();
    assert_ne!(before, after, "the manifest tells of the new attempt");

    let error = |e: salmon::Error| e.to_string();
    let unknown = plan(&graph, &store, &options(&["sfd"], &[])).await.map_err(error).unwrap_err();
    assert_eq!(unknown, "stage sfd: there is no such stage; there are prompts, pairs, sft, policy:one, report");
    let outside = plan(&graph, &store, &options(&["prompts"], &["sft"])).await.map_err(error).unwrap_err();
    assert_eq!(outside, "stage sft: is forced but not among the stages to run; name it too");
}

#[tokio::test]
async fn a_stage_that_left_the_configuration_leaves_the_tables() {
    let store = Store::open("memory://").unwrap();
    let table = Artifact::table;
    let two = ["sft", "policy:one"].map(|name| stage(name, vec![], vec![table("metrics")], Lineage::default()));
    let [one, _] = two.clone();
    let imported = stage("import:prompts", vec![], vec![table("prompts")], Lineage::default());
    run(&Graph::new(vec![imported]).unwrap(), &store, &Options::default()).await.unwrap();
    let rows = async || {
        let current = Current::load(&store).await.unwrap();
        let manifests = current.manifests(&store, &table("metrics")).await.unwrap();
        manifests.iter().map(|m| m.rows()).sum::<u64>()
    };
    run(&Graph::new(two.to_vec()).unwrap(), &store, &Options::default()).await.unwrap();
    assert_eq!(rows().await, 20);
    let reads = stage("pairs", vec![table("prompts")], vec![table("pairs")], Lineage::default());
    let planned = run(&Graph::new(vec![one, reads.clone()]).unwrap(), &store, &Options::default()).await.unwrap();
    assert_eq!(rows().await, 10);
    assert_eq!(why(&planned)[1], ("pairs", "no version yet"), "imported tables stay");
    // Without the import there is nothing to read.
    let empty = Store::open("memory://").unwrap();
    let error = plan(&Graph::new(vec![reads]).unwrap(), &empty, &Options::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stage pairs: needs table prompts, which no stage makes and the run does not have; import it first"
    );
}

#[test]
fn impossible_graphs_are_refused() {
    let make = |stages: Vec<Stage>| Graph::new(stages).unwrap_err().to_string();
    let (table, model) = (Artifact::table, Artifact::model);
    let quick =
        |name: &str, inputs: Vec<Artifact>, outputs: Vec<Artifact>| stage(name, inputs, outputs, Lineage::default());
    assert_eq!(
        make(vec![
            quick("a", vec![table("pairs")], vec![table("prompts")]),
            quick("b", vec![table("prompts")], vec![table("pairs")]),
            quick("c", vec![], vec![table("metrics")]),
        ]),
        "stages: a, b wait for each other's results"
    );
    let twice = quick("a", vec![], vec![table("pairs")]);
    assert_eq!(make(vec![twice.clone(), twice]), "stage a: is there twice; give one another name");
    assert_eq!(make(vec![quick("a", vec![], vec![])]), "stage a: makes nothing; name its outputs");
    assert_eq!(
        make(vec![quick("a", vec![], vec![model("m")]), quick("b", vec![], vec![model("m")])]),
        "model m: both stage a and stage b make it; rename one"
    );
    assert!(make(vec![quick("a/..", vec![], vec![table("pairs")])]).contains("holds '/'"));
}

#[tokio::test]
async fn a_stage_reaches_only_what_it_declares() {
    let wrong = |act: fn(Arc<Job>) -> futures::future::BoxFuture<'static, salmon::Result<()>>| {
        Graph::new(vec![Stage::new("s", vec![], vec![Artifact::table("metrics")], Lineage::default(), act)]).unwrap()
    };
    let cases = [
        (wrong(|_| Box::pin(async { Ok(()) })), "stage s: returned without writing table metrics"),
        (
            wrong(|job| Box::pin(async move { job.rows("pairs").map(drop) })),
            "stage s: table pairs is not a declared input of it",
        ),
        (
            wrong(|job| Box::pin(async move { job.write_table("pairs", stream(vec![metrics(0..1)])).await.map(drop) })),
            "stage s: table pairs is not a declared output of it",
        ),
    ];
    for (graph, expected) in cases {
        let store = Store::open("memory://").unwrap();
        assert_eq!(run(&graph, &store, &Options::default()).await.unwrap_err().to_string(), expected);
        assert!(store.list("").await.unwrap().is_empty());
    }
}

/// A driver table of two versions, cut into shards that cross them, gives what one query over all of it gives.
#[tokio::test]
async fn shards_of_a_driver_table_add_up_to_the_whole() {
    const SQL: &str =
        "select 'x' what, stage principle, name subset, 'm' metric, value, step n from metrics order by step";
    let maker = |name: &'static str, rows: std::ops::Range<i64>| {
        Stage::new(name, vec![], vec![Artifact::table("metrics")], Lineage::default(), move |job: Arc<Job>| {
            let rows = rows.clone();
            async move { job.write_table("metrics", stream(vec![metrics(rows)])).await.map(drop) }
        })
    };
    let reads = |size: Option<u64>| {
        let recipe = Lineage { seed: size, ..Lineage::default() };
        let act = move |job: Arc<Job>| async move {
            let ctx = datafusion::prelude::SessionContext::new();
            job.bind(&ctx)?;
            let Some(size) = size else {
                let rows = ctx.sql(SQL).await?.execute_stream().await?;
                return job.write_table("evaluations", rows).await.map(drop);
            };
            let shards = job.shards("evaluations", job.rows("metrics")?.div_ceil(size) as usize).await?;
            for shard in shards.missing() {
                let start = size * shard as u64;
                job.bind_slice(&ctx, "metrics", start..start + size).await?;
                shards.write(shard, ctx.sql(SQL).await?.execute_stream().await?).await?;
            }
            job.write_shards("evaluations", shards).await
        };
        Stage::new("reads", vec![Artifact::table("metrics")], vec![Artifact::table("evaluations")], recipe, act)
    };
    let store = Store::open("memory://").unwrap();
    let mut tables = Vec::new();
    for size in [None, Some(1), Some(10), Some(64), Some(1000)] {
        let graph = Graph::new(vec![maker("a", 0..70), maker("b", 70..95), reads(size)]).unwrap();
        run(&graph, &store, &Options::default()).await.unwrap();
        let current = Current::load(&store).await.unwrap();
        let manifests = current.manifests(&store, &Artifact::table("evaluations")).await.unwrap();
        let rows = salmon::store::read_rows(&store, &manifests[0], 0..u64::MAX).await.unwrap();
        let schema = salmon::table::evaluations().schema();
        tables.push(arrow::compute::concat_batches(&schema, &rows).unwrap());
    }
    assert_eq!(tables[0].num_rows(), 95);
    assert!(tables.iter().all(|table| table == &tables[0]));
}

#[tokio::test]
async fn models_of_a_remote_run_are_fetched_once_and_verified() {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open("memory://").unwrap();
    let train =
        Stage::new("sft", vec![], vec![Artifact::model("sft")], Lineage::default(), |job: Arc<Job>| async move {
            let folder = job.scratch()?;
            std::fs::create_dir(folder.path().join("deep")).unwrap();
            std::fs::write(folder.path().join("config.json"), "{}").unwrap();
            std::fs::write(folder.path().join("deep/weights"), vec![3; 100]).unwrap();
            job.write_model("sft", folder.path()).await
        });
    let reads = |seed| {
        let recipe = Lineage { seed: Some(seed), ..Lineage::default() };
        Stage::new(
            "use",
            vec![Artifact::model("sft")],
            vec![Artifact::table("metrics")],
            recipe,
            |job: Arc<Job>| async move {
                let folder = job.model_folder("sft").await?;
                assert_eq!(std::fs::read(folder.join("deep/weights")).unwrap(), vec![3; 100]);
                job.write_table("metrics", stream(vec![metrics(0..1)])).await.map(drop)
            },
        )
    };
    let options = Options { cache: Some(cache.path().to_path_buf()), ..Options::default() };
    let graph = |seed| Graph::new(vec![train.clone(), reads(seed)]).unwrap();
    let planned = run(&graph(1), &store, &options).await.unwrap();
    let weights = format!("models/sft/{}/deep/weights", planned[0].fingerprint);
    store.put(&weights, vec![4; 100]).await.unwrap();
    run(&graph(2), &store, &options).await.unwrap();
    // A cache that lost a file is filled again, and what comes is checked.
    let names = || std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path());
    let fetched = names().find(|path| path.is_dir()).unwrap();
    std::fs::remove_file(fetched.join("config.json")).unwrap();
    let error = run(&graph(3), &store, &options).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("memory:/{}{weights}: checksum mismatch", "//"))
            || error.contains("checksum mismatch"),
        "{error}"
    );
    store.put(&weights, vec![3; 100]).await.unwrap();
    run(&graph(3), &store, &options).await.unwrap();
    assert_eq!(names().filter(|path| path.is_dir()).collect::<Vec<_>>(), [fetched], "no partial download stays");
}

/// Collects what the plain watcher prints.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn plain_progress_is_one_line_per_event() {
    let page = Page::default();
    let lines: Arc<dyn Progress> = Arc::new(Lines::new(Box::new(page.clone())));
    let store = Store::open("memory://").unwrap();
    let sharded = Stage::new(
        "shards",
        vec![],
        vec![Artifact::table("metrics")],
        Lineage::default(),
        |job: Arc<Job>| async move {
            let shards = job.shards("metrics", 3).await?;
            for shard in shards.missing() {
                shards.write(shard, stream(vec![metrics(0..5)])).await?;
                job.advance(shards.done() as u64, Some(3), "shards");
            }
            job.write_shards("metrics", shards).await
        },
    );
    let fails = Stage::new(
        "fails",
        vec![Artifact::table("metrics")],
        vec![Artifact::table("pairs")],
        Lineage::default(),
        |_| async { Err(salmon::Error::data("x", "bad")) },
    );
    let good = Graph::new(vec![sharded.clone()]).unwrap();
    let bad = Graph::new(vec![sharded, fails]).unwrap();
    salmon::stage::run(&good, &store, &Options::default(), Arc::clone(&lines), &Stop::new()).await.unwrap();
    salmon::stage::run(&bad, &store, &Options::default(), lines, &Stop::new()).await.unwrap_err();
    let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    let time = text.split("15 rows, ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let text = text.replace(time, "[time]");
    insta::assert_snapshot!(text, @r"
    shards: runs (no version yet)
    shards: 3/3 shards
    shards: 15 rows, [time]
    shards: cached
    fails: runs (no version yet)
    fails: ended without a commit
    ");
}
