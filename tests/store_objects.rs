//! One suite for every store: what `salmon::store::Store` promises about objects.

use bytes::Bytes;
use futures::TryStreamExt;
use salmon::error::Kind;
use salmon::store::Store;

/// Everything a store must do, on an empty one. A server-backed store runs the same function.
async fn conforms(store: Store) {
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

    // Names: Unicode, spaces, percent signs are kept; a prefix is a folder, not a string.
    store.put("a/größe 界 100%.json", "x").await.unwrap();
    store.put("ab/d", "y").await.unwrap();
    let keys: Vec<String> = store.list("a").await.unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["a/b", "a/c", "a/größe 界 100%.json"]);
    assert_eq!(store.get("a/größe 界 100%.json").await.unwrap().unwrap(), "x");

    // No key leaves the run.
    for bad in ["../x", "a/../../x", "a//b", "a/./b"] {
        let error = store.put(bad, "x").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Store, "{bad}");
        assert!(error.to_string().contains("not a key inside the run"), "{error}");
    }

    // Streams: nothing is visible before the end, and the digest is that of the bytes. 20 MB take three parts.
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

    // Sizes at the edge of a part.
    for size in [0usize, 1, 8 << 20, (8 << 20) + 1] {
        let mut upload = store.upload("edge").unwrap();
        upload.write(Bytes::from(vec![7; size])).await.unwrap();
        assert_eq!(upload.finish().await.unwrap().size, size as u64);
        assert_eq!(store.size("edge").await.unwrap(), Some(size as u64));
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

#[tokio::test]
async fn memory_conforms() {
    conforms(Store::open("memory:///team/run").unwrap()).await;
    conforms(Store::open("memory://").unwrap()).await;
}

#[tokio::test]
async fn disk_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("läufe 1/run#1");
    conforms(Store::open(path.to_str().unwrap()).unwrap()).await;
    let url = format!("file://{}", folder.path().join("as-url").display());
    conforms(Store::open(&url).unwrap()).await;
}

#[tokio::test]
async fn opening_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let open = |url: &str| Store::open(url).unwrap_err().to_string();
    assert!(open(file.to_str().unwrap()).ends_with("is a file; give a folder for the run"));
    assert!(open(file.join("below").to_str().unwrap()).contains("a part of the path is a file"));
    assert!(open("").contains("the run's URL is empty"));
    assert!(open("ftp://host/run").contains("ftp:// is not a store"));
    for url in ["s3://AKIA123:hunter22@bucket/run", "s3://bucket/run?X-Amz-Signature=hunter22"] {
        let error = open(url);
        assert!(error.starts_with("s3://bucket/run: the URL holds credentials"), "{error}");
        assert!(!error.contains("hunter22") && !error.contains("AKIA123"), "{error}");
    }
    let missing = folder.path().join("missing");
    let error = Store::open_existing(missing.to_str().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("there is no such folder"), "{error}");
    assert!(!missing.exists(), "reading creates nothing");
    std::fs::create_dir(&missing).unwrap();
    let error = Store::open_existing(missing.to_str().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("holds no run"), "{error}");
}
