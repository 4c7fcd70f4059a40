//! Nothing gets through but reading: not by SQL, not by a protocol's own ways, not without a token, not in plain text
//! where TLS is asked for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::NoTls;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::Endpoint;

use super::pipeline_support::{files, whole};
use super::serve_support::{ANALYST, AUDITOR, EXPIRED, HASTY, HIDDEN, NARROW, Server, shared};

/// Statements that write, define, set, or read what is not in the run.
const FORBIDDEN: [&str; 56] = [
    "insert into prompts select * from prompts",
    "insert into query_log select * from query_log",
    "update prompts set kind = 'x'",
    "delete from prompts",
    "truncate table prompts",
    "merge into prompts using responses on true when matched then delete",
    "drop table prompts",
    "drop schema public",
    "drop view query_log",
    "alter table prompts add column x int",
    "create table mine as select 1",
    "create table mine (a int)",
    "create view mine as select 1",
    "create schema mine",
    "create database mine",
    "create index mine on prompts (kind)",
    "create function f(double) returns double return $1",
    "drop function generate",
    "create external table passwd (line text) stored as csv location '/etc/passwd'",
    "create external table other stored as parquet location 's3://other-bucket/secret.parquet'",
    "copy (select 1) to '/tmp/salmon-serve-copied.csv'",
    "copy prompts to 's3://other-bucket/prompts.parquet'",
    "copy prompts from '/etc/passwd'",
    "copy prompts to stdout",
    "explain copy (select 1) to '/tmp/salmon-serve-copied.csv'",
    "explain analyze insert into prompts select * from prompts",
    "explain analyze copy (select 1) to '/tmp/salmon-serve-copied.csv'",
    "explain analyze create table mine as select 1",
    "select 1 into mine",
    "select * into mine from prompts",
    "set datafusion.execution.batch_size = 1",
    "set datafusion.runtime.memory_limit = '100G'",
    "reset datafusion.execution.batch_size",
    "show all",
    "show datafusion.execution.batch_size",
    "prepare p as select 1",
    "execute p",
    "deallocate q; drop table prompts",
    "select 1; drop table prompts",
    "begin; delete from prompts; commit",
    "select * from information_schema.df_settings",
    "select * from information_schema.\"DF_SETTINGS\"",
    "select * from salmon.information_schema.\"Df_Settings\"",
    "select * from '/etc/passwd'",
    "select * from \"/etc/passwd\"",
    "select * from 'file:///etc/passwd'",
    "select * from \"file:///etc/passwd\"",
    "select * from 's3://other-bucket/secret.parquet'",
    "select * from \"prompts@../../../../etc/passwd\"",
    "select * from read_csv('/etc/passwd')",
    "select * from read_parquet('/etc/passwd')",
    "select pg_read_file('/etc/passwd')",
    "select * from pg_ls_dir('/')",
    "select lo_import('/etc/passwd')",
    "select getenv('AWS_SECRET_ACCESS_KEY')",
    "select generate('sft', 'hello')",
];

fn fine(statement: &str, error: &str) {
    let secrets = [HIDDEN, ANALYST, NARROW, HASTY, EXPIRED, AUDITOR, "root:"];
    let seen = secrets.iter().find(|secret| error.contains(**secret));
    assert_eq!(seen, None, "{statement}: {error}");
    assert!(!error.contains('\n') || error.contains("grpc"), "{statement}: more than a line: {error}");
}

