//! A proxy in front of an S3 server that does to requests what networks and servers do.
//!
//! ```text
//! salmon ──> proxy ──> server      of every ten requests one meets:
//!               │                  500, 503 SlowDown, silence (before or after it was applied), a reset (before or
//!               └── fault           after), an answer cut short, an old answer for a key that was just written
//! ```
//! In: HTTP/1.1 requests, one per connection; `Host` stays as it is, so that signatures hold. Out: the server's answers,
//! or faults, drawn from a seed and the request's number.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use salmon::draw::Key;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::stale::History;

/// A request in full.
pub struct Request {
    /// GET, HEAD, PUT, POST or DELETE.
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// The headers, as sent, but for `connection`.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(&found.1).ok()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"connection: close\r\n\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Error,
    SlowDown,
    Silence,
    SilenceAfter,
    Reset,
    ResetAfter,
    Truncated,
    Stale,
}

/// Their names, in the order of [`Fault`].
const NAMES: [&str; 8] = [
    "500",
    "503 SlowDown",
    "silence",
    "silence after it was applied",
    "reset",
    "reset after it was applied",
    "truncated",
    "stale",
];

/// The proxy; it serves as long as the runtime lives.
pub struct Proxy {
    server: String,
    key: Key,
    /// One request in so many meets a fault.
    share: f64,
    requests: AtomicU64,
    faults: [AtomicU64; NAMES.len()],
    history: History,
}

impl Proxy {
    /// Starts a proxy for the server at `server` (host:port); gives its address, too.
    pub async fn start(server: String, key: Key, share: f64) -> io::Result<(Arc<Proxy>, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (requests, faults, history) = Default::default();
        let proxy = Arc::new(Proxy { server, key, share, requests, faults, history });
        let serving = Arc::clone(&proxy);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = Arc::clone(&serving);
                // A client or server that goes away in the middle is what this is about.
                tokio::spawn(async move { proxy.serve(client).await });
            }
        });
        Ok((proxy, address))
    }

    /// Faults so far.
    pub fn faults(&self) -> u64 {
        self.faults.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Requests, and faults by name.
    pub fn report(&self) -> String {
        let counts: Vec<String> = NAMES
            .iter()
            .zip(&self.faults)
            .map(|(name, count)| format!("{} {name}", count.load(Ordering::Relaxed)))
            .collect();
        format!("{} requests: {}", self.requests.load(Ordering::Relaxed), counts.join(", "))
    }

    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let Some(request) = read(&mut client).await? else { return Ok(()) };
        let fault = self.draw(&request);
        match fault {
            Some(Fault::Error) => {
                client.write_all(&answer(&request, 500, "Internal Server Error", &error("InternalError"))).await
            }
            Some(Fault::SlowDown) => client.write_all(&answer(&request, 503, "Slow Down", &error("SlowDown"))).await,
            Some(Fault::Silence) => silence(&mut client).await,
            Some(Fault::Reset) => client.set_zero_linger(),
            Some(Fault::Stale) => {
                let real = self.forward(&request).await?;
                let old = self.history.stale(&request, &real);
                client.write_all(&old.unwrap_or(real)).await
            }
            None | Some(Fault::SilenceAfter | Fault::ResetAfter | Fault::Truncated) => {
                let real = self.forward(&request).await?;
                match fault {
                    Some(Fault::SilenceAfter) => silence(&mut client).await,
                    Some(Fault::ResetAfter) => client.set_zero_linger(),
                    Some(Fault::Truncated) => client.write_all(&real[..cut(&real)]).await,
                    _ => client.write_all(&real).await,
                }
            }
        }
    }

    /// Whether this request meets a fault; counts both.
    fn draw(&self, request: &Request) -> Option<Fault> {
        let key = self.key.with(self.requests.fetch_add(1, Ordering::Relaxed));
        if key.uniform(0) >= self.share {
            return None;
        }
        let all = [
            Fault::Error,
            Fault::SlowDown,
            Fault::Silence,
            Fault::SilenceAfter,
            Fault::Reset,
            Fault::ResetAfter,
            Fault::Truncated,
        ];
        // Few requests read what was just written; every second fault of theirs is an old answer.
        let stale = self.history.fresh(request) && key.uniform(1) < 0.5;
        let fault = if stale { Fault::Stale } else { all[key.below(2, all.len() as u64) as usize] };
        self.faults[fault as usize].fetch_add(1, Ordering::Relaxed);
        Some(fault)
    }

    /// The server's answer, whole.
    async fn forward(&self, request: &Request) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(&self.server).await?;
        server.write_all(&request.bytes()).await?;
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).await?;
        let status = bytes.get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok());
        if status.is_some_and(|code| (200..300).contains(&code)) {
            self.history.wrote(request);
        }
        Ok(bytes)
    }
}

/// One request; `None` when the client closes without one, or in the middle of it.
async fn read(client: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let (mut request, start, length) = loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        let done = parsed.parse(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        if let httparse::Status::Complete(start) = done {
            let kept = parsed.headers.iter().filter(|header| !header.name.eq_ignore_ascii_case("connection"));
            let headers: Vec<(String, Vec<u8>)> = kept.map(|h| (h.name.to_string(), h.value.to_vec())).collect();
            let request = Request {
                method: parsed.method.unwrap_or_default().to_string(),
                target: parsed.path.unwrap_or_default().to_string(),
                headers,
                body: Vec::new(),
            };
            if request.header("transfer-encoding").is_some() {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "a body without its length"));
            }
            let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            break (request, start, length);
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    while bytes.len() < start + length {
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    request.body = bytes[start..start + length].to_vec();
    Ok(Some(request))
}

/// An answer of the proxy's own.
pub fn answer(request: &Request, status: u16, reason: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    if request.method != "HEAD" {
        bytes.extend_from_slice(body);
    }
    bytes
}

/// An error as S3 writes it.
pub fn error(code: &str) -> Vec<u8> {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>a fault of the proxy</Message></Error>")
        .into_bytes()
}

/// Where to cut an answer: in the middle of its body, or of its head when it has none.
fn cut(bytes: &[u8]) -> usize {
    let head = bytes.windows(4).position(|at| at == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    if bytes.len() > head { head + (bytes.len() - head) / 2 } else { bytes.len() / 2 }
}

/// Says nothing until the client gives up.
async fn silence(client: &mut TcpStream) -> io::Result<()> {
    let mut rest = [0; 64];
    let closed = async { while client.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let _ = tokio::time::timeout(Duration::from_secs(60), closed).await;
    Ok(())
}
