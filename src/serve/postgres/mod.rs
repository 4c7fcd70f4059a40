//! The Postgres wire protocol, for psql, psycopg and what else speaks it.
//!
//! In: the simple and the extended protocol. Out: rows. The password is the token, the user its name; with a certificate
//! nothing but TLS is spoken. `pg_catalog` and the functions that tools expect are those of `datafusion-pg-catalog`.
//! What tools set when they connect ([`settings`]) is answered and has no effect.

mod extended;
mod login;
mod rows;
mod settings;
mod simple;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider};
use datafusion::prelude::SessionContext;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use pgwire::api::cancel::CancelHandler;
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::{ClientInfo, PgWireServerHandlers};
use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::startup::SecretKey;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use self::login::Login;
use super::engine::Origin;
use super::failure::{Failure, Why};
use super::gate::Gate;
use super::listen::{Accepted, Listener};
use super::tokens::Token;
use crate::query::CATALOG;
use crate::{Error, Result};

pub(super) const PROTOCOL: &str = "postgres";

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(12 * 3600);

/// Adds what Postgres' tools look for to a session.
///
/// # Errors
/// An internal error when it cannot be added.
pub(super) fn prepare_session(context: &SessionContext) -> Result<()> {
    let bad = |e| Error::internal("pg_catalog", "cannot be set up").because(e);
    // The catalog of the runs takes no schemas; one that holds the same ones does.
    if let Some(runs) = context.catalog(CATALOG) {
        let catalog = MemoryCatalogProvider::new();
        for name in runs.schema_names() {
            if let Some(schema) = runs.schema(&name) {
                catalog.register_schema(&name, schema).map_err(bad)?;
            }
        }
        context.register_catalog(CATALOG, Arc::new(catalog));
    }
    setup_pg_catalog(context, CATALOG, EmptyContextProvider).map_err(|e| bad(*e))
}

/// Serves connections until the server stops.
pub(super) async fn serve(listener: Listener, tls: Option<TlsAcceptor>, gate: Gate, mut stop: watch::Receiver<bool>) {
    let handlers = Arc::new(Handlers {
        login: Arc::new(Login::new(gate.clone(), tls.is_some())),
        session: Arc::new(Session { gate, parser: Arc::new(PostgresCompatibilityParser::new()) }),
    });
    while let Some(Accepted { socket, place }) = listener.accept(&mut stop).await {
        let (tls, handlers) = (tls.clone(), Arc::clone(&handlers));
        tokio::spawn(async move {
            let _place = place;
            // What a client breaks is the client's.
            let _ = tokio::time::timeout(IDLE, pgwire::tokio::process_socket(socket, tls, handlers)).await;
        });
    }
}

struct Handlers {
    login: Arc<Login>,
    session: Arc<Session>,
}

impl PgWireServerHandlers for Handlers {
    fn startup_handler(&self) -> Arc<impl pgwire::api::auth::StartupHandler> {
        Arc::clone(&self.login)
    }

    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.session)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::clone(&self.session)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::clone(&self.session)
    }
}

/// What connections ask. Cloning is cheap.
#[derive(Clone)]
struct Session {
    gate: Gate,
    parser: Arc<PostgresCompatibilityParser>,
}

/// Who a connection logged in as. Nobody asks anything without: the library lets messages through that were sent behind a
/// failed login.
fn token<C: ClientInfo>(client: &C) -> Result<Arc<Token>, PgWireError> {
    let found = client.session_extensions().get::<Arc<Token>>();
    found.map(|token| Arc::clone(token.as_ref())).ok_or_else(|| fatal("28000", "there was no login"))
}

fn origin<C: ClientInfo>(client: &C) -> Origin {
    let (process, key) = client.pid_and_secret_key();
    Origin { protocol: PROTOCOL, tag: tag(process, &key) }
}

/// What a query is cancelled by. The same key is a number or bytes, by the version of the connection it comes over.
fn tag(process: i32, key: &SecretKey) -> String {
    format!("postgres {process} {:?}", key.to_bytes())
}

#[async_trait]
impl CancelHandler for Session {
    async fn on_cancel_request(&self, request: CancelRequest) {
        self.gate.engine.cancel_tagged(&tag(request.pid, &request.secret_key));
    }
}

/// An error that ends the connection.
fn fatal(code: &str, text: &str) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".into(), code.into(), text.into())))
}

impl From<Failure> for PgWireError {
    fn from(failure: Failure) -> Self {
        let code = match failure.why {
            Why::Unauthenticated => return fatal("28P01", &failure.text),
            Why::Refused => "25006",
            Why::Invalid => "42000",
            Why::Time | Why::Cancelled => "57014",
            Why::Rows => "54000",
            Why::Memory => "53200",
            Why::Unavailable => "57P01",
            Why::Internal => "XX000",
        };
        PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".into(), code.into(), failure.text)))
    }
}