/// What the run holds.
fn contents() -> Vec<(String, usize)> {
    files(&whole().run()).into_iter().map(|(name, bytes)| (name, bytes.len())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_by_any_protocol() {
    let before = contents();
    let mut flight = shared().flight(ANALYST).await;
    let postgres = shared().postgres("analyst", ANALYST).await.unwrap();
    for statement in FORBIDDEN {
        let reply = shared().ask(ANALYST, statement);
        assert!([400, 403].contains(&reply.status), "http: {statement}: {} {}", reply.status, reply.text());
        fine(statement, &reply.text());

        let error = flight.execute(statement.to_string(), None).await.map(drop);
        fine(statement, &error.expect_err(statement).to_string());
        let error = flight.prepare(statement.to_string(), None).await.map(drop);
        fine(statement, &error.expect_err(statement).to_string());

        // Postgres' clients may deallocate, and may not do more behind it.
        let error = postgres.simple_query(statement).await.map(drop).expect_err(statement);
        fine(statement, error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}")).message());
        let error = postgres.query(statement, &[]).await.map(drop).expect_err(statement);
        fine(statement, error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}")).message());
    }
    assert_eq!(contents(), before);
    assert!(!Path::new("/tmp/salmon-serve-copied.csv").exists());
    assert_eq!(shared().rows(ANALYST, "select count(*) > 0 as there from prompts")[0]["there"], true);
}

#[test]
fn settings_and_secrets_are_nowhere() {
    for statement in [
        "select * from information_schema.tables",
        "select * from information_schema.columns",
        "select * from information_schema.schemata",
        "select * from information_schema.views",
        "select * from information_schema.routines",
        "select * from pg_catalog.pg_settings",
        "select * from pg_catalog.pg_roles",
        "select * from pg_catalog.pg_database",
        "select * from query_log",
        "select * from runs",
        "explain select * from prompts",
        "explain analyze select * from prompts",
        "explain verbose select * from prompts",
        "show tables",
        "show columns from prompts",
        "describe prompts",
    ] {
        let reply = shared().ask(AUDITOR, statement);
        assert_eq!(reply.status, 200, "{statement}: {}", reply.text());
        let text = reply.text();
        for secret in [HIDDEN, ANALYST, NARROW, HASTY, EXPIRED, AUDITOR] {
            assert!(!text.contains(secret), "{statement}: {text}");
        }
    }
    let typed = format!("select '{HASTY}' as secret");
    shared().rows(ANALYST, &typed);
    assert!(!shared().ask(AUDITOR, "select sql from query_log").text().contains(HASTY), "the log shows a token");
    for secret in [HIDDEN, ANALYST, NARROW, HASTY, EXPIRED, AUDITOR] {
        assert!(!shared().stderr().contains(secret), "{}", shared().stderr());
    }
}

#[tokio::test]
async fn who_has_no_token_gets_nothing() {
    let basic = |name: &str, secret: &str| {
        use base64::Engine;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{secret}")))
    };
    for path in ["/query", "/tables", "/runs", "/lineage/public/prompts", "/metrics"] {
        let method = if path == "/query" { "POST" } else { "GET" };
        for authorization in [
            None,
            Some("Bearer wrong".to_string()),
            Some(format!("Bearer {EXPIRED}")),
            Some(format!("Bearer {}", &ANALYST[1..])),
            Some(ANALYST.to_string()),
            Some(basic("narrow", ANALYST)),
            Some("Basic ???".into()),
        ] {
            let headers: Vec<(&str, &str)> =
                authorization.iter().map(|value| ("Authorization", value.as_str())).collect();
            let reply = shared().http(method, path, &headers, "select 1");
            assert_eq!(reply.status, 401, "{path} {authorization:?}");
            assert!(!reply.text().contains(EXPIRED));
        }
    }
    let right = basic("analyst", ANALYST);
    assert_eq!(shared().http("POST", "/query", &[("Authorization", &right)], "select 1").status, 200);
    for secret in ["wrong", EXPIRED, ""] {
        let error = shared().flight(secret).await.execute("select 1".into(), None).await.unwrap_err().to_string();
        assert!(error.contains("a token is needed"), "{error}");
    }
    for (user, secret) in
        [("analyst", "wrong"), ("narrow", ANALYST), ("expired", EXPIRED), ("nobody", ""), ("", ANALYST)]
    {
        let error = shared().postgres(user, secret).await.map(drop).unwrap_err();
        assert!(error.as_db_error().is_none_or(|error| error.severity() == "FATAL"), "{user}: {error:?}");
    }
}

#[test]
fn a_query_behind_a_failed_login_does_not_run() {
    let mut socket = TcpStream::connect(shared().address("postgres")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut sent = startup("analyst");
    sent.extend(message(b'p', b"wrong-password\0"));
    sent.extend(message(b'Q', b"select 'behind a failed login'\0"));
    sent.extend(message(b'P', b"\0select 'behind a failed login'\0\0\0"));
    sent.extend(message(b'B', b"\0\0\0\0\0\0\0\0"));
    sent.extend(message(b'E', b"\0\0\0\0\0"));
    sent.extend(message(b'S', b""));
    socket.write_all(&sent).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(!answer.windows(6).any(|bytes| bytes == b"SELECT"), "{}", String::from_utf8_lossy(&answer));
    // The same without a password at all.
    let mut socket = TcpStream::connect(shared().address("postgres")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut sent = startup("analyst");
    sent.extend(message(b'Q', b"select 'behind a failed login'\0"));
    sent.extend(message(b'Q', b"select 'behind a failed login'\0"));
    socket.write_all(&sent).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(!answer.windows(6).any(|bytes| bytes == b"SELECT"), "{}", String::from_utf8_lossy(&answer));
    let log = shared()
        .rows(AUDITOR, "select sql from query_log where protocol = 'postgres' and sql like '%behind a failed%'");
    assert!(log.is_empty(), "{log:?}");
}

pub(super) fn startup(user: &str) -> Vec<u8> {
    let mut body = 196_608_i32.to_be_bytes().to_vec();
    body.extend(format!("user\0{user}\0database\0salmon\0\0").bytes());
    let mut sent = ((body.len() + 4) as i32).to_be_bytes().to_vec();
    sent.extend(body);
    sent
}

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut sent = vec![kind];
    sent.extend(((body.len() + 4) as i32).to_be_bytes());
    sent.extend(body);
    sent
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

async fn tls(socket: tokio::net::TcpStream, names: &[&str]) -> TlsStream<tokio::net::TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(fixture("authority.pem")).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_only_tls_is_spoken() {
    let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
    let server = Server::start(&["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    let connect = async |protocol: &str| tokio::net::TcpStream::connect(server.address(protocol)).await.unwrap();

    let plain = server.ask(ANALYST, "select 1");
    assert_eq!((plain.status, plain.whole), (0, false), "{}", plain.text());
    let mut socket = tls(connect("http").await, &["http/1.1"]).await;
    let request = format!(
        "POST /query HTTP/1.1\r\nHost: salmon\r\nConnection: close\r\nAuthorization: Bearer {ANALYST}\r\nContent-Length: 13\r\n\r\nselect 1 as a"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#"{"a":1}"#), "{answer}");

    let error = server.postgres("analyst", ANALYST).await.map(drop).unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("only TLS"), "{error:?}");
    let mut socket = connect("postgres").await;
    socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'S');
    let socket = tls(socket, &["postgresql"]).await;
    let mut config = tokio_postgres::Config::new();
    let (client, connection) =
        config.user("analyst").password(ANALYST).dbname("salmon").connect_raw(socket, NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(client.query_one("select 1::bigint", &[]).await.unwrap().get::<_, i64>(0), 1);

    let address = server.address("flight");
    let plain = Endpoint::new(format!("http://{address}")).unwrap().connect().await;
    if let Ok(channel) = plain {
        let mut client = arrow_flight::sql::client::FlightSqlServiceClient::new(channel);
        client.set_token(ANALYST.into());
        client.execute("select 1".into(), None).await.unwrap_err();
    }
    let connector = Connector(address);
    let channel = Endpoint::new(format!("http://{address}")).unwrap().connect_with_connector(connector).await.unwrap();
    let mut client = arrow_flight::sql::client::FlightSqlServiceClient::new(channel);
    client.set_token(ANALYST.into());
    client.execute("select 1".into(), None).await.unwrap();
}

/// Connects with TLS below a channel that does not know of it.
struct Connector(std::net::SocketAddr);

impl tonic::codegen::Service<http::Uri> for Connector {
    type Response = TokioIo<TlsStream<tokio::net::TcpStream>>;
    type Error = std::io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let address = self.0;
        Box::pin(async move { Ok(TokioIo::new(tls(tokio::net::TcpStream::connect(address).await?, &["h2"]).await)) })
    }
}

#[test]
fn plain_text_stays_on_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.toml");
    std::fs::write(&tokens, format!("[[token]]\nname = \"a\"\nsecret = \"{ANALYST}\"\n")).unwrap();
    let run = whole().run();
    let serve = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_salmon"))
            .args(["serve", "--run", run.to_str().unwrap(), "--token-file", tokens.to_str().unwrap()])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = serve(&["--http", "0.0.0.0:0"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("plain text over a network") && error.contains("--tls-cert"), "{error}");
    let (code, error) = serve(&[]);
    assert_eq!(code, Some(2));
    assert!(error.contains("nowhere to listen"), "{error}");
    let (code, error) = serve(&["--http", "127.0.0.1:0", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("/nowhere"), "{error}");
}

#[test]
fn a_token_file_is_checked_and_never_quoted() {
    use salmon::serve::Tokens;
    let wrong = |text: &str| {
        let error = Tokens::parse("tokens.toml", text).unwrap_err().to_string();
        assert!(error.starts_with("tokens.toml") && !error.contains(ANALYST), "{error}");
        error
    };
    let with = |more: &str| format!("[[token]]\nname = \"a\"\nsecret = \"{ANALYST}\"\n{more}");
    assert!(wrong("").contains("token"));
    assert!(wrong("token = []").contains("holds no token"));
    assert!(wrong(&with("colour = 1")).contains("colour"));
    assert!(wrong(&with("rows = \"many\"")).contains("token file"));
    assert!(wrong(&with("rows = 0")).contains("a limit of 0"));
    assert!(wrong(&with("expires = 2027-01-01")).contains("a time with a zone"));
    assert!(wrong(&with(&format!("[[token]]\nname = \"b\"\nsecret = \"{ANALYST}\""))).contains("another one"));
    assert!(wrong("[[token]]\nname = \"a\"\nsecret = \"short\"").contains("under 16"));
    assert!(wrong("[[token]]\nname = \"a\"").contains("one of secret"));
    assert!(wrong("[[token]]\nname = \"a b\"\nsecret = \"0123456789abcdef\"").contains("a name is made"));
    assert!(wrong("[[token]]\nname = \"a\"\nsecret_env = \"SALMON_NO_SUCH_VARIABLE\"").contains("is not set"));
    assert!(wrong("[[token]]\nname = \"a\"\nsecret_sha256 = \"12\"").contains("64 hexadecimal"));
    let until = Tokens::parse("tokens.toml", &with("expires = 2100-01-01T00:00:00+02:00")).unwrap();
    assert!(until.find(Some("a"), ANALYST).is_some() && until.find(Some("b"), ANALYST).is_none());
}
