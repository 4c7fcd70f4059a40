//! The simple protocol: text in, rows as text out.

use std::fmt::Debug;

use async_trait::async_trait;
use datafusion::sql::parser::Statement as Parsed;
use futures::Sink;
use pgwire::api::portal::Format;
use pgwire::api::query::SimpleQueryHandler;
use pgwire::api::results::Response;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;

use super::settings::Setting;
use super::{Session, origin, rows, token};
use crate::serve::failure::{Failure, Why};
use crate::serve::statement::{self, Statement};

impl Session {
    /// The statements of a text, rewritten from what Postgres' tools ask into what is understood here.
    pub(super) fn parse(&self, text: &str) -> Result<Vec<datafusion::sql::sqlparser::ast::Statement>, Failure> {
        let text = statement::prepared(text)?;
        self.parser.parse(&text).map_err(|e| Failure::new(Why::Invalid, e.to_string()))
    }
}

#[async_trait]
impl SimpleQueryHandler for Session {
    async fn do_query<C>(&self, client: &mut C, text: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let token = token(client)?;
        let format = Format::UnifiedText;
        let mut responses = Vec::new();
        for parsed in self.parse(text)? {
            if let Some(setting) = Setting::of(&parsed)? {
                responses.push(setting.answer(&format)?);
                continue;
            }
            let statement = Statement::checked(text, Parsed::Statement(Box::new(parsed)))?;
            let planned = self.gate.engine.plan(&token, statement).await?;
            let schema = planned.schema();
            let answer = self.gate.engine.run(&token, planned, None, origin(client)).await?;
            responses.push(rows::response(client, &schema, &format, answer)?);
        }
        Ok(responses)
    }
}
