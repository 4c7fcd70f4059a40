//! The stages that end in a table.
//!
//! In: a statement of `sql/`, its parameters, the models it asks. Out: the table's rows, committed shard by shard
//! where a model is asked.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use super::files::{data_files, file_table};
use super::known::Known;
use super::rows::register;
use super::settings::Settings;
use super::setup::Setup;
use super::statement::{Driver, Extra, Statement};
use crate::stage::Stage;
use crate::store::{Artifact, Lineage};
use crate::{Error, Result, query, table};

impl Setup {
    fn seeded(&self) -> Settings {
        Settings::default().with("seed", self.config.seed as i64)
    }

    /// The principles of a set as JSON rows, for fingerprints and small tables.
    pub(super) fn set_rows(&self, set: &str) -> Result<Vec<Value>> {
        let row = |p: &&crate::principle::Principle| {
            json!({"name": p.name, "definition": p.definition, "negative_definition": p.negative_definition,
                   "weight": p.weight, "sets": p.sets, "tags": p.tags})
        };
        Ok(self.library.set("principles", set)?.iter().map(row).collect())
    }
}

/// Table `principles`, for people and their SQL.
pub(super) fn principles(setup: &Arc<Setup>) -> Result<Stage> {
    let batch = setup.library.batch()?;
    let rows: Vec<Value> = setup
        .library
        .principles
        .iter()
        .map(|p| json!([p.name, p.definition, p.negative_definition, p.weight, p.sets, p.tags]))
        .collect();
    let parameters = [("principles".to_string(), Value::Array(rows))].into_iter().collect();
    let lineage = Lineage { parameters, ..Lineage::default() };
    Ok(Stage::new("principles", vec![], vec![Artifact::table("principles")], lineage, move |job| {
        let batch = batch.clone();
        async move {
            let rows = futures::stream::iter([Ok::<_, Error>(batch)]);
            job.write_table("principles", rows).await.map(drop)
        }
    }))
}

/// Registers the principles of one set as `principles`.
fn principle_table(setup: &Arc<Setup>) -> Extra {
    let setup = Arc::clone(setup);
    Arc::new(move |ctx| {
        let batch = setup.library.batch()?;
        query::register_batches(ctx, "principles", batch.schema(), vec![batch])
    })
}

/// Stage `prompts`.
pub(super) fn prompts(setup: &Arc<Setup>) -> Result<Stage> {
    const SQL: &str = include_str!("../../sql/prompts.sql");
    let (paths, hashes) = data_files(setup, "data.prompts", &setup.config.data.prompts)?;
    let mut lineage = setup.lineage(SQL, &Settings::default(), &[])?;
    lineage.seed = None;
    lineage.parameters.insert("files".into(), Value::Array(hashes));
    let setup = Arc::clone(setup);
    Ok(Stage::new("prompts", vec![], vec![Artifact::table("prompts")], lineage, move |job| {
        let (setup, paths) = (Arc::clone(&setup), paths.clone());
        async move {
            let (ctx, _) = setup.session(&job, &[]).await?;
            file_table(&ctx, "imported_prompts", table::prompts().columns, &paths).await?;
            let rows = query::sql(&ctx, SQL, &Settings::default().params()).await?.execute_stream().await?;
            match job.write_table("prompts", rows).await? {
                0 => {
                    Err(Error::data("data.prompts", "the files hold no prompts; look at what `salmon import` dropped"))
                }
                _ => Ok(()),
            }
        }
    }))
}

/// Stage `demonstrations`.
pub(super) fn demonstrations(setup: &Arc<Setup>) -> Result<Stage> {
    let c = &setup.config.self_align;
    let template = setup.config.templates.self_align.clone();
    let settings = setup
        .seeded()
        .with("prompts", c.prompts)
        .with("samples", c.samples)
        .with("self_align_template", template.clone())
        .with("temperature", c.temperature)
        .with("top_p", c.top_p)
        .with("max_tokens", c.max_tokens)
        .with("stop", c.stop.clone())
        .with("answer_marker", c.answer_marker.clone())
        .with("min_chars", c.min_chars)
        .with("leaks", c.leaks.clone());
    let rules: Vec<Value> = setup.library.rules.iter().map(|r| json!([r.name, r.definition])).collect();
    let exemplars: Vec<Value> =
        setup.library.exemplars.iter().map(|e| json!([e.user, e.rules, e.thoughts, e.assistant])).collect();
    Statement {
        templates: vec![template],
        models: vec!["base"],
        driver: Some(Driver::Rows("prompts")),
        known: Some(Known {
            view: include_str!("../../sql/known/demonstrations.sql"),
            count: include_str!("../../sql/known/demonstrations_count.sql"),
            free: &["prompts", "samples"],
            seeded: true,
        }),
        parameters: vec![("rules", Value::Array(rules)), ("exemplars", Value::Array(exemplars))],
        ..Statement::new("demonstrations", include_str!("../../sql/demonstrations.sql"), &["prompts"], settings)
    }
    .stage(setup)
}

