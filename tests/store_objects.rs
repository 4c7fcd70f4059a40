//! URLs that no store can be opened at.

use salmon::store::Store;

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
