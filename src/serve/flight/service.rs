//! The calls of Flight SQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    ActionCreatePreparedSubstraitPlanRequest, ActionEndSavepointRequest, ActionEndTransactionRequest,
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
    CommandStatementSubstraitPlan, CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, Ticket,
};
use datafusion::common::ParamValues;
use futures::{StreamExt, stream};
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::prepared::{self, Statements};
use super::replies::{Boxed, Info, Result, Rows, answered, batch, info, none};
use super::tickets::{self, invalid, prepared_tag, split, tag, ticket};
use super::{PROTOCOL, metadata};
use crate::Result as SalmonResult;
use crate::serve::engine::Origin;
use crate::serve::failure::Failure;
use crate::serve::gate::{self, Gate};
use crate::serve::statement::Statement;
use crate::serve::tables;
use crate::serve::tokens::Token;

/// Flight SQL over an engine.
pub(super) struct Service {
    gate: Gate,
    statements: Statements,
    tickets: AtomicU64,
    info: SqlInfoData,
    types: XdbcTypeInfoData,
}

impl Service {
    pub(super) fn new(gate: Gate) -> SalmonResult<Self> {
        Ok(Service {
            gate,
            statements: Statements::default(),
            tickets: AtomicU64::new(0),
            info: metadata::sql_info()?,
            types: metadata::types()?,
        })
    }

    /// Plans a text, for its columns.
    async fn columns(&self, token: &Arc<Token>, sql: &str) -> Result<SchemaRef> {
        Ok(self.gate.engine.plan(token, Statement::parse(sql)?).await?.schema())
    }

    async fn ask(&self, token: &Arc<Token>, sql: &str, values: Option<ParamValues>, tag: String) -> Rows {
        let origin = Origin { protocol: PROTOCOL, tag };
        Ok(answered(self.gate.engine.ask(token, sql, values, origin).await?))
    }
}

/// Whom the gate let in.
fn token<T>(request: &Request<T>) -> Result<Arc<Token>> {
    request.extensions().get::<Arc<Token>>().cloned().ok_or_else(|| Failure::unauthenticated().into())
}

