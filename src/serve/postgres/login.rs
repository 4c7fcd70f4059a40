//! Logging in.
//!
//! In: a user and a password, over TLS where there is a certificate. Out: the token in the connection's extensions, or
//! the end of the connection: every failure here is fatal.

use std::fmt::Debug;

use async_trait::async_trait;
use futures::{Sink, SinkExt};
use pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::{
    ClientInfo, METADATA_USER, PgWireConnectionState, PidSecretKeyGenerator, RandomPidSecretKeyGenerator,
};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::startup::Authentication;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};

use super::{PROTOCOL, fatal};
use crate::serve::gate::Gate;

/// The version whose catalog tools may expect.
const SERVER_VERSION: &str = "16.6 (salmon)";

pub(super) struct Login {
    gate: Gate,
    needs_tls: bool,
    parameters: DefaultServerParameterProvider,
    keys: RandomPidSecretKeyGenerator,
}

impl Login {
    pub(super) fn new(gate: Gate, needs_tls: bool) -> Self {
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.server_version = SERVER_VERSION.into();
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        Login { gate, needs_tls, parameters, keys: RandomPidSecretKeyGenerator::default() }
    }

    fn refuse(&self, code: &str, text: &str) -> PgWireError {
        self.gate.engine.metrics.refused(PROTOCOL);
        fatal(code, text)
    }
}

#[async_trait]
impl StartupHandler for Login {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let broken = |_| fatal("08P01", "this is no login of the Postgres protocol");
        match (client.state(), message) {
            (PgWireConnectionState::AwaitingStartup, PgWireFrontendMessage::Startup(startup)) => {
                if self.needs_tls && !client.is_secure() {
                    return Err(self.refuse("28000", "only TLS is spoken here; connect with sslmode=require"));
                }
                protocol_negotiation(client, &startup).await.map_err(broken)?;
                save_startup_parameters_to_metadata(client, &startup);
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                let ask = PgWireBackendMessage::Authentication(Authentication::CleartextPassword);
                client.send(ask).await?;
                Ok(())
            }
            (
                PgWireConnectionState::AuthenticationInProgress,
                PgWireFrontendMessage::PasswordMessageFamily(message),
            ) => {
                let password = message.into_password().map_err(broken)?;
                let user = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
                let Some(token) = self.gate.tokens.find(Some(&user), &password.password) else {
                    return Err(self.refuse("28P01", "user or password is wrong, or the token has expired"));
                };
                client.session_extensions().insert(token);
                let (process, key) = self.keys.generate(client);
                client.set_pid_and_secret_key(process, key);
                finish_authentication(client, &self.parameters).await
            }
            _ => Err(fatal("08P01", "this is no login of the Postgres protocol")),
        }
    }
}
