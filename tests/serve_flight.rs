//! Flight SQL with the client of arrow-flight.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionBeginTransactionRequest, CommandGetDbSchemas, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandStatementSubstraitPlan, ProstMessageExt, SqlInfo, SubstraitPlan,
};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightDescriptor, FlightInfo};
use futures::TryStreamExt;
use prost::Message;
use tonic::transport::{Channel, Endpoint};

use super::serve_support::{ANALYST, NARROW, shared};

type Client = FlightSqlServiceClient<Channel>;

async fn fetch(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>, arrow_flight::error::FlightError> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    client.do_get(ticket).await?.try_collect().await
}

async fn ask(client: &mut Client, sql: &str) -> Vec<RecordBatch> {
    let info = client.execute(sql.into(), None).await.unwrap();
    fetch(client, info).await.unwrap()
}

#[tokio::test]
async fn statements_are_answered() {
    let mut client = shared().flight(ANALYST).await;
    let info = client.execute("select prompt_id, length_bonus from prompts limit 7".into(), None).await.unwrap();
    let schema = info.clone().try_decode_schema().unwrap();
    assert_eq!(
        schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(),
        ["prompt_id", "length_bonus"]
    );
    let batches = fetch(&mut client, info).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 7);
    assert_eq!(batches[0].schema().as_ref(), &schema);
}

#[tokio::test]
async fn a_handshake_turns_name_and_token_into_a_bearer() {
    let endpoint = Endpoint::new(format!("http://{}", shared().address("flight"))).unwrap();
    let mut client = FlightSqlServiceClient::new(endpoint.connect().await.unwrap());
    client.handshake("analyst", ANALYST).await.unwrap();
    assert_eq!(client.token().map(String::as_str), Some(ANALYST));
    assert_eq!(ask(&mut client, "select 1").await[0].num_rows(), 1);
    for (name, secret) in [("narrow", ANALYST), ("analyst", "wrong"), ("", "")] {
        // Another client: one that has a token shows it in its handshake too.
        let mut client = FlightSqlServiceClient::new(endpoint.connect().await.unwrap());
        let error = client.handshake(name, secret).await.unwrap_err().to_string();
        assert!(error.contains("a token is needed"), "{name}: {error}");
    }
}

#[tokio::test]
async fn prepared_statements_take_values() {
    let mut client = shared().flight(ANALYST).await;
    let sql = "select count(*) as n from prompts where kind = ? and length_bonus > ?";
    let mut statement = client.prepare(sql.into(), None).await.unwrap();
    assert_eq!(statement.dataset_schema().unwrap().field(0).name(), "n");
    let types: Vec<DataType> =
        statement.parameter_schema().unwrap().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::Utf8, DataType::Float64]);
    let mut counts = Vec::new();
    for kind in ["general", "red_teaming", "' or true --"] {
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(StringArray::from(vec![kind])), Arc::new(arrow::array::Float64Array::from(vec![-10.0]))];
        let fields = vec![Field::new("1", DataType::Utf8, true), Field::new("2", DataType::Float64, true)];
        statement.set_parameters(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()).unwrap();
        let info = statement.execute().await.unwrap();
        let batches = fetch(&mut client, info).await.unwrap();
        counts.push(batches[0].column(0).as_primitive::<Int64Type>().value(0));
    }
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    assert_eq!(counts[2], 0);
    let two = RecordBatch::try_new(
        Arc::new(Schema::new(vec![Field::new("1", DataType::Int64, true)])),
        vec![Arc::new(Int64Array::from(vec![1, 2]))],
    );
    statement.set_parameters(two.unwrap()).unwrap();
    assert!(statement.execute().await.unwrap_err().to_string().contains("one row"));
    statement.close().await.unwrap();
}

