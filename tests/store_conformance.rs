//! One suite for every store: memory, disk, a real S3 server, and with `make conformance` any other one.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use futures::TryStreamExt;
use salmon::error::Kind;
use salmon::store::{
    Artifact, Checkpoints, Current, Info, Limits, Lineage, Manifest, Shards, Store, TableSink, Version, fetch,
    upload_folder,
};
use salmon::table;

use crate::pipeline_support::{POLICIES, Place, assert_same, succeeded, whole};
use crate::s3_process::{S3, again};
use crate::store_common::{contents, metrics, stream, version};

/// The URL below which `at_a_url` works; credentials come from the environment.
const URL: &str = "SALMON_CONFORMANCE_URL";

/// Everything that salmon needs of a store; `open` gives an empty place of a name.
async fn conforms(open: &dyn Fn(&str) -> Store) {
    objects(open("objects")).await;
    one_winner(open("winner")).await;
    pages(open("pages")).await;
    versions(open("versions")).await;
    shards(open("shards")).await;
    checkpoints(open("checkpoints")).await;
    folders(open("name with spaces/größe 界 100%")).await;
}

/// Objects by key: what is written is there, whole, and nothing else is.
async fn objects(store: Store) {
    // Nothing is there.
    assert_eq!(store.get("a/b").await.unwrap(), None);
    assert_eq!(store.size("a/b").await.unwrap(), None);
    assert!(store.read("a/b").await.unwrap().is_none());
    assert!(store.list("a").await.unwrap().is_empty());
    store.delete("a/b").await.unwrap();

    // Put, replace, create once.
    store.put("a/b", "one").await.unwrap();
    store.put("a/b", "two").await.unwrap();
    assert_eq!(store.get("a/b").await.unwrap().unwrap(), "two");
    assert_eq!(store.size("a/b").await.unwrap(), Some(3));
    assert!(!store.put_if_absent("a/b", "three").await.unwrap());
    assert_eq!(store.get("a/b").await.unwrap().unwrap(), "two");
    assert!(store.put_if_absent("a/c", "").await.unwrap());
    assert_eq!(store.get("a/c").await.unwrap().unwrap(), "");

    // Names: Unicode, spaces, percent and plus signs are kept; a prefix is a folder, not a string.
    store.put("a/größe 界 100%+1.json", "x").await.unwrap();
    store.put("ab/d", "y").await.unwrap();
    let keys: Vec<String> = store.list("a").await.unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["a/b", "a/c", "a/größe 界 100%+1.json"]);
    assert_eq!(store.get("a/größe 界 100%+1.json").await.unwrap().unwrap(), "x");

    // No key leaves the run.
    for bad in ["../x", "a/../../x", "a//b", "a/./b"] {
        let error = store.put(bad, "x").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Store, "{bad}");
        assert!(error.to_string().contains("not a key inside the run"), "{error}");
        assert!(store.get(bad).await.is_err() && store.list(bad).await.is_err() && store.delete(bad).await.is_err());
    }

    // Streams: nothing is visible before the end, and the digest is that of the bytes. 20 MB take three parts on the
    // way up and two ranges on the way down.
    let bytes: Vec<u8> = (0..20_000_003u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut upload = store.upload("big/object").unwrap();
    for chunk in bytes.chunks(700_001) {
        upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    assert_eq!(store.get("big/object").await.unwrap(), None);
    let digest = upload.finish().await.unwrap();
    assert_eq!(digest.size, bytes.len() as u64);
    assert_eq!(digest.blake3, blake3::hash(&bytes).to_hex().to_string());
    assert_eq!(store.digest("big/object").await.unwrap(), Some(digest));
    let read: Vec<Bytes> = store.read("big/object").await.unwrap().unwrap().try_collect().await.unwrap();
    assert!(read.concat() == bytes);

    // Sizes at the edge of a part and of a range.
    for size in [0usize, 1, 8 << 20, (8 << 20) + 1, 16 << 20, (16 << 20) + 1] {
        let mut upload = store.upload("edge").unwrap();
        upload.write(Bytes::from(vec![7; size])).await.unwrap();
        assert_eq!(upload.finish().await.unwrap().size, size as u64);
        assert_eq!(store.size("edge").await.unwrap(), Some(size as u64));
        let read: Vec<Bytes> = store.read("edge").await.unwrap().unwrap().try_collect().await.unwrap();
        assert_eq!(read.iter().map(Bytes::len).sum::<usize>(), size);
    }

    // An upload that is dropped never becomes an object.
    let mut upload = store.upload("big/dropped").unwrap();
    upload.write(Bytes::from(vec![1; 9 << 20])).await.unwrap();
    drop(upload);
    assert_eq!(store.get("big/dropped").await.unwrap(), None);

    store.delete_below("big").await.unwrap();
    assert!(store.list("big").await.unwrap().is_empty());
    assert_eq!(store.get("ab/d").await.unwrap().unwrap(), "y");
}

/// Of many conditional puts at once, one succeeds, and its bytes are there.
async fn one_winner(store: Store) {
    for round in 0..4 {
        let key = format!("commit/{round}");
        let attempts = (0..24).map(|n| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { store.put_if_absent(&key, format!("attempt {n}")).await.unwrap() })
        });
        let won: Vec<bool> = futures::future::try_join_all(attempts).await.unwrap();
        let winners: Vec<usize> = (0..won.len()).filter(|&n| won[n]).collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        let found = store.get(&key).await.unwrap().unwrap();
        assert_eq!(found, format!("attempt {}", winners[0]));
    }
}

