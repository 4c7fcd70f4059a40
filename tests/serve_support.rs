//! A `salmon serve` in a process of its own, and clients for it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use arrow_flight::sql::client::FlightSqlServiceClient;
use serde_json::Value;
use tokio_postgres::NoTls;
use tonic::transport::{Channel, Endpoint};

use super::pipeline_support::whole;

/// The secret of token `analyst`, which has no limits to speak of.
pub(crate) const ANALYST: &str = "analyst-secret-0123456789";
/// That of `narrow`: 100 rows, 2 seconds, 16 MiB.
pub(crate) const NARROW: &str = "narrow-secret-0123456789";
/// That of `hasty`: 2 seconds.
pub(crate) const HASTY: &str = "hasty-secret-0123456789";
/// That of `expired`.
pub(crate) const EXPIRED: &str = "expired-secret-0123456789";
/// That of `auditor`, who sees all queries, given by its hash.
pub(crate) const AUDITOR: &str = "auditor-secret-0123456789";
/// That of `modeller`, who may ask models.
pub(crate) const MODELLER: &str = "modeller-secret-0123456789";
/// What stands in the server's environment and must not be seen.
pub(crate) const HIDDEN: &str = "do-not-show-this-hunter2";

fn tokens() -> String {
    use sha2::Digest;
    let hash: String = sha2::Sha256::digest(AUDITOR).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        r#"
        [[token]]
        name = "analyst"
        secret = "{ANALYST}"

        [[token]]
        name = "narrow"
        secret_env = "NARROW_SECRET"
        rows = 100
        seconds = 2
        memory_mib = 16

        [[token]]
        name = "hasty"
        secret = "{HASTY}"
        seconds = 2

        [[token]]
        name = "expired"
        secret = "{EXPIRED}"
        expires = 2020-01-01T00:00:00Z

        [[token]]
        name = "auditor"
        secret_sha256 = "{hash}"
        all_queries = true

        [[token]]
        name = "modeller"
        secret = "{MODELLER}"
        models = true
        "#
    )
}

/// A server; it ends when it is dropped.
pub(crate) struct Server {
    pub(crate) process: Child,
    addresses: BTreeMap<String, SocketAddr>,
    folder: PathBuf,
    _scratch: Option<tempfile::TempDir>,
}

impl Server {
    /// Over the run that all tests share, with all protocols.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut server = Server::begin(scratch.path(), arguments, |command| command);
        server._scratch = Some(scratch);
        server
    }

    fn begin(folder: &Path, arguments: &[&str], wrap: impl FnOnce(Command) -> Command) -> Self {
        let file = folder.join("tokens.toml");
        fs::write(&file, tokens()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_salmon"));
        command.args(["serve", "--run"]).arg(whole().run()).arg("--token-file").arg(&file);
        for protocol in ["--http", "--flight", "--postgres"] {
            command.args([protocol, "127.0.0.1:0"]);
        }
        command.args(arguments);
        let mut process = wrap(command)
            .env("NARROW_SECRET", NARROW)
            .env("AWS_SECRET_ACCESS_KEY", HIDDEN)
            .env("SALMON_LOG", "info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut addresses = BTreeMap::new();
        for line in BufReader::new(process.stdout.take().unwrap()).lines().take(3) {
            let line = line.unwrap();
            let (protocol, address) = line.split_once(' ').unwrap();
            addresses.insert(protocol.to_string(), address.parse().unwrap());
        }
        let server = Server { process, addresses, folder: folder.to_path_buf(), _scratch: None };
        assert_eq!(server.addresses.len(), 3, "{}", server.stderr());
        server
    }

    /// What it wrote to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.folder.join("stderr")).unwrap()
    }

    pub(crate) fn address(&self, protocol: &str) -> SocketAddr {
        self.addresses[protocol]
    }

    /// A request over HTTP/1.1.
    pub(crate) fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: salmon\r\nConnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let mut socket = TcpStream::connect(self.address("http")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let whole = socket.read_to_end(&mut bytes).is_ok();
        Reply::parse(&bytes, whole)
    }

    /// A statement over HTTP.
    pub(crate) fn ask(&self, secret: &str, sql: &str) -> Reply {
        self.http("POST", "/query", &[("Authorization", &format!("Bearer {secret}"))], sql)
    }

    /// Its rows.
    #[track_caller]
    pub(crate) fn rows(&self, secret: &str, sql: &str) -> Vec<Value> {
        let reply = self.ask(secret, sql);
        assert_eq!(reply.status, 200, "{sql}: {}", reply.text());
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// A Flight SQL client with a token.
    pub(crate) async fn flight(&self, secret: &str) -> FlightSqlServiceClient<Channel> {
        let endpoint = Endpoint::new(format!("http://{}", self.address("flight"))).unwrap();
        let mut client = FlightSqlServiceClient::new(endpoint.connect().await.unwrap());
        client.set_token(secret.to_string());
        client
    }

    /// A Postgres client.
    pub(crate) async fn postgres(
        &self,
        user: &str,
        secret: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let address = self.address("postgres");
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(address.port()).user(user).password(secret).dbname("salmon");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The one server that tests share who only ask. It ends with the process of the tests.
pub(crate) fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serve");
        fs::create_dir_all(&folder).unwrap();
        // The shell reads until this process is gone, however it goes.
        Server::begin(&folder, &["--memory", "256"], |command| {
            let mut shell = Command::new("sh");
            shell.args(["-c", "\"$@\" </dev/null & server=$!; cat >/dev/null; kill $server", "sh"]);
            shell.arg(command.get_program()).args(command.get_args());
            shell
        })
    })
}

/// What came back over HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as it should.
    pub(crate) whole: bool,
}

impl Reply {
    fn parse(bytes: &[u8], mut whole: bool) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = head.parse(bytes) else {
            return Reply { status: 0, headers: BTreeMap::new(), body: bytes.to_vec(), whole: false };
        };
        let status = head.code.unwrap();
        let text = |header: &httparse::Header| String::from_utf8_lossy(header.value).into_owned();
        let headers: BTreeMap<String, String> =
            head.headers.iter().map(|header| (header.name.to_lowercase(), text(header))).collect();
        let mut body = bytes[length..].to_vec();
        if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            let mut rest = body.as_slice();
            let mut joined = Vec::new();
            let mut ended = false;
            while let Ok(httparse::Status::Complete((skip, size))) = httparse::parse_chunk_size(rest) {
                let end = skip + size as usize;
                if size == 0 || rest.len() < end {
                    ended = size == 0;
                    break;
                }
                joined.extend_from_slice(&rest[skip..end]);
                rest = &rest[end + 2..];
            }
            whole &= ended;
            body = joined;
        }
        Reply { status, headers, body, whole }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reason of a failure.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let value: Value = serde_json::from_slice(&self.body).unwrap();
        value["error"].as_str().unwrap().to_string()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }
}