/// Stage `responses`.
pub(super) fn responses(setup: &Arc<Setup>) -> Result<Stage> {
    let c = &setup.config.responses;
    let template = setup.config.templates.chat.clone();
    let settings = setup
        .seeded()
        .with("prompts", c.prompts)
        .with("test_prompts", c.test_prompts)
        .with("rounds", c.rounds)
        .with("samples", c.samples)
        .with("chat_template", template.clone())
        .with("temperature", c.temperature)
        .with("top_p", c.top_p)
        .with("max_tokens", c.max_tokens)
        .with("stop", c.stop.clone())
        .with("min_chars", c.min_chars)
        .with("drop_unfinished", c.drop_unfinished);
    Statement {
        templates: vec![template],
        models: vec!["sft"],
        driver: Some(Driver::Rows("prompts")),
        known: Some(Known {
            view: include_str!("../../sql/known/responses.sql"),
            count: include_str!("../../sql/known/responses_count.sql"),
            free: &["prompts", "test_prompts", "rounds", "samples", "min_chars", "drop_unfinished"],
            seeded: true,
        }),
        ..Statement::new("responses", include_str!("../../sql/responses.sql"), &["prompts"], settings)
    }
    .stage(setup)
}

/// Stage `pairs`.
pub(super) fn pairs(setup: &Arc<Setup>) -> Result<Stage> {
    let c = &setup.config.responses;
    let settings = setup.seeded().with("samples", c.samples).with("test_prompts", c.test_prompts);
    Statement::new("pairs", include_str!("../../sql/pairs.sql"), &["prompts", "responses"], settings).stage(setup)
}

/// Stage `judgments`.
pub(super) fn judgments(setup: &Arc<Setup>) -> Result<Stage> {
    let (c, set) = (&setup.config.judge, &setup.config.principles.judge_set);
    let template = setup.config.templates.judge.clone();
    let settings = Settings::default()
        .with("judge_set", set.clone())
        .with("judge_template", template.clone())
        .with("answers", c.answers.to_vec())
        .with("max_query_tokens", c.max_query_tokens)
        .with("max_response_tokens", c.max_response_tokens);
    Statement {
        templates: vec![template],
        models: vec!["judge"],
        driver: Some(Driver::Rows("pairs")),
        extra: Some(principle_table(setup)),
        known: Some(Known {
            view: include_str!("../../sql/known/judgments.sql"),
            count: include_str!("../../sql/known/judgments_count.sql"),
            free: &["judge_set", "principles"],
            seeded: false,
        }),
        parameters: vec![("principles", json!(setup.set_rows(set)?))],
        ..Statement::new("judgments", include_str!("../../sql/judgments.sql"), &["pairs"], settings)
    }
    .stage(setup)
}

/// Stage `preferences`.
pub(super) fn preferences(setup: &Arc<Setup>) -> Result<Stage> {
    let (c, p) = (&setup.config.preferences, &setup.config.principles);
    let settings = setup
        .seeded()
        .with("aggregate_set", p.aggregate_set.clone())
        .with("passes", c.passes)
        .with("geometric", c.geometric)
        .with("max_principles", c.max_principles)
        .with("negation", c.negation)
        .with("noise", c.noise)
        .with("rule_noise", c.rule_noise)
        .with("boilerplate", c.boilerplate.clone())
        .with("boilerplate_rate", c.boilerplate_rate)
        .with("language_rule", c.language_rule);
    let tables = Arc::clone(setup);
    let principles = principle_table(setup);
    Statement {
        extra: Some(Arc::new(move |ctx| {
            principles(ctx)?;
            held_out_table(&tables, ctx)
        })),
        driver: Some(Driver::Parts("judgments")),
        before: Some(("variances", include_str!("../../sql/variances.sql"))),
        parameters: vec![("principles", json!(setup.set_rows(&p.aggregate_set)?)), ("held_out", json!(p.held_out))],
        ..Statement::new("preferences", include_str!("../../sql/preferences.sql"), &["judgments"], settings)
    }
    .stage(setup)
}

/// Registers the combinations that reward training must not see, as `held_out`.
pub(super) fn held_out_table(setup: &Setup, ctx: &SessionContext) -> Result<()> {
    let rows: Vec<Value> = setup
        .config
        .principles
        .held_out
        .iter()
        .enumerate()
        .map(|(ordinal, principles)| json!({"ordinal": ordinal, "principles": principles}))
        .collect();
    let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    let fields = vec![Field::new("ordinal", DataType::Int64, true), Field::new("principles", list, true)];
    register(ctx, "held_out", fields, &rows)
}