#[tokio::test]
async fn a_prepared_statement_is_its_tokens_own() {
    let mut client = shared().flight(ANALYST).await;
    let mut statement = client.prepare("select 1 as one".into(), None).await.unwrap();
    let info = statement.execute().await.unwrap();
    assert_eq!(fetch(&mut client, info.clone()).await.unwrap()[0].num_rows(), 1);
    let error = fetch(&mut shared().flight(NARROW).await, info).await.unwrap_err().to_string();
    assert!(error.contains("no such prepared statement"), "{error}");
}

#[tokio::test]
async fn drivers_find_their_way() {
    let mut client = shared().flight(ANALYST).await;
    let info = client.get_catalogs().await.unwrap();
    assert_eq!(fetch(&mut client, info).await.unwrap()[0].column(0).as_string::<i32>().value(0), "salmon");
    let info = client.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    let schemas = fetch(&mut client, info).await.unwrap();
    assert_eq!(schemas[0].column(1).as_string::<i32>().value(0), "public");
    let tables = CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: Some("public".into()),
        table_name_filter_pattern: Some("judg%".into()),
        table_types: vec!["TABLE".into()],
        include_schema: true,
    };
    let info = client.get_tables(tables).await.unwrap();
    let tables = fetch(&mut client, info).await.unwrap();
    assert_eq!((tables[0].num_rows(), tables[0].column(2).as_string::<i32>().value(0)), (1, "judgments"));
    let info = client.get_table_types().await.unwrap();
    assert_eq!(fetch(&mut client, info).await.unwrap()[0].num_rows(), 2);
    let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerReadOnly]).await.unwrap();
    assert_eq!(fetch(&mut client, info).await.unwrap()[0].num_rows(), 2);
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    assert_eq!(fetch(&mut client, info).await.unwrap()[0].num_rows(), 7);
    let keys = arrow_flight::sql::CommandGetPrimaryKeys { catalog: None, db_schema: None, table: "judgments".into() };
    let info = client.get_primary_keys(keys).await.unwrap();
    assert_eq!(fetch(&mut client, info).await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[tokio::test]
async fn what_would_write_is_refused_by_name() {
    let mut client = shared().flight(ANALYST).await;
    let refused = |error: String, what: &str| {
        assert!(error.contains("the server only reads") && error.contains(what), "{what}: {error}");
    };
    refused(client.execute_update("delete from prompts".into(), None).await.unwrap_err().to_string(), "an update");
    refused(client.begin_transaction().await.unwrap_err().to_string(), "a transaction");
    let plan = CommandStatementSubstraitPlan {
        plan: Some(SubstraitPlan { plan: vec![1, 2, 3].into(), version: "1".into() }),
        transaction_id: None,
    };
    let descriptor = FlightDescriptor::new_cmd(plan.as_any().encode_to_vec());
    refused(client.inner_mut().get_flight_info(authorized(descriptor)).await.unwrap_err().to_string(), "Substrait");
    let begin = Action::new("BeginSavepoint", ActionBeginTransactionRequest {}.as_any().encode_to_vec());
    assert!(client.inner_mut().do_action(authorized(begin)).await.is_err());
    let unknown = Action::new("DropEverything", vec![]);
    let error = client.inner_mut().do_action(authorized(unknown)).await.unwrap_err().to_string();
    assert!(error.contains("no action"), "{error}");
}

fn authorized<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {ANALYST}").parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_query_can_be_cancelled() {
    let mut client = shared().flight(ANALYST).await;
    let sql = "select count(*) from generate_series(1, 2000000000) a, generate_series(1, 1000) b";
    let info = client.execute(sql.into(), None).await.unwrap();
    let (mut other, asked) = (shared().flight(ANALYST).await, info.clone());
    let running = tokio::spawn(async move { fetch(&mut other, asked).await });
    let body = CancelFlightInfoRequest { info: Some(info) }.encode_to_vec();
    for _ in 0..100 {
        let action = authorized(Action::new("CancelFlightInfo", body.clone()));
        let result = client.inner_mut().do_action(action).await.unwrap().into_inner().message().await.unwrap().unwrap();
        if arrow_flight::CancelFlightInfoResult::decode(result.body).unwrap().status == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let error = running.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("cancelled"), "{error}");
}
