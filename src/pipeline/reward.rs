//! Stages `reward_pretraining` and `reward`: labelled pairs -> the model `reward`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::files::{data_files, file_table};
use super::models::single_token;
use super::rows::texts;
use super::settings::Settings;
use super::setup::Setup;
use super::training::{Order, train};
use crate::config::RewardHead;
use crate::import::human_preferences;
use crate::model::{Head, Network, Tokenizer};
use crate::stage::{Job, Stage};
use crate::store::{Artifact, Lineage};
use crate::train::config::RewardConfig;
use crate::train::reward::{PairExample, RewardTrainer};
use crate::train::{Plan, Run};
use crate::{Error, Result, query};

const PRETRAINING: &str = "reward_pretraining";

/// Stage `reward_pretraining`, where the configuration has it.
pub(super) fn pretraining(setup: &Arc<Setup>) -> Result<Option<Stage>> {
    const SQL: &str = include_str!("../../sql/reward_pretraining.sql");
    let Some(config) = &setup.config.reward_pretraining else { return Ok(None) };
    let (files, hashes) = data_files(setup, "data.human_preferences", &setup.config.data.human_preferences)?;
    let template = setup.config.templates.reward_rubric.clone();
    let settings = Settings::default()
        .with("seed", setup.config.seed as i64)
        .with("rubric_template", template.clone())
        .with("max_rows", config.max_rows)
        .with("max_query_tokens", config.max_query_tokens)
        .with("max_response_tokens", config.max_response_tokens);
    let mut lineage = setup.lineage(SQL, &settings, &[template])?;
    lineage.parameters.insert("files".into(), hashes.into());
    declare(setup, &mut lineage, &config.trainer)?;
    let mut inputs = Vec::new();
    setup.uses("sft", &mut inputs, &mut lineage);
    let (setup, trainer) = (Arc::clone(setup), config.trainer.clone());
    let outputs = vec![Artifact::model(PRETRAINING), Artifact::table("metrics")];
    Ok(Some(Stage::new(PRETRAINING, inputs, outputs, lineage, move |job| {
        let (setup, params, trainer) = (Arc::clone(&setup), settings.params(), trainer.clone());
        let files = files.clone();
        async move {
            let (ctx, _models) = setup.session(&job, &["sft"]).await?;
            let mut columns = human_preferences().columns;
            columns.retain(|column| ["prompt", "chosen", "rejected"].contains(&column.name));
            file_table(&ctx, "human_preferences", columns, &files).await?;
            let start = job.model_folder("sft").await?;
            run(&setup, job, ctx, SQL, &params, PRETRAINING, start, trainer).await
        }
    })))
}

/// Stage `reward`.
pub(super) fn stage(setup: &Arc<Setup>) -> Result<Stage> {
    const SQL: &str = include_str!("../../sql/reward.sql");
    let config = &setup.config.reward;
    let template = setup.config.templates.reward.clone();
    let settings = Settings::default()
        .with("reward_template", template.clone())
        .with("max_query_tokens", config.max_query_tokens)
        .with("max_response_tokens", config.max_response_tokens);
    let mut lineage = setup.lineage(SQL, &settings, &[template])?;
    declare(setup, &mut lineage, &config.trainer)?;
    let start = if setup.config.reward_pretraining.is_some() { PRETRAINING } else { "sft" };
    let mut inputs = vec![Artifact::table("preferences")];
    setup.uses("sft", &mut inputs, &mut lineage);
    setup.uses(start, &mut inputs, &mut lineage);
    let setup = Arc::clone(setup);
    let outputs = vec![Artifact::model("reward"), Artifact::table("metrics")];
    Ok(Stage::new("reward", inputs, outputs, lineage, move |job| {
        let (setup, params) = (Arc::clone(&setup), settings.params());
        async move {
            let (ctx, _models) = setup.session(&job, &["sft"]).await?;
            let start = job.model_folder(start).await?;
            let trainer = setup.config.reward.trainer.clone();
            run(&setup, job, ctx, SQL, &params, "reward", start, trainer).await
        }
    }))
}