/// A listing longer than a page of S3, which has 1,000 keys.
async fn pages(store: Store) {
    let names: BTreeSet<String> = (0..1_100).map(|n| format!("many/{n:05}")).collect();
    let puts = futures::stream::iter(names.iter().map(|name| Ok(store.put(name, "1"))));
    puts.try_for_each_concurrent(16, |put: _| put).await.unwrap();
    let listed = store.list("many").await.unwrap();
    assert!(listed.iter().all(|entry| entry.size == 1));
    assert_eq!(listed.into_iter().map(|entry| entry.key).collect::<BTreeSet<_>>(), names);
    store.delete_below("many").await.unwrap();
    assert!(store.list("many").await.unwrap().is_empty());
}

/// A table version: written, published, current, read as SQL, verified, found damaged, discarded.
async fn versions(store: Store) {
    let (version, artifact) = (version("metrics"), Artifact::table("metrics"));
    let limits = Limits { group_rows: 1_000, part_rows: 4_000, ..Limits::default() };
    let mut sink = TableSink::new(&store, &version, &table::metrics(), limits);
    for start in (0..10_000).step_by(1_000) {
        sink.write(&metrics(start..start + 1_000)).await.unwrap();
    }
    let files = sink.finish().await.unwrap();
    assert!(files.len() > 1);
    assert_eq!(Manifest::read(&store, &version).await.unwrap(), None);
    let schema = table::metrics().schema();
    let manifest = Manifest::new(&version, files, Some(&schema), Lineage::default(), Info::begin());
    manifest.publish(&store).await.unwrap();
    manifest.publish(&store).await.unwrap();
    let mut other = manifest.clone();
    other.files.truncate(1);
    let error = other.publish(&store).await.unwrap_err().to_string();
    assert!(error.contains("another process committed this version with other bytes"), "{error}");

    let mut current = Current::load(&store).await.unwrap();
    current.set(&store, &artifact, "sft", version.fingerprint()).await.unwrap();
    assert_eq!(Current::load(&store).await.unwrap().fingerprint(&artifact, "sft"), Some(version.fingerprint()));
    let ctx =
        salmon::catalog::Catalog::of(vec![(None, store.clone())], &Default::default()).unwrap().session().unwrap();
    let sql = "select count(*), sum(step), count(distinct name) from metrics where step >= 5000";
    let rows = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    let cell = |column: usize| {
        arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(rows[0].column(column)).value(0)
    };
    assert_eq!((cell(0), cell(1), cell(2)), (5_000, (5_000..10_000).sum(), 5_000));

    let stored = Manifest::read(&store, &version).await.unwrap().unwrap();
    assert_eq!(stored.files, manifest.files);
    stored.verify(&store).await.unwrap();
    store.put(&version.key(&stored.files[1].path), "damaged").await.unwrap();
    let error = stored.verify(&store).await.unwrap_err().to_string();
    assert!(error.contains("has 7 bytes, but its manifest says"), "{error}");
    version.discard(&store).await.unwrap();
    assert_eq!(Manifest::read(&store, &version).await.unwrap(), None);
}

/// Finished shards are found again.
async fn shards(store: Store) {
    let (version, table) = (version("metrics"), table::metrics());
    let shards = Shards::open(&store, &version, &table, 3).await.unwrap();
    for shard in [2, 0] {
        shards.write(shard, stream(vec![metrics(0..10)])).await.unwrap();
    }
    let shards = Shards::open(&store, &version, &table, 3).await.unwrap();
    assert_eq!(shards.missing(), [1]);
    shards.write(1, stream(vec![metrics(10..30)])).await.unwrap();
    assert_eq!(shards.finish().await.unwrap().iter().map(|file| file.rows).collect::<Vec<_>>(), [10, 20, 10]);
}

