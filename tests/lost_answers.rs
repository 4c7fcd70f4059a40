//! Requests that a store carried out, and whose answers nobody got: found by `make chaos`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use salmon::store::{Artifact, FileEntry, Info, Limits, Lineage, Manifest, Store, TableSink, Version};

use crate::store_common::{CHILD, child, metrics};

/// A bucket in memory behind HTTP. Which requests go wrong, and how, is said by their number.
struct Server {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Requests so far: `PUT a`, `GET a`, ...
    seen: Mutex<Vec<String>>,
    wrong: fn(&str, usize) -> Wrong,
}

#[derive(PartialEq)]
enum Wrong {
    Nothing,
    /// It is carried out, and the connection closes.
    Lost,
    /// Half of the answer comes.
    Cut,
    /// As it was before everything: 404.
    Old,
}

impl Server {
    /// Serves one request per connection; gives the variables by which a child finds it.
    fn start(wrong: fn(&str, usize) -> Wrong) -> (Arc<Server>, Vec<(&'static str, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::new(Server { objects: Mutex::default(), seen: Mutex::default(), wrong });
        let serving = Arc::clone(&server);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let server = Arc::clone(&serving);
                std::thread::spawn(move || server.serve(connection.unwrap()));
            }
        });
        let fixed =
            [("AWS_ALLOW_HTTP", "true"), ("AWS_ACCESS_KEY_ID", "lost"), ("AWS_SECRET_ACCESS_KEY", "lost-answers")];
        let mut variables: Vec<_> = fixed.iter().map(|(name, value)| (*name, value.to_string())).collect();
        variables.push(("AWS_ENDPOINT_URL", endpoint));
        (server, variables)
    }

    fn serve(&self, connection: TcpStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let (mut first, mut length, mut create, mut range) = (String::new(), 0, false, None);
        reader.read_line(&mut first).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            length = line.strip_prefix("content-length: ").map_or(length, |text| text.parse().unwrap());
            create |= line == "if-none-match: *";
            let (start, end) = line.strip_prefix("range: bytes=").and_then(|text| text.split_once('-')).unzip();
            range = start.zip(end).map(|(start, end)| (start.parse().unwrap(), end.parse().unwrap())).or(range);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let key = target.split('?').next().unwrap().trim_start_matches("/bucket").trim_start_matches('/');
        let what = format!("{method} {key}");
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(what.clone());
            seen.iter().filter(|other| **other == what).count()
        };
        let wrong = (self.wrong)(&what, number);
        let answer = if wrong == Wrong::Old {
            http("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>")
        } else {
            self.carry_out(method, target, key, body, create, range)
        };
        let mut connection = connection;
        match wrong {
            Wrong::Lost => {}
            Wrong::Cut => connection.write_all(&answer[..answer.len() - 20]).unwrap(),
            Wrong::Nothing | Wrong::Old => connection.write_all(&answer).unwrap(),
        }
    }

    fn carry_out(
        &self,
        method: &str,
        target: &str,
        key: &str,
        body: Vec<u8>,
        create: bool,
        range: Option<(usize, usize)>,
    ) -> Vec<u8> {
        let mut objects = self.objects.lock().unwrap();
        match method {
            "PUT" if create && objects.contains_key(key) => {
                http("412 Precondition Failed", b"<Error><Code>PreconditionFailed</Code></Error>")
            }
            "PUT" => {
                objects.insert(key.to_string(), body);
                http("200 OK", b"")
            }
            "POST" => {
                let text = String::from_utf8(body).unwrap();
                let keys: Vec<&str> =
                    text.split("<Key>").skip(1).map(|part| part.split("</Key>").next().unwrap()).collect();
                keys.iter().for_each(|key| drop(objects.remove(*key)));
                let deleted: String = keys.iter().map(|key| format!("<Deleted><Key>{key}</Key></Deleted>")).collect();
                http("200 OK", format!("<DeleteResult>{deleted}</DeleteResult>").as_bytes())
            }
            "GET" if target.contains("list-type=2") => {
                let entry = |(key, bytes): (&String, &Vec<u8>)| {
                    format!(
                        "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                         <ETag>\"1\"</ETag><Size>{}</Size></Contents>",
                        bytes.len()
                    )
                };
                let listed: String = objects.iter().map(entry).collect();
                http(
                    "200 OK",
                    format!("<ListBucketResult>{listed}<IsTruncated>false</IsTruncated></ListBucketResult>").as_bytes(),
                )
            }
            _ => match objects.get(key) {
                Some(bytes) => match range {
                    Some((start, end)) => {
                        let status = format!("206 Partial\r\ncontent-range: bytes {start}-{end}/{}", bytes.len());
                        http(&status, &bytes[start..=end])
                    }
                    None => http("200 OK", bytes),
                },
                None => http("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>"),
            },
        }
    }
}

