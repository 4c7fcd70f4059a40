//! What the report shows, as rows of its statements.
//!
//! In: a session. Out: one list of typed rows per statement of `sql/report/`, and of the view `order_flips`.

use datafusion::prelude::SessionContext;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::query::{self, Params};
use crate::{Error, Result};

/// Sample answers per policy.
const SAMPLES: i64 = 4;

/// One output of a stage.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct StageRow {
    pub(super) stage: String,
    pub(super) made: String,
    pub(super) rows: i64,
    pub(super) seconds: f64,
    pub(super) started: String,
    pub(super) host: String,
    pub(super) version: String,
    pub(super) fingerprint: String,
}

/// How many rows of a table went one way.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct AccountRow {
    pub(super) table: String,
    pub(super) reason: String,
    pub(super) n: i64,
}

/// The judge under one principle.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct JudgeRow {
    pub(super) principle: String,
    pub(super) pairs: i64,
    pub(super) flip_rate: Option<f64>,
    pub(super) lean: Option<f64>,
    pub(super) agreement: Option<f64>,
    pub(super) agreement_n: Option<i64>,
}

/// One accuracy of the reward model.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RewardRow {
    pub(super) subset: Option<String>,
    pub(super) principle: Option<String>,
    pub(super) value: Option<f64>,
    pub(super) n: i64,
}

/// One point of a training curve.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct CurveRow {
    pub(super) stage: String,
    pub(super) name: String,
    pub(super) step: i64,
    pub(super) value: f64,
}

/// One figure of a policy.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PolicyRow {
    pub(super) policy: String,
    pub(super) metric: String,
    pub(super) principle: Option<String>,
    pub(super) value: Option<f64>,
    pub(super) n: i64,
}

/// One answer of a policy.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct SampleRow {
    pub(super) policy: String,
    pub(super) instruction: String,
    pub(super) response: String,
    pub(super) finish_reason: String,
    pub(super) score: Option<f64>,
    pub(super) step: Option<i64>,
}

/// Everything.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) stages: Vec<StageRow>,
    pub(super) accounts: Vec<AccountRow>,
    pub(super) judge: Vec<JudgeRow>,
    pub(super) reward: Vec<RewardRow>,
    pub(super) curves: Vec<CurveRow>,
    pub(super) policies: Vec<PolicyRow>,
    pub(super) samples: Vec<SampleRow>,
}

impl Facts {
    pub(super) async fn gather(ctx: &SessionContext) -> Result<Facts> {
        Ok(Facts {
            stages: rows(ctx, include_str!("../../sql/report/stages.sql")).await?,
            accounts: rows(ctx, include_str!("../../sql/report/accounting.sql")).await?,
            judge: rows(ctx, include_str!("../../sql/views/order_flips.sql")).await?,
            reward: rows(ctx, include_str!("../../sql/report/reward.sql")).await?,
            curves: rows(ctx, include_str!("../../sql/report/curves.sql")).await?,
            policies: rows(ctx, include_str!("../../sql/report/policies.sql")).await?,
            samples: rows(ctx, include_str!("../../sql/report/samples.sql")).await?,
        })
    }
}

async fn rows<T: DeserializeOwned>(ctx: &SessionContext, sql: &str) -> Result<Vec<T>> {
    let batches = query::sql(ctx, sql, &Params::new().with("samples", SAMPLES)).await?.collect().await?;
    let mut bytes = Vec::new();
    let options = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = options.build::<_, arrow::json::writer::JsonArray>(&mut bytes);
    for batch in &batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    drop(writer);
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&bytes).map_err(|e| Error::internal("report", "a statement has other columns").because(e))
}
