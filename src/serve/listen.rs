//! Connections, in plain text or TLS.
//!
//! In: an address, a certificate. Out: sockets for the protocols; for those on HTTP, connections that are served. What a
//! client can do by being slow is bounded here: a time for the handshake and for the head of a request, pings, and a
//! number of connections.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::metrics::{Metrics, Open};
use crate::{Error, Result};

/// For a TLS handshake, and for the head of a request.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Connections of one protocol at a time; more wait in the system's queue.
const CONNECTIONS: usize = 1024;

/// Where a certificate and its key lie.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificates, PEM, the server's own first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads them; `protocols` are the names for ALPN.
    pub(super) fn load(&self, protocols: &[&str]) -> Result<TlsAcceptor> {
        let bad = |path: &Path, problem: &str| Error::config(path.display(), problem.to_string());
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|e| bad(&self.certificate, "is no certificate in PEM").because(e))?;
        // What the parser says of a key stays here.
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|_| bad(&self.key, "is no private key in PEM"))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::internal("TLS", "cannot be set up").because(e))?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(|e| bad(&self.certificate, "does not go with its key").because(e))?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// A socket that one protocol listens on.
pub(super) struct Listener {
    tcp: TcpListener,
    protocol: &'static str,
    metrics: Arc<Metrics>,
    connections: Arc<Semaphore>,
}

/// A client, and its place among the connections.
pub(super) struct Accepted {
    pub(super) socket: TcpStream,
    pub(super) place: (OwnedSemaphorePermit, Open),
}

impl Listener {
    /// Listens on `address`. Without TLS that must be this machine's own, unless `plain_text` says otherwise.
    ///
    /// # Errors
    /// A configuration error that names the option and the address.
    pub(super) async fn bind(
        protocol: &'static str,
        address: &str,
        encrypted: bool,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let place = format!("--{protocol} {address}");
        let tcp =
            TcpListener::bind(address).await.map_err(|e| Error::config(&place, "cannot be listened on").because(e))?;
        let listener = Listener { tcp, protocol, metrics, connections: Arc::new(Semaphore::new(CONNECTIONS)) };
        if !encrypted && !listener.address()?.ip().is_loopback() {
            let problem = "would send tokens in plain text over a network; give --tls-cert and --tls-key, or \
                           --plain-text where something else encrypts";
            return Err(Error::config(place, problem));
        }
        Ok(listener)
    }

    /// The address with its real port.
    pub(super) fn address(&self) -> Result<SocketAddr> {
        self.tcp.local_addr().map_err(|e| Error::internal("listener", "has no address").because(e))
    }

    /// The next client; nothing once the server stops.
    pub(super) async fn accept(&self, stop: &mut watch::Receiver<bool>) -> Option<Accepted> {
        loop {
            let connections = Arc::clone(&self.connections);
            let next = async {
                let permit = connections.acquire_owned().await.ok()?;
                Some((self.tcp.accept().await, permit))
            };
            let accepted = tokio::select! {
                next = next => next?,
                _ = stop.wait_for(|stop| *stop) => return None,
            };
            match accepted {
                (Ok((socket, _)), permit) => {
                    // Answers are small and awaited.
                    let _ = socket.set_nodelay(true);
                    return Some(Accepted { socket, place: (permit, self.metrics.connected(self.protocol)) });
                }
                // Out of file descriptors, for example: others may end soon.
                (Err(e), _) => {
                    tracing::warn!("{}: a connection was not accepted: {e}", self.protocol);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves HTTP/1 and HTTP/2 until the server stops; then what is under way ends.
    pub(super) async fn serve(self, tls: Option<TlsAcceptor>, router: axum::Router, mut stop: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        while let Some(Accepted { socket, place }) = self.accept(&mut stop).await {
            let (tls, router, watcher) = (tls.clone(), router.clone(), graceful.watcher());
            tokio::spawn(async move {
                let _place = place;
                match tls {
                    None => connection(socket, router, watcher).await,
                    Some(tls) => {
                        if let Ok(Ok(socket)) = tokio::time::timeout(PATIENCE, tls.accept(socket)).await {
                            connection(socket, router, watcher).await;
                        }
                    }
                }
            });
        }
        graceful.shutdown().await;
    }
}

async fn connection(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: axum::Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE)
        .max_header_list_size(64 << 10)
        .max_concurrent_streams(100);
    let served = builder.serve_connection(TokioIo::new(socket), TowerToHyperService::new(router)).into_owned();
    // What a client breaks is the client's.
    let _ = watcher.watch(served).await;
}