fn declare(setup: &Setup, lineage: &mut Lineage, trainer: &RewardConfig) -> Result<()> {
    let config = &setup.config.reward;
    lineage.parameters.insert("trainer".into(), setup.json(trainer)?);
    lineage.parameters.insert("model".into(), setup.model_json());
    lineage.parameters.insert("head".into(), setup.json(&config.head)?);
    lineage.parameters.insert("answers".into(), setup.json(&config.answers)?);
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the two stages differ in exactly these")]
async fn run(
    setup: &Arc<Setup>,
    job: Arc<Job>,
    ctx: SessionContext,
    sql: &str,
    params: &query::Params,
    name: &'static str,
    start: PathBuf,
    config: RewardConfig,
) -> Result<()> {
    let base = setup.base_folder(&job).await?;
    let tokenizer = Tokenizer::open(&base)?;
    let network = setup.with_reward_head(setup.trainable(&base, &start, setup.key(name))?, &tokenizer)?;
    let context = network.config().max_position_embeddings;

    let (mut pairs, mut skipped) = (Vec::new(), 0);
    let mut rows = query::sql(&ctx, sql, params).await?.execute_stream().await?;
    while let Some(batch) = rows.try_next().await? {
        for (chosen, rejected) in texts(&batch, "chosen")?.into_iter().zip(texts(&batch, "rejected")?) {
            let pair =
                PairExample { chosen: tokenizer.encode(chosen, true)?, rejected: tokenizer.encode(rejected, true)? };
            if pair.chosen.len().max(pair.rejected.len()) > context {
                skipped += 1;
            } else {
                pairs.push(pair);
            }
        }
    }
    if pairs.is_empty() {
        let problem = format!("no preference was kept and fits the context of {context} tokens ({skipped} too long)");
        let hint = if name == PRETRAINING {
            "; look at the files of data.human_preferences"
        } else {
            "; `select drop_reason, count(*) from preferences group by 1` says why"
        };
        return Err(Error::data(format!("stage {name}"), problem + hint));
    }
    let key = setup.key(name);
    let plan = Plan { rows: pairs.len(), batch_size: config.batch_size, epochs: config.num_train_epochs, key };
    let run = Run { stage: name.into(), total_steps: plan.steps(), workers: setup.workers, key };
    let counts = vec![("rows/used", pairs.len() as f64), ("rows/too_long", f64::from(skipped))];
    let order = Order {
        stage: name.into(),
        model: name.into(),
        checkpoint_seconds: setup.config.checkpoint_seconds,
        plan,
        counts,
    };
    train(job, RewardTrainer::new(network, config, run)?, pairs, order).await
}

impl Setup {
    /// The network with the reward head of the configuration; a linear head that is there stays.
    pub(super) fn with_reward_head(&self, network: Network, tokenizer: &Tokenizer) -> Result<Network> {
        match (self.config.reward.head, self.answer_tokens(tokenizer)?) {
            (RewardHead::YesNo, Some((yes, no))) => network.with_head(Head::YesNo { yes, no }, self.key("reward/head")),
            (RewardHead::Linear, Some((yes, no))) if network.head() != Head::Linear => {
                network.with_margin_head(yes, no)
            }
            _ => network.with_head(Head::Linear, self.key("reward/head")),
        }
    }

    /// The head of a reward model in `folder` that was trained with this configuration, where the folder's own head
    /// is `found`.
    pub(super) fn reward_head(&self, found: Head, tokenizer: &Tokenizer, folder: &Path) -> Result<Head> {
        match (self.config.reward.head, self.answer_tokens(tokenizer)?) {
            (RewardHead::YesNo, Some((yes, no))) => Ok(Head::YesNo { yes, no }),
            _ if found == Head::Linear => Ok(Head::Linear),
            _ => Err(Error::model(folder.display(), "has no score.weight; a reward model with a linear head has one")),
        }
    }

    /// The tokens of `reward.answers`.
    fn answer_tokens(&self, tokenizer: &Tokenizer) -> Result<Option<(u32, u32)>> {
        let Some([yes, no]) = &self.config.reward.answers else { return Ok(None) };
        let place = "reward.answers";
        Ok(Some((single_token(tokenizer, place, yes)?, single_token(tokenizer, place, no)?)))
    }
}
