//! `salmon serve`: SQL over runs for the tools that people have.
//!
//! In: runs, a token file, addresses. Out: a line per address on stdout; then answers, until SIGINT or SIGTERM.

use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::sql::say;
use crate::catalog::{self, Catalog};
use crate::serve::{Options, Server, TlsFiles, Tokens};
use crate::{Error, Result};

/// Serve runs, read-only, over Flight SQL, the Postgres wire protocol and HTTP.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A run, or several with a name each: a=runs/a b=s3://bucket/team/run-7
    #[arg(long, default_value = "runs/main", value_name = "[NAME=]URL", num_args = 1..)]
    pub run: Vec<String>,
    /// Where to listen for Flight SQL, e.g. 127.0.0.1:31337; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    pub flight: Option<String>,
    /// Where to listen for the Postgres wire protocol, e.g. 127.0.0.1:5433
    #[arg(long, value_name = "ADDRESS")]
    pub postgres: Option<String>,
    /// Where to listen for HTTP: queries, metrics and a web page, e.g. 127.0.0.1:8080
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// Who may ask, and how much; docs/serve.md says how it is written
    #[arg(long, value_name = "FILE", env = "SALMON_TOKEN_FILE")]
    pub token_file: PathBuf,
    /// Certificates, PEM; without them only addresses of this machine are listened on
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Listen without TLS on any address, where something else encrypts
    #[arg(long, conflicts_with = "tls_cert")]
    pub plain_text: bool,
    /// Memory that all queries together may hold, MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(16..))]
    pub memory: u32,
}

/// Runs the command.
///
/// # Errors
/// A configuration error for the token file, the certificate or an address; a store error for a place that holds no run.
pub async fn run(args: ServeArgs) -> Result<()> {
    let tokens = Tokens::read(&args.token_file)?;
    let runs: Vec<(Option<String>, String)> = args.run.iter().map(|run| named(run)).collect();
    let catalog = Catalog::open(&runs, &catalog::Options::default()).await?;
    let options = Options {
        flight: args.flight,
        postgres: args.postgres,
        http: args.http,
        tls: args.tls_cert.zip(args.tls_key).map(|(certificate, key)| TlsFiles { certificate, key }),
        plain_text: args.plain_text,
        memory: (args.memory as usize) << 20,
    };
    // Before anybody is told where to connect: a signal from then on ends the server well.
    let bad = |e| Error::internal("signals", "cannot be listened for").because(e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(bad)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(bad)?;
    let server = Server::start(catalog, tokens, &options).await?;
    for (protocol, address) in server.addresses() {
        say(&format!("{protocol} {address}\n"))?;
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    server.end().await;
    Ok(())
}

/// `a=URL` is a run with a name; a URL's own `=` stands behind a `/` or `:`.
fn named(text: &str) -> (Option<String>, String) {
    match text.split_once('=') {
        Some((name, url)) if !name.contains(['/', ':', '.']) => (Some(name.to_string()), url.to_string()),
        _ => (None, text.to_string()),
    }
}
