//! What there is to ask: tables, runs, lineage.

use std::sync::Arc;

use arrow::json::WriterBuilder;
use arrow::json::writer::JsonArray;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use futures::StreamExt;
use serde_json::{Value, json};

use super::PROTOCOL;
use crate::audit;
use crate::error::Error;
use crate::query::SCHEMA;
use crate::serve::engine::Origin;
use crate::serve::failure::{Failure, Why};
use crate::serve::gate::Gate;
use crate::serve::tables::{self, Listed};
use crate::serve::tokens::Token;
use crate::store::{Artifact, Current, Store};

pub(super) async fn tables(State(gate): State<Gate>) -> Result<Response, Failure> {
    let column = |field: &Arc<arrow::datatypes::Field>| json!({"name": field.name(), "type": field.data_type().to_string(), "nullable": field.is_nullable()});
    let mut found = Vec::new();
    for Listed { schema, name, kind, columns, .. } in tables::list(gate.engine.session()).await? {
        let columns: Vec<Value> = columns.fields().iter().map(column).collect();
        found.push(json!({"schema": schema, "table": name, "kind": kind, "columns": columns}));
    }
    Ok(super::json(&Value::Array(found)))
}

pub(super) async fn runs(
    State(gate): State<Gate>,
    Extension(token): Extension<Arc<Token>>,
) -> Result<Response, Failure> {
    let mut found = Vec::new();
    for (alias, store) in gate.engine.catalog().runs() {
        let schema = alias.unwrap_or(SCHEMA);
        let sql = format!("select * from \"{schema}\".runs order by started");
        found.push(json!({"run": name(store), "schema": schema, "stages": rows(&gate, &token, &sql).await?}));
    }
    Ok(super::json(&Value::Array(found)))
}

pub(super) async fn lineage(
    State(gate): State<Gate>,
    Path((schema, name)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let unknown = |what: String| Failure::new(Why::Invalid, what);
    let mut runs = gate.engine.catalog().runs().enumerate();
    let found = runs.find(|(i, (alias, _))| (*i == 0 && schema == SCHEMA) || *alias == Some(schema.as_str()));
    let Some((_, (_, store))) = found else { return Err(unknown(format!("there is no run {schema}"))) };
    let current = Current::load(store).await?;
    let mut roots = Vec::new();
    for artifact in [Artifact::table(&name), Artifact::model(&name)] {
        roots.extend(current.manifests(store, &artifact).await?);
    }
    if roots.is_empty() {
        return Err(unknown(format!("run {schema} has no table or model {name}")));
    }
    let nodes = audit::ancestry(store, &roots).await?;
    Ok(super::json(&serde_json::to_value(nodes).map_err(|e| Error::internal("lineage", e))?))
}

/// The last part of a run's URL: where it lies is not the client's business.
fn name(store: &Store) -> String {
    store.to_string().trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_string()
}

async fn rows(gate: &Gate, token: &Arc<Token>, sql: &str) -> Result<Value, Failure> {
    let mut answer = gate.engine.ask(token, sql, None, Origin::new(PROTOCOL)).await?;
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    while let Some(batch) = answer.next().await {
        writer.write(&batch?).map_err(Error::from)?;
    }
    writer.finish().map_err(Error::from)?;
    Ok(serde_json::from_slice(&writer.into_inner()).map_err(|e| Error::internal("rows", e))?)
}
