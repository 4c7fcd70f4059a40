//! Stages `evaluate:*`: figures about the judge, the reward model and every policy.
//!
//! In: judgments, pairs or preferences, prompts, and the models. Out: table `evaluations`, and `answers` with what each
//! policy said.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use super::rows::register;
use super::settings::Settings;
use super::setup::Setup;
use super::statement::in_shards;
use crate::draw::key;
use crate::principle::Principle;
use crate::stage::{Job, Stage};
use crate::store::{Artifact, Lineage};
use crate::{Result, query, world};

const ACCURACY: &str = include_str!("../../sql/accuracy.sql");
const ANSWERS: &str = include_str!("../../sql/answers.sql");
/// What is averaged over is summed in one order.
const IN_ORDER: &str = "select * from answers order by prompt_id, sample";
const POLICY: &str = include_str!("../../sql/evaluate_policy.sql");
const REWARD: &str = include_str!("../../sql/evaluate_reward.sql");
const POCKET_JUDGE: &str = include_str!("../../sql/pocket/judge.sql");
const POCKET_POLICY: &str = include_str!("../../sql/pocket/policy.sql");
const POCKET_REWARD: &str = include_str!("../../sql/pocket/reward.sql");

/// Evaluation of everything the configuration makes.
pub(super) fn stages(setup: &Arc<Setup>) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    if pocket(setup) {
        stages.push(judge(setup)?);
    }
    stages.push(reward(setup)?);
    stages.push(policy(setup, "sft")?);
    for one in &setup.config.policies {
        stages.push(policy(setup, &format!("policy:{}", one.name))?);
    }
    Ok(stages)
}

fn pocket(setup: &Setup) -> bool {
    setup.config.evaluate.world == "pocket"
}

fn output() -> Vec<Artifact> {
    vec![Artifact::table("evaluations")]
}

/// The checkers' functions, where the world has checkers.
fn register_world(setup: &Setup, ctx: &SessionContext) {
    if pocket(setup) {
        for function in world::functions::functions() {
            ctx.register_udf(function);
        }
    }
}

async fn write(job: &Job, ctx: &SessionContext, sql: &str, settings: &Settings) -> Result<()> {
    let rows = query::sql(ctx, sql, &settings.params()).await?.execute_stream().await?;
    job.write_table("evaluations", rows).await.map(drop)
}

/// Runs a statement once and keeps its rows as table `name`, in place of one that has the name: they are aggregated
/// several times. There is nothing to commit on the way, so a stop ends it at once.
async fn keep(job: &Job, ctx: &SessionContext, name: &str, sql: &str, settings: &Settings) -> Result<()> {
    let rows = query::sql(ctx, sql, &settings.params()).await?.cache();
    let rows = tokio::select! {
        rows = rows => rows?,
        () = job.stop().wait() => return job.stop().check(job.stage()),
    };
    ctx.deregister_table(name)?;
    ctx.register_table(name, rows.into_view())?;
    Ok(())
}

fn judge(setup: &Arc<Setup>) -> Result<Stage> {
    let settings = Settings::default();
    let lineage = setup.lineage(POCKET_JUDGE, &settings, &[])?;
    let setup = Arc::clone(setup);
    Ok(Stage::new("evaluate:judge", vec![Artifact::table("judgments")], output(), lineage, move |job| {
        let (setup, settings) = (Arc::clone(&setup), settings.clone());
        async move {
            let (ctx, _models) = setup.session(&job, &[]).await?;
            register_world(&setup, &ctx);
            write(&job, &ctx, POCKET_JUDGE, &settings).await
        }
    }))
}

fn reward(setup: &Arc<Setup>) -> Result<Stage> {
    let config = &setup.config.reward;
    let template = setup.config.templates.reward.clone();
    let settings = Settings::default()
        .with("reward_template", template.clone())
        .with("max_query_tokens", config.max_query_tokens)
        .with("max_response_tokens", config.max_response_tokens);
    let (sql, table) = if pocket(setup) { (POCKET_REWARD, "pairs") } else { (REWARD, "preferences") };
    let mut lineage = setup.lineage(sql, &settings, &[template])?;
    let (wordings, combinations) =
        if pocket(setup) { (wordings(setup)?, combinations(setup)?) } else { (vec![], vec![]) };
    lineage.parameters.insert("wordings".into(), json!(wordings));
    lineage.parameters.insert("combinations".into(), json!(combinations));
    lineage.parameters.insert("accuracy_sql".into(), ACCURACY.into());
    let mut inputs = vec![Artifact::table(table)];
    setup.uses("reward", &mut inputs, &mut lineage);
    let setup = Arc::clone(setup);
    Ok(Stage::new("evaluate:reward", inputs, output(), lineage, move |job| {
        let (setup, settings) = (Arc::clone(&setup), settings.clone());
        let (wordings, combinations) = (wordings.clone(), combinations.clone());
        async move {
            let (ctx, _models) = setup.session(&job, &["reward"]).await?;
            register_world(&setup, &ctx);
            let text = |name: &str| Field::new(name, DataType::Utf8, true);
            let flag = Field::new("negated", DataType::Boolean, true);
            let number = |name: &str| Field::new(name, DataType::Int64, true);
            register(&ctx, "wordings", vec![text("subset"), text("principle"), flag.clone(), text("text")], &wordings)?;
            let fields = vec![number("id"), number("place"), text("name"), flag, text("text")];
            register(&ctx, "combinations", fields, &combinations)?;
            keep(&job, &ctx, "hits", sql, &settings).await?;
            write(&job, &ctx, ACCURACY, &settings).await
        }
    }))
}