fn http(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: \"1\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Runs the rest of the test `name` in a process that finds the server.
fn elsewhere(name: &str, variables: &[(&'static str, String)]) {
    let folder = tempfile::tempdir().unwrap();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let output = child(&format!("lost_answers::{name}"), folder.path(), &variables);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn inside() -> Option<Store> {
    std::env::var(CHILD).is_ok().then(|| Store::open("s3://bucket/run").unwrap())
}

#[tokio::test]
async fn a_conditional_put_whose_answer_is_lost_is_still_ours() {
    if let Some(store) = inside() {
        assert!(store.put_if_absent("a", "mine").await.unwrap());
        assert!(!store.put_if_absent("a", "another's").await.unwrap());
        assert_eq!(store.get("a").await.unwrap().unwrap(), "mine");
        return;
    }
    let (server, variables) = Server::start(|what, number| match (what, number) {
        ("PUT run/a", 1) => Wrong::Lost,
        _ => Wrong::Nothing,
    });
    elsewhere("a_conditional_put_whose_answer_is_lost_is_still_ours", &variables);
    let puts = server.seen.lock().unwrap().iter().filter(|what| *what == "PUT run/a").count();
    assert_eq!(puts, 3, "one lost, one that found the first, one of another");
}

#[tokio::test]
async fn deletions_and_listings_whose_answers_are_lost_are_repeated() {
    if let Some(store) = inside() {
        store.put("a", "x").await.unwrap();
        store.put("b", "x").await.unwrap();
        let keys = |entries: Vec<salmon::store::Entry>| entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>();
        assert_eq!(keys(store.list("").await.unwrap()), ["a", "b"]);
        store.delete("a").await.unwrap();
        assert_eq!(keys(store.list("").await.unwrap()), ["b"]);
        return;
    }
    let (server, variables) = Server::start(|what, number| match (what, number) {
        ("POST ", 1) => Wrong::Lost,
        ("GET ", 1) => Wrong::Cut,
        _ => Wrong::Nothing,
    });
    elsewhere("deletions_and_listings_whose_answers_are_lost_are_repeated", &variables);
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.iter().filter(|what| *what == "POST ").count(), 2, "{seen:?}");
    assert_eq!(seen.iter().filter(|what| *what == "GET ").count(), 3, "{seen:?}");
}

#[tokio::test]
async fn an_answer_that_there_is_no_such_object_is_asked_for_again_when_it_is_cut_short() {
    if let Some(store) = inside() {
        assert_eq!(store.get("none").await.unwrap(), None);
        assert!(store.read("no stream").await.unwrap().is_none());
        return;
    }
    let (server, variables) = Server::start(|_, number| if number == 1 { Wrong::Cut } else { Wrong::Nothing });
    elsewhere("an_answer_that_there_is_no_such_object_is_asked_for_again_when_it_is_cut_short", &variables);
    assert_eq!(server.seen.lock().unwrap().len(), 4);
}

/// The Parquet reader asks past the store's own methods.
#[tokio::test]
async fn a_part_that_the_store_does_not_show_yet_is_waited_for_in_sql() {
    if let Some(store) = inside() {
        let version = Version::new(Artifact::table("metrics"), "0123456789abcdef").unwrap();
        let mut sink = TableSink::new(&store, &version, &salmon::table::metrics(), Limits::default());
        sink.write(&metrics(0..10)).await.unwrap();
        let files = sink.finish().await.unwrap();
        let schema = salmon::table::metrics().schema();
        let manifest = Manifest::new(&version, files, Some(&schema), Lineage::default(), Info::default());
        let context = datafusion::prelude::SessionContext::new();
        salmon::store::bind(&context, &store, &salmon::table::metrics(), &[manifest]).unwrap();
        let rows = context.sql("select * from metrics where step > 2").await.unwrap();
        assert_eq!(rows.count().await.unwrap(), 7);
        return;
    }
    let (server, variables) = Server::start(|what, number| match (what.split(' ').next(), number) {
        (Some("GET"), 1 | 2) => Wrong::Old,
        _ => Wrong::Nothing,
    });
    elsewhere("a_part_that_the_store_does_not_show_yet_is_waited_for_in_sql", &variables);
    let seen = server.seen.lock().unwrap();
    assert!(seen.iter().filter(|what| what.starts_with("GET ")).count() >= 3, "{seen:?}");
}

#[tokio::test]
async fn a_version_that_the_store_does_not_show_yet_is_waited_for() {
    if let Some(store) = inside() {
        let version = Version::new(Artifact::model("m"), "0123456789abcdef").unwrap();
        let mut upload = store.upload(&version.key("weights")).unwrap();
        upload.write("bytes".into()).await.unwrap();
        let files = vec![FileEntry::new("weights", upload.finish().await.unwrap(), 0)];
        let manifest = Manifest::new(&version, files, None, Lineage::default(), Info::default());
        // Another process was faster; its manifest says something else about itself.
        let other = Info { host: "another".into(), ..Info::default() };
        Manifest { info: other, ..manifest.clone() }.publish(&store).await.unwrap();
        manifest.publish(&store).await.unwrap();
        manifest.verify(&store).await.unwrap();
        return;
    }
    let (server, variables) = Server::start(|what, number| match (what.split(' ').next(), number) {
        (Some("GET"), 1 | 2) => Wrong::Old,
        _ => Wrong::Nothing,
    });
    elsewhere("a_version_that_the_store_does_not_show_yet_is_waited_for", &variables);
    let seen = server.seen.lock().unwrap();
    // The manifest that is in the way is read to see whose it is, then to compare files.
    for (file, wanted) in [("manifest.json", 4), ("weights", 3)] {
        let reads = seen.iter().filter(|what| what.starts_with("GET ") && what.ends_with(file)).count();
        assert_eq!(reads, wanted, "{file}: {seen:?}");
    }
}