fn read_only<T>(what: &str) -> Result<T> {
    Err(Failure::refused(format!("{what} is not possible: the server only reads")).into())
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Service;

    /// Name and token in, the token as a bearer out.
    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Boxed<HandshakeResponse>>> {
        let headers = request.metadata().clone().into_headers();
        let admitted = self.gate.admit(&headers, PROTOCOL).and_then(|_| gate::credentials(&headers));
        let Some((_, secret)) = admitted else { return Err(Failure::unauthenticated().into()) };
        let answer = HandshakeResponse { protocol_version: 0, payload: bytes::Bytes::new() };
        let mut response = Response::new(stream::iter([Ok(answer)]).boxed());
        let bearer = MetadataValue::try_from(format!("Bearer {secret}"));
        let mut bearer = bearer.map_err(|_| Status::from(Failure::unauthenticated()))?;
        bearer.set_sensitive(true);
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let token = token(&request)?;
        let schema = self.columns(&token, &query.query).await?;
        let number = self.tickets.fetch_add(1, Ordering::Relaxed);
        let handle = TicketStatementQuery { statement_handle: ticket(number, &query.query).into() };
        info(request, handle.as_any().encode_to_vec(), &schema)
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Rows {
        let token = token(&request)?;
        let (number, sql) = split(&ticket.statement_handle)?;
        self.ask(&token, sql, None, tag(&token, number)).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let token = token(&request)?;
        let statement = self.statements.get(&token, &query.prepared_statement_handle)?;
        let schema = self.columns(&token, &statement.sql).await?;
        info(request, query.as_any().encode_to_vec(), &schema)
    }

    async fn do_get_prepared_statement(&self, query: CommandPreparedStatementQuery, request: Request<Ticket>) -> Rows {
        let token = token(&request)?;
        let statement = self.statements.get(&token, &query.prepared_statement_handle)?;
        let tag = prepared_tag(&token, &query.prepared_statement_handle);
        self.ask(&token, &statement.sql, statement.values.map(ParamValues::from), tag).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult> {
        let token = token(&request)?;
        let planned = self.gate.engine.plan(&token, Statement::parse(&query.query)?).await?;
        let result = ActionCreatePreparedStatementResult {
            dataset_schema: prepared::encoded(&planned.schema())?,
            parameter_schema: prepared::encoded(&prepared::parameters(&planned.plan)?)?,
            prepared_statement_handle: self.statements.add(&token, query.query).into(),
        };
        Ok(result)
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult> {
        let token = token(&request)?;
        let handle = query.prepared_statement_handle;
        self.statements.get(&token, &handle)?;
        let values = prepared::values(request.into_inner()).await?;
        self.statements.bind(&token, &handle, values)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<()> {
        self.statements.remove(&*token(&request)?, &query.prepared_statement_handle)
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        request: Request<Action>,
    ) -> Result<ActionCancelQueryResult> {
        let info = FlightInfo::decode(query.info).map_err(|_| invalid("no FlightInfo"))?;
        let status = tickets::cancel(&self.gate.engine, &*token(&request)?, Some(info))?;
        // The older action numbers its results as the newer one does.
        Ok(ActionCancelQueryResult { result: status as i32 })
    }

    async fn do_action_fallback(&self, request: Request<Action>) -> Result<Response<Boxed<arrow_flight::Result>>> {
        let token = token(&request)?;
        let action = request.into_inner();
        if action.r#type != "CancelFlightInfo" {
            return Err(Status::unimplemented(format!("there is no action {:?} here", action.r#type)));
        }
        let asked = CancelFlightInfoRequest::decode(action.body).map_err(|_| invalid("no CancelFlightInfoRequest"))?;
        let result = CancelFlightInfoResult { status: tickets::cancel(&self.gate.engine, &token, asked.info)? as i32 };
        let body = result.encode_to_vec().into();
        Ok(Response::new(stream::iter([Ok(arrow_flight::Result { body })]).boxed()))
    }

    async fn get_flight_info_catalogs(&self, query: CommandGetCatalogs, request: Request<FlightDescriptor>) -> Info {
        let ticket = query.as_any().encode_to_vec();
        info(request, ticket, &query.into_builder().schema())
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, _: Request<Ticket>) -> Rows {
        let mut builder = query.into_builder();
        self.gate.engine.session().catalog_names().into_iter().for_each(|name| builder.append(name));
        batch(builder.build())
    }

    async fn get_flight_info_schemas(&self, query: CommandGetDbSchemas, request: Request<FlightDescriptor>) -> Info {
        let ticket = query.as_any().encode_to_vec();
        info(request, ticket, &query.into_builder().schema())
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, _: Request<Ticket>) -> Rows {
        let mut builder = query.into_builder();
        for (catalog, schema) in tables::schemas(self.gate.engine.session()) {
            builder.append(catalog, schema);
        }
        batch(builder.build())
    }

    async fn get_flight_info_tables(&self, query: CommandGetTables, request: Request<FlightDescriptor>) -> Info {
        let ticket = query.as_any().encode_to_vec();
        info(request, ticket, &query.into_builder().schema())
    }

    async fn do_get_tables(&self, query: CommandGetTables, _: Request<Ticket>) -> Rows {
        let mut builder = query.into_builder();
        for table in tables::list(self.gate.engine.session()).await? {
            let appended = builder.append(&table.catalog, &table.schema, &table.name, table.kind, &table.columns);
            appended.map_err(|e| Status::internal(format!("table {} cannot be listed: {e}", table.name)))?;
        }
        batch(builder.build())
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let ticket = query.as_any().encode_to_vec();
        info(request, ticket, &query.into_builder().schema())
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, _: Request<Ticket>) -> Rows {
        let mut builder = query.into_builder();
        ["TABLE", "VIEW"].into_iter().for_each(|kind| builder.append(kind));
        batch(builder.build())
    }

    async fn get_flight_info_sql_info(&self, query: CommandGetSqlInfo, request: Request<FlightDescriptor>) -> Info {
        let ticket = query.as_any().encode_to_vec();
        info(request, ticket, &query.into_builder(&self.info).schema())
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _: Request<Ticket>) -> Rows {
        batch(query.into_builder(&self.info).build())
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let ticket = query.as_any().encode_to_vec();
        info(request, ticket, &query.into_builder(&self.types).schema())
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, _: Request<Ticket>) -> Rows {
        batch(query.into_builder(&self.types).build())
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(request, query.as_any().encode_to_vec(), &metadata::primary_keys())
    }

    async fn do_get_primary_keys(&self, _: CommandGetPrimaryKeys, _: Request<Ticket>) -> Rows {
        none(metadata::primary_keys())
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(request, query.as_any().encode_to_vec(), &metadata::foreign_keys())
    }

    async fn do_get_exported_keys(&self, _: CommandGetExportedKeys, _: Request<Ticket>) -> Rows {
        none(metadata::foreign_keys())
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(request, query.as_any().encode_to_vec(), &metadata::foreign_keys())
    }

    async fn do_get_imported_keys(&self, _: CommandGetImportedKeys, _: Request<Ticket>) -> Rows {
        none(metadata::foreign_keys())
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(request, query.as_any().encode_to_vec(), &metadata::foreign_keys())
    }

    async fn do_get_cross_reference(&self, _: CommandGetCrossReference, _: Request<Ticket>) -> Rows {
        none(metadata::foreign_keys())
    }

    async fn get_flight_info_substrait_plan(
        &self,
        _: CommandStatementSubstraitPlan,
        _: Request<FlightDescriptor>,
    ) -> Info {
        read_only("a Substrait plan")
    }

    async fn do_put_substrait_plan(
        &self,
        _: CommandStatementSubstraitPlan,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64> {
        read_only("a Substrait plan")
    }

    async fn do_action_create_prepared_substrait_plan(
        &self,
        _: ActionCreatePreparedSubstraitPlanRequest,
        _: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult> {
        read_only("a Substrait plan")
    }

    async fn do_put_statement_update(
        &self,
        _: CommandStatementUpdate,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64> {
        read_only("an update")
    }

    async fn do_put_prepared_statement_update(
        &self,
        _: CommandPreparedStatementUpdate,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64> {
        read_only("an update")
    }

    async fn do_put_statement_ingest(
        &self,
        _: CommandStatementIngest,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64> {
        read_only("an ingestion")
    }

    async fn do_action_begin_transaction(
        &self,
        _: ActionBeginTransactionRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginTransactionResult> {
        read_only("a transaction")
    }

    async fn do_action_end_transaction(&self, _: ActionEndTransactionRequest, _: Request<Action>) -> Result<()> {
        read_only("a transaction")
    }

    async fn do_action_begin_savepoint(
        &self,
        _: ActionBeginSavepointRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginSavepointResult> {
        read_only("a savepoint")
    }

    async fn do_action_end_savepoint(&self, _: ActionEndSavepointRequest, _: Request<Action>) -> Result<()> {
        read_only("a savepoint")
    }

    async fn do_exchange_fallback(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<<Self as FlightService>::DoExchangeStream>> {
        read_only("an exchange")
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}