/// Every definition, negative definition and other wording of the aggregated principles, by subset.
fn wordings(setup: &Setup) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    let mut add = |subset: &str, principle: &Principle, negated: bool, text: &str| {
        rows.push(json!({"subset": subset, "principle": principle.name, "negated": negated, "text": text}));
    };
    for principle in setup.library.set("principles.aggregate_set", &setup.config.principles.aggregate_set)? {
        add("single", principle, false, &principle.definition);
        if let Some(text) = &principle.negative_definition {
            add("negated", principle, true, text);
        }
        principle.reworded.iter().for_each(|text| add("reworded", principle, false, text));
        principle.negative_reworded.iter().for_each(|text| add("reworded", principle, true, text));
    }
    Ok(rows)
}

/// The held-out combinations in every polarity.
fn combinations(setup: &Setup) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    let mut id = 0;
    for names in &setup.config.principles.held_out {
        for signs in 0..1usize << names.len().min(8) {
            let signed: Vec<String> = names
                .iter()
                .enumerate()
                .map(|(i, name)| if signs >> i & 1 == 1 { format!("not {name}") } else { name.clone() })
                .collect();
            for (place, chosen) in setup.library.resolve("principles.held_out", &signed)?.into_iter().enumerate() {
                rows.push(json!({"id": id, "place": place, "name": chosen.name, "negated": chosen.negated, "text": chosen.text}));
            }
            id += 1;
        }
    }
    Ok(rows)
}

/// One policy; `model` is `sft` or `policy:<name>`.
fn policy(setup: &Arc<Setup>, model: &str) -> Result<Stage> {
    let c = &setup.config.evaluate;
    let what = if model == "sft" { "policy:sft".to_string() } else { model.to_string() };
    let template = setup.config.templates.chat.clone();
    let ppo = &setup.config.ppo;
    // All policies answer with the same draws, so that they differ by what they learned alone.
    let settings = Settings::default()
        .with("seed", (key(setup.config.seed, &["evaluate"]).bits() >> 1) as i64)
        .with("what", what.clone())
        .with("policy", model.trim_start_matches("policy:"))
        .with("chat_template", template.clone())
        .with("prompts", c.prompts)
        .with("samples", c.samples)
        .with("temperature", c.temperature)
        .with("max_tokens", ppo.max_tokens)
        .with("stop", ppo.stop.clone());
    let figures = if pocket(setup) { POCKET_POLICY } else { POLICY };
    let outputs = vec![Artifact::table("answers"), Artifact::table("evaluations")];
    let mut lineage: Lineage = setup.lineage(ANSWERS, &settings, &[template])?;
    lineage.parameters.insert("figures_sql".into(), figures.into());
    let mut inputs = vec![Artifact::table("prompts"), Artifact::table("principles")];
    setup.uses("sft", &mut inputs, &mut lineage);
    setup.uses(model, &mut inputs, &mut lineage);
    // 0 asks all.
    let most = if c.prompts == 0 { u64::MAX } else { c.prompts.unsigned_abs() };
    let (setup, model) = (Arc::clone(setup), model.to_string());
    Ok(Stage::new(format!("evaluate:{what}"), inputs, outputs, lineage, move |job| {
        let (setup, settings, model) = (Arc::clone(&setup), settings.clone(), model.clone());
        async move {
            let (ctx, models) = setup.session(&job, &["sft"]).await?;
            let base = setup.base_folder(&job).await?;
            setup.register(&models, "policy", &base, &job.model_folder(&model).await?);
            register_world(&setup, &ctx);
            let rows = job.rows("prompts")?.min(most);
            in_shards(&ctx, &job, "answers", ANSWERS, &settings, rows).await?;
            job.bind_written(&ctx, "answers")?;
            keep(&job, &ctx, "answers", IN_ORDER, &Settings::default()).await?;
            write(&job, &ctx, figures, &settings).await
        }
    }))
}
