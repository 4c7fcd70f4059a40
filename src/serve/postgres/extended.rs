//! The extended protocol: prepared statements with parameters.
//!
//! In: parse, bind, describe, execute. Out: rows, as text or binary. What is prepared is the parsed statement; it is
//! planned again whenever it runs, so that it sees the run as it is then.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use arrow_pg::datatypes::{arrow_schema_to_pg_fields, into_pg_type};
use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as Parsed;
use futures::Sink;
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::ExtendedQueryHandler;
use pgwire::api::results::{FieldInfo, Response};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;

use super::settings::Setting;
use super::{Session, origin, rows, token};
use crate::serve::failure::Failure;
use crate::serve::statement::Statement;

/// What was prepared.
#[derive(Clone)]
pub(super) enum Prepared {
    Setting(Setting),
    /// The statement, and its plan as it was then, for the types.
    Query(Statement, Arc<LogicalPlan>),
}

#[async_trait]
impl QueryParser for Session {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, text: &str, _: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let token = token(client)?;
        let mut parsed = self.parse(text)?.into_iter();
        let Some(first) = parsed.next() else { return Ok(None) };
        if parsed.next().is_some() {
            return Err(Failure::refused("one statement at a time can be prepared").into());
        }
        if let Some(setting) = Setting::of(&first)? {
            return Ok(Some(Prepared::Setting(setting)));
        }
        let statement = Statement::checked(text, Parsed::Statement(Box::new(first)))?;
        let planned = self.gate.engine.plan(&token, statement.clone()).await?;
        Ok(Some(Prepared::Query(statement, Arc::new(planned.plan))))
    }

    fn get_parameter_types(&self, prepared: &Prepared) -> PgWireResult<Vec<Type>> {
        let Prepared::Query(_, plan) = prepared else { return Ok(Vec::new()) };
        wire_types(&parameters(plan)?)
    }

    fn get_result_schema(&self, prepared: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        let format = format.unwrap_or(&Format::UnifiedText);
        match prepared {
            Prepared::Setting(setting) => setting.fields(format),
            Prepared::Query(_, plan) => arrow_schema_to_pg_fields(plan.schema().as_arrow(), format, None),
        }
    }
}

#[async_trait]
impl ExtendedQueryHandler for Session {
    type Statement = Prepared;
    type QueryParser = Session;

    fn query_parser(&self) -> Arc<Session> {
        Arc::new(self.clone())
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Prepared>, _: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let token = token(client)?;
        let format = &portal.result_column_format;
        let (statement, plan) = match &portal.statement.statement {
            Prepared::Setting(setting) => return setting.answer(format),
            Prepared::Query(statement, plan) => (statement, plan),
        };
        let values = values(portal, &parameters(plan)?)?;
        let planned = self.gate.engine.plan(&token, statement.clone()).await?;
        let schema = planned.schema();
        let answer = self.gate.engine.run(&token, planned, values, origin(client)).await?;
        rows::response(client, &schema, format, answer)
    }
}

/// The types of `$1`, `$2` and so on, as far as the plan decides them.
fn parameters(plan: &LogicalPlan) -> PgWireResult<Vec<Option<DataType>>> {
    let types = plan.get_parameter_types().map_err(Failure::from)?;
    let mut found: Vec<(u32, Option<DataType>)> = types
        .into_iter()
        .map(|(name, kind)| (name.trim_start_matches('$').parse().unwrap_or(u32::MAX), kind))
        .collect();
    found.sort_by_key(|(place, _)| *place);
    Ok(found.into_iter().map(|(_, kind)| kind).collect())
}

fn wire_types(types: &[Option<DataType>]) -> PgWireResult<Vec<Type>> {
    types.iter().map(|kind| kind.as_ref().map_or(Ok(Type::UNKNOWN), into_pg_type)).collect()
}

fn values(portal: &Portal<Prepared>, types: &[Option<DataType>]) -> PgWireResult<Option<ParamValues>> {
    if portal.parameter_len() == 0 {
        return Ok(None);
    }
    let wire = wire_types(types)?;
    let wire: Vec<Option<&Type>> = wire.iter().map(Some).collect();
    let types: Vec<Option<&DataType>> = types.iter().map(Option::as_ref).collect();
    deserialize_parameters_with_server_types(portal, &types, &wire).map(Some)
}
