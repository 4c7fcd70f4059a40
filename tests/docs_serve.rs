//! The commands of docs/serve.md do what the page says, with the page's own token file.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::pipeline_support::whole;

const SECRET: &str = "the-secret-of-grafana";

#[test]
fn every_command_of_the_page_serves() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/serve.md")).unwrap();
    let (_, tokens) = page.split_once("```toml\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokens.toml"), tokens.split("```").next().unwrap()).unwrap();
    let run = whole().run().display().to_string();
    let mut served = 0;
    for line in page.lines().filter(|line| line.starts_with("salmon serve ")) {
        let words: Vec<String> = line
            .split(' ')
            .skip(1)
            .map(|word| match word {
                "runs/demo" => run.clone(),
                "a=runs/demo" => format!("a={run}"),
                "b=s3://bucket/team/run-7" => format!("b={run}"),
                address if address.starts_with("127.0.0.1:") => "127.0.0.1:0".into(),
                other => other.into(),
            })
            .collect();
        let protocols = words.iter().filter(|word| word.as_str() == "127.0.0.1:0").count();
        let mut server = Command::new(env!("CARGO_BIN_EXE_salmon"))
            .args(&words)
            .env("GRAFANA_TOKEN", SECRET)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines().take(protocols);
        let lines: Vec<String> = lines.map(Result::unwrap).collect();
        let http =
            lines.iter().find_map(|line| line.strip_prefix("http ")).unwrap_or_else(|| panic!("{line}: {lines:?}"));
        let sql = if words.iter().any(|word| word.starts_with("a=")) {
            "select a.name, a.fingerprint = b.fingerprint as same from a.runs a join b.runs b on a.name = b.name limit 1"
        } else {
            "select token, count(*) as queries, max(seconds) as slowest from query_log group by token limit 1"
        };
        let mut socket = TcpStream::connect(http).unwrap();
        let head =
            format!("POST /query HTTP/1.1\r\nHost: salmon\r\nConnection: close\r\nAuthorization: Bearer {SECRET}\r\n");
        socket.write_all(format!("{head}Content-Length: {}\r\n\r\n{sql}", sql.len()).as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
        assert!(server.wait().unwrap().success(), "{line}");
        assert!(answer.starts_with("HTTP/1.1 200"), "{line}: {answer}");
        served += 1;
    }
    assert_eq!(served, 2);
}