/// The last two checkpoints stay; a damaged one is passed over.
async fn checkpoints(store: Store) {
    let version = Version::new(Artifact::model("sft"), "feed").unwrap();
    let checkpoints = Checkpoints::new(&store, &version);
    for step in [5u64, 10, 15] {
        let from = tempfile::tempdir().unwrap();
        std::fs::create_dir(from.path().join("optimizer")).unwrap();
        std::fs::write(from.path().join("weights"), format!("w{step}")).unwrap();
        std::fs::write(from.path().join("optimizer/m"), vec![step as u8; 9_000_000]).unwrap();
        checkpoints.save(step, from.path()).await.unwrap();
    }
    assert_eq!(checkpoints.steps().await.unwrap(), [10, 15]);
    store.put(&version.key("checkpoints/step-00000015/weights"), "damaged").await.unwrap();
    let into = tempfile::tempdir().unwrap();
    assert_eq!(checkpoints.restore(into.path()).await.unwrap(), Some(10));
    assert_eq!(std::fs::read(into.path().join("weights")).unwrap(), b"w10");
    assert_eq!(std::fs::read(into.path().join("optimizer/m")).unwrap(), vec![10; 9_000_000]);
}

/// A model folder comes back as it was, from a cache when the store is far away.
async fn folders(store: Store) {
    let (from, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(from.path().join("deep")).unwrap();
    std::fs::write(from.path().join("deep/größe 1.json"), "{}").unwrap();
    std::fs::write(from.path().join("weights"), vec![5; 17 << 20]).unwrap();
    let version = Version::new(Artifact::model("sft"), "feed").unwrap();
    let files = upload_folder(&store, &version, "", from.path()).await.unwrap();
    let manifest = Manifest::new(&version, files, None, Lineage::default(), Info::default());
    for _ in 0..2 {
        let folder = fetch(&store, &manifest, cache.path()).await.unwrap();
        assert_eq!(std::fs::read(folder.join("deep/größe 1.json")).unwrap(), b"{}");
        assert_eq!(std::fs::read(folder.join("weights")).unwrap(), vec![5; 17 << 20]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    conforms(&|_| Store::open("memory://").unwrap()).await;
    conforms(&|name| Store::open(&format!("memory:///team/{name}")).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_conforms() {
    let scratch = tempfile::tempdir().unwrap();
    conforms(&|name| Store::open(scratch.path().join("läufe 1/run#1").join(name).to_str().unwrap()).unwrap()).await;
    let below = url::Url::from_directory_path(scratch.path().join("as url")).unwrap();
    conforms(&|name| Store::open(below.join(name).unwrap().as_str()).unwrap()).await;
}

/// The suite at the URL that the environment names, below a folder of its own.
#[tokio::test(flavor = "multi_thread")]
async fn at_a_url() {
    let Ok(url) = std::env::var(URL) else { return };
    let url = format!("{}/{}", url.trim_end_matches('/'), std::process::id());
    conforms(&|name| Store::open(&format!("{url}/{name}")).unwrap()).await;
    let store = Store::open(&url).unwrap();
    store.delete_below("").await.unwrap();
}

#[test]
fn s3_conforms() {
    let s3 = S3::start(&[]);
    let mut environment = s3.environment();
    environment.push((URL, "s3://bucket/läufe 1".into()));
    let output = again("store_conformance::at_a_url", &environment);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(s3.orphans(), [""; 0], "every upload was completed or aborted");
    assert!(s3.object("läufe 1").is_dir(), "the suite ran on the server");
}

/// The whole pipeline, by the program, at the URL that the environment names: the same bytes as on disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_at_a_url() {
    let Ok(url) = std::env::var(URL) else { return };
    let url = format!("{}/run-{}", url.trim_end_matches('/'), std::process::id());
    let place = Place::new(POLICIES);
    let home = tempfile::tempdir().unwrap();
    let run =
        |more: &[&str]| succeeded(&place.command_at(&url, more).env("XDG_CACHE_HOME", home.path()).output().unwrap());
    run(&[]);
    let store = Store::open(&url).unwrap();
    let mut found = contents(&store, "tables").await;
    found.extend(contents(&store, "models").await);
    assert_same(&found, &whole().contents(), "on the store and on disk");
    assert!(run(&[]).contains("nothing to do: all 16 stages are up to date"));
    store.delete_below("").await.unwrap();
}

#[test]
fn a_run_on_s3_has_the_bytes_of_one_on_disk() {
    let s3 = S3::start(&[]);
    let mut environment = s3.environment();
    environment.push((URL, "s3://bucket/runs".into()));
    let output = again("store_conformance::a_run_at_a_url", &environment);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(s3.orphans(), [""; 0]);
    assert!(Path::new(&s3.object("runs")).is_dir());
}
