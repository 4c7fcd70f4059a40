//! Runs served read-only: Flight SQL, the Postgres wire protocol, HTTP.
//!
//! In: the runs of a catalog, a token file, addresses. Out: answers to those who show a token.
//!
//! ```text
//! listen.rs     connections, TLS          flight/    Arrow batches over gRPC
//! gate.rs       who has a token           postgres/  rows for psql and BI tools
//!    │                                    http/      JSON, CSV, Arrow; metrics; a page
//!    ▼
//! statement.rs  one that only reads
//! plan.rs       a plan that only reads, without models where the token may not
//! engine.rs     its own session, deadline, share of the memory, line in the log
//! answer.rs     batches, as the client takes them
//! ```
//! No protocol has a way around the engine. A session of the catalog knows the tables of its runs and nothing else: no
//! file, no bucket, no setting can be named in it, so there is nothing to filter out of SQL but what would write. What is
//! sent is bounded by the token's rows, time and memory.

mod answer;
mod bounded;
mod engine;
mod failure;
mod flight;
mod gate;
mod http;
mod listen;
mod log;
mod memory;
mod metrics;
mod plan;
mod postgres;
mod statement;
mod tables;
pub mod tokens;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use listen::TlsFiles;
pub use tokens::Tokens;

use self::engine::Engine;
use self::gate::Gate;
use self::listen::Listener;
use crate::catalog::Catalog;
use crate::{Error, Result};

/// How long queries that run may go on when the server ends, and how long connections then have to take the rest. Whoever
/// ends a server often waits no longer than ten seconds.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(1));

/// How a server runs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Address for Flight SQL.
    pub flight: Option<String>,
    /// Address for the Postgres wire protocol.
    pub postgres: Option<String>,
    /// Address for HTTP.
    pub http: Option<String>,
    /// Certificate and key; without them, addresses of this machine only.
    pub tls: Option<TlsFiles>,
    /// Plain text on any address: something else encrypts.
    pub plain_text: bool,
    /// Bytes of memory for all queries together.
    pub memory: usize,
}

/// A server that listens.
pub struct Server {
    engine: Arc<Engine>,
    stop: watch::Sender<bool>,
    protocols: JoinSet<()>,
    addresses: Vec<(&'static str, SocketAddr)>,
}

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Server {
    /// Begins to listen.
    ///
    /// # Errors
    /// A configuration error for an address, a certificate, or when there is no address at all.
    pub async fn start(catalog: Catalog, tokens: Tokens, options: &Options) -> Result<Self> {
        let engine = Engine::start(catalog, options.memory, tokens.ask_models()).await?;
        let gate = Gate { engine: Arc::clone(&engine), tokens: Arc::new(tokens) };
        let stop = watch::Sender::new(false);
        let (mut protocols, mut addresses) = (JoinSet::new(), Vec::new());
        let asked = [
            (flight::PROTOCOL, &options.flight),
            (postgres::PROTOCOL, &options.postgres),
            (http::PROTOCOL, &options.http),
        ];
        for (protocol, address) in asked {
            let Some(address) = address else { continue };
            let encrypted = options.tls.is_some() || options.plain_text;
            let listener = Listener::bind(protocol, address, encrypted, Arc::clone(&engine.metrics)).await?;
            addresses.push((protocol, listener.address()?));
            protocols.spawn(serving(protocol, listener, gate.clone(), options, stop.subscribe())?);
        }
        if addresses.is_empty() {
            return Err(Error::config("salmon serve", "has nowhere to listen; give --flight, --postgres or --http"));
        }
        Ok(Server { engine, stop, protocols, addresses })
    }

    /// Where it listens: protocol and address, with the real port.
    pub fn addresses(&self) -> &[(&'static str, SocketAddr)] {
        &self.addresses
    }

    /// Ends: no more connections and queries, then what runs, for ten seconds at most.
    pub async fn end(mut self) {
        self.stop.send_replace(true);
        self.engine.stop(PATIENCE.0).await;
        let all = async { while self.protocols.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(PATIENCE.1, all).await;
    }
}

fn serving(
    protocol: &'static str,
    listener: Listener,
    gate: Gate,
    options: &Options,
    stop: watch::Receiver<bool>,
) -> Result<Serving> {
    let tls = |names: &[&str]| options.tls.as_ref().map(|files| files.load(names)).transpose();
    Ok(match protocol {
        flight::PROTOCOL => Box::pin(listener.serve(tls(&["h2"])?, flight::router(gate)?, stop)),
        postgres::PROTOCOL => Box::pin(postgres::serve(listener, tls(&["postgresql"])?, gate, stop)),
        _ => Box::pin(listener.serve(tls(&["h2", "http/1.1"])?, http::router(gate), stop)),
    })
}
