//! Stage `policy:<name>`: PPO against the reward model, under the principles of one policy.
//!
//! ```text
//! rollouts.sql ──> responses, shaped rewards ──> PpoTrainer.step ──> weights back into the engine
//!    ▲  policy (engine), reward (engine)              │
//!    └────────────────────────── next step ───────────┤
//!                                                     └──> table rollouts (a shard per step), metrics, model
//! ```

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use datafusion::prelude::{SessionContext, col, lit};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Tensor;

use super::rows::{batch, numbers, register, texts, token_lists};
use super::settings::Settings;
use super::setup::Setup;
use super::training::{Pace, Recorder};
use crate::config::{Normalize, Policy, Ppo, ValueInit};
use crate::engine::{Engine, Inference};
use crate::model::{Head, Network, Tokenizer};
use crate::query::{self, Models};
use crate::stage::{Job, Stage};
use crate::store::Artifact;
use crate::train::Run;
use crate::train::ppo::{PpoTrainer, Row, RowUpdate};
use crate::{Error, Result, table};

const SQL: &str = include_str!("../../sql/rollouts.sql");
const PROMPTS_SQL: &str = include_str!("../../sql/ppo_prompts.sql");

/// The stage of one policy.
pub(super) fn stage(setup: &Arc<Setup>, policy: &Policy) -> Result<Stage> {
    let name = format!("policy:{}", policy.name);
    let ppo = setup.config.ppo_of(policy)?;
    let settings = settings(setup, policy, &ppo);
    let shown = principles(setup, policy)?;
    let templates = [setup.config.templates.chat.clone(), setup.config.templates.reward.clone()];
    let mut lineage = setup.lineage(SQL, &settings, &templates)?;
    lineage.parameters.insert("ppo".into(), setup.json(&ppo)?);
    lineage.parameters.insert("model".into(), setup.model_json());
    lineage.parameters.insert("prompts_sql".into(), PROMPTS_SQL.into());
    lineage.parameters.insert("principles".into(), json!(shown));
    lineage.parameters.insert("boosts".into(), setup.json(&setup.library.boosts)?);
    let mut inputs = vec![Artifact::table("prompts")];
    setup.uses("sft", &mut inputs, &mut lineage);
    setup.uses("reward", &mut inputs, &mut lineage);
    let outputs = vec![Artifact::table("rollouts"), Artifact::table("metrics"), Artifact::model(&name)];
    let work = Arc::new((Arc::clone(setup), name.clone(), ppo, settings, shown));
    Ok(Stage::new(name, inputs, outputs, lineage, move |job| {
        let work = Arc::clone(&work);
        async move {
            let (setup, name, ppo, settings, shown) = &*work;
            Course::start(setup, &job, name, ppo, settings.clone(), shown).await?.run(&job).await
        }
    }))
}

fn settings(setup: &Setup, policy: &Policy, ppo: &Ppo) -> Settings {
    let reward = &setup.config.reward;
    Settings::default()
        .with("seed", setup.config.seed as i64)
        .with("policy", policy.name.clone())
        .with("batch_size", ppo.trainer.batch_size as i64)
        .with("draw", policy.draw)
        .with("chat_template", setup.config.templates.chat.clone())
        .with("reward_template", setup.config.templates.reward.clone())
        .with("temperature", ppo.trainer.temperature)
        .with("top_p", ppo.top_p)
        .with("max_tokens", ppo.max_tokens)
        .with("stop", ppo.stop.clone())
        .with("max_query_tokens", reward.max_query_tokens)
        .with("max_response_tokens", reward.max_response_tokens)
        .with("min_prompt_tokens", ppo.min_prompt_tokens)
        .with("max_prompt_tokens", ppo.max_prompt_tokens)
        .with("length_bonus", ppo.length_bonus)
        .with("length_bonus_tokens", ppo.length_bonus_tokens)
        .with("length_bonus_cap", ppo.length_bonus_cap)
        .with("stop_penalty", ppo.stop_penalty)
        .with("normalize", ppo.normalize == Normalize::FirstBatch)
}

/// The rows of `policy_principles`: those always shown, then those that may be drawn.
fn principles(setup: &Setup, policy: &Policy) -> Result<Vec<Value>> {
    let place = format!("policies.{}", policy.name);
    let mut rows = Vec::new();
    for chosen in setup.library.resolve(&place, &policy.principles)? {
        rows.push(json!({"ordinal": rows.len(), "name": chosen.name, "negated": chosen.negated, "text": chosen.text,
            "weight": 0.0, "tags": [], "always": true}));
    }
    if let (Some(set), true) = (&policy.draw_set, policy.draw > 0) {
        for p in setup.library.set(&place, set)? {
            if rows.iter().any(|row| row["name"] == p.name.as_str()) {
                continue;
            }
            rows.push(json!({"ordinal": rows.len(), "name": p.name, "negated": false, "text": p.definition,
                "weight": p.weight, "tags": p.tags, "always": false}));
        }
    }
    // With nothing to show, a rollout would have no reward prompt.
    let shown = |row: &Value| row["always"] == true || row["weight"].as_f64().is_some_and(|weight| weight > 0.0);
    if !rows.iter().any(shown) {
        return Err(Error::config(
            format!("{place}.draw_set"),
            "has no principle with a weight above 0 to draw; list some under `principles`, or give them weights",
        ));
    }
    Ok(rows)
}

/// What of a course does not follow from the trainer's checkpoint.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Scale {
    /// Bits of the first batch's mean and deviation.
    mean: Option<u64>,
    deviation: Option<u64>,
}

/// One policy's PPO run.
struct Course {
    name: String,
    ppo: Ppo,
    settings: Settings,
    ctx: SessionContext,
    engine: Arc<Engine>,
    tokenizer: Tokenizer,
    trainer: PpoTrainer,
    recorder: Recorder,
    scale: Scale,
    steps: usize,
    checkpoint_seconds: f64,
}

const SCALE: &str = "scale.json";

impl Course {
    /// Opens the four models (on one base, where they are adapters) and the session.
    async fn start(
        setup: &Arc<Setup>,
        job: &Job,
        name: &str,
        ppo: &Ppo,
        settings: Settings,
        shown: &[Value],
    ) -> Result<Course> {
        let base = setup.base_folder(job).await?;
        let (sft, reward) = (job.model_folder("sft").await?, job.model_folder("reward").await?);
        let tokenizer = Tokenizer::open(&base)?;
        let family = setup.family(&base, &[&sft, &reward])?;
        let policy = setup.member(&family, &sft, &format!("{name}/policy"))?;
        let reference = setup.open_in(&family, &sft)?;
        let value = match ppo.value_init {
            ValueInit::Reward => setup.with_reward_head(setup.member(&family, &reward, name)?, &tokenizer)?,
            ValueInit::Sft => zero_head(setup.member(&family, &sft, name)?.with_head(Head::Linear, setup.key(name))?)?,
        };

        let models = Arc::new(Models::new());
        let engine = Arc::new(setup.engine(&policy, &base)?);
        let catalog = Arc::clone(&engine);
        models.register("policy", move || Ok(Arc::clone(&catalog) as Arc<dyn Inference>));
        setup.register(&models, "reward", &base, &reward);
        setup.register(&models, "sft", &base, &sft);
        let ctx = setup.context(&models)?;
        job.bind(&ctx)?;
        tables(setup, &ctx, shown)?;
        let context = policy.config().max_position_embeddings;
        let fitting = settings.clone().with("context", context as i64);
        let prompts = query::sql(&ctx, PROMPTS_SQL, &fitting.params()).await?.cache().await?;
        let count = prompts.clone().count().await?;
        let all = ctx.table("prompts").await?.filter(col("split").eq(lit("train")))?.count().await?;
        if count == 0 {
            let problem = format!(
                "none of the {all} training prompts has a length within ppo.min_prompt_tokens and \
                 ppo.max_prompt_tokens that fits the model's context of {context}"
            );
            return Err(Error::data(name, problem));
        }
        let mut recorder = Recorder::default();
        recorder.add(name, 0, &[("prompts/used", count as f64), ("prompts/left_out", (all - count) as f64)]);
        ctx.register_table("ppo_prompts", prompts.into_view())?;

        let epoch = count.div_ceil(ppo.trainer.batch_size);
        let steps = if ppo.steps > 0 { ppo.steps as usize } else { epoch * ppo.trainer.num_train_epochs };
        let run = Run { stage: name.to_string(), total_steps: steps, workers: setup.workers, key: setup.key(name) };
        let trainer = PpoTrainer::new(policy, reference, value, ppo.trainer.clone(), run)?;
        Ok(Course {
            name: name.to_string(),
            ppo: ppo.clone(),
            settings,
            ctx,
            engine,
            tokenizer,
            trainer,
            recorder,
            scale: Scale::default(),
            steps,
            checkpoint_seconds: setup.config.checkpoint_seconds,
        })
    }

    /// All steps that are left, then the commit.
    async fn run(mut self, job: &Job) -> Result<()> {
        let scratch = job.scratch()?;
        let folder = scratch.path().join("checkpoint");
        let checkpoints = job.checkpoints(&self.name)?;
        let shards = job.shards("rollouts", self.steps).await?;
        if checkpoints.restore(&folder).await?.is_some() {
            self.restore(&folder)?;
        }
        let mut pace = Pace::new(self.checkpoint_seconds);
        for step in self.trainer.steps_done()..self.steps {
            job.advance(step as u64, Some(self.steps as u64), "steps");
            let rollouts = self.step(step).await?;
            // A step that an earlier attempt committed gives the same rows again.
            if !shards.is_done(step) {
                shards.write(step, futures::stream::iter([Ok::<_, Error>(rollouts)])).await?;
            }
            if pace.due() || job.stop().asked() {
                self.save(&folder)?;
                checkpoints.save(step as u64 + 1, &folder).await?;
            }
            job.stop().check(&self.name)?;
        }
        let model = scratch.path().join("model");
        self.trainer.policy().save(&model)?;
        job.write_model(&self.name, &model).await?;
        job.write_shards("rollouts", shards).await?;
        self.recorder.write(job).await
    }

    /// One step: rollouts, update, and the table's rows.
    async fn step(&mut self, step: usize) -> Result<RecordBatch> {
        let settings = self.settings.clone().with("step", step as i64);
        let settings =
            settings.with("score_mean", number(self.scale.mean)).with("score_deviation", number(self.scale.deviation));
        let rows = query::sql(&self.ctx, SQL, &settings.params()).await?;
        let rows = arrow::compute::concat_batches(&Arc::new(rows.schema().as_arrow().clone()), &rows.collect().await?)?;
        if self.ppo.normalize == Normalize::FirstBatch && self.scale.mean.is_none() {
            let first = |name: &str| Ok::<_, Error>(numbers(&rows, name)?.first().map(|v| v.to_bits()));
            self.scale = Scale { mean: first("score_mean")?, deviation: first("score_deviation")? };
        }
        let queries =
            texts(&rows, "prompt")?.iter().map(|p| self.tokenizer.encode(p, true)).collect::<Result<Vec<_>>>()?;
        let responses = token_lists(&rows, "response_ids")?;
        let rewards = numbers(&rows, "reward")?;
        if let Some(slot) = numbers(&rows, "score")?.iter().position(|score| score.is_nan()) {
            let ids = texts(&rows, "prompt_id")?;
            return Err(Error::data(
                format!("{} step {}, prompt {}", self.name, step + 1, ids.get(slot).copied().unwrap_or_default()),
                "its reward prompt is longer than the model's context; lower reward.max_response_tokens, \
                 reward.max_query_tokens or the number of principles that the policy shows",
            ));
        }
        let rollouts: Vec<Row> = queries
            .into_iter()
            .zip(responses)
            .zip(&rewards)
            .map(|((query_ids, response_ids), &reward)| Row { query_ids, response_ids, reward })
            .collect();
        let update = tokio::task::block_in_place(|| -> Result<_> {
            let update = self.trainer.step(&rollouts)?;
            self.engine.reload(self.trainer.policy())?;
            Ok(update)
        })?;
        self.recorder.add(&self.name, step + 1, &update.metrics);
        rollout_rows(&self.name, step, &rows, &rollouts, &update.rows)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.trainer.save(folder)?;
        self.recorder.save(folder)?;
        let path = folder.join(SCALE);
        let text = serde_json::to_vec(&self.scale).map_err(|e| Error::internal(SCALE, e))?;
        std::fs::write(&path, text).map_err(|e| Error::store(path.display(), "cannot be written").because(e))
    }

    fn restore(&mut self, folder: &Path) -> Result<()> {
        if !self.trainer.restore(folder)? {
            return Ok(());
        }
        self.recorder = Recorder::restore(folder)?;
        let path = folder.join(SCALE);
        let text = std::fs::read(&path)
            .map_err(|e| Error::store(path.display(), "is missing from the checkpoint").because(e))?;
        self.scale =
            serde_json::from_slice(&text).map_err(|e| Error::store(path.display(), "is damaged").because(e))?;
        self.engine.reload(self.trainer.policy())
    }
}

fn number(bits: Option<u64>) -> Value {
    bits.map_or(Value::Null, |bits| json!(f64::from_bits(bits)))
}

/// A value model without an opinion: its linear head starts at zero.
fn zero_head(network: Network) -> Result<Network> {
    if let Some((_, head)) = network.trainable().pop() {
        let _guard = tch::no_grad_guard();
        let mut head: Tensor = head;
        let _ = head.f_zero_()?;
    }
    Ok(network)
}

fn tables(setup: &Setup, ctx: &SessionContext, shown: &[Value]) -> Result<()> {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let fields = vec![
        Field::new("ordinal", DataType::Int64, true),
        text("name"),
        Field::new("negated", DataType::Boolean, true),
        text("text"),
        Field::new("weight", DataType::Float64, true),
        Field::new("tags", list, true),
        Field::new("always", DataType::Boolean, true),
    ];
    register(ctx, "policy_principles", fields, shown)?;
    let boosts: Vec<Value> =
        setup.library.boosts.iter().map(|b| json!({"kind": b.kind, "tag": b.tag, "weight": b.weight})).collect();
    register(ctx, "boosts", vec![text("kind"), text("tag"), Field::new("weight", DataType::Float64, true)], &boosts)
}

/// The rows of table `rollouts` for one step.
fn rollout_rows(
    name: &str,
    step: usize,
    rows: &RecordBatch,
    rollouts: &[Row],
    updates: &[RowUpdate],
) -> Result<RecordBatch> {
    let columns: Vec<Value> = rollouts
        .iter()
        .zip(updates)
        .map(|(row, update)| {
            json!({
                "policy": name.strip_prefix("policy:").unwrap_or(name), "step": step,
                "query_ids": row.query_ids, "response_ids": row.response_ids,
                "logprobs": update.evaluation.logprobs, "ref_logprobs": update.evaluation.ref_logprobs,
                "values": update.evaluation.values, "reward": row.reward, "kl": update.kl,
                "advantages": update.advantages, "returns": update.returns,
            })
        })
        .collect();
    // The columns that SQL made are taken as they are; the rest comes from the update.
    let schema = table::rollouts().schema();
    let made: Vec<&str> =
        columns.first().and_then(Value::as_object).map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default();
    let fields: Vec<Field> =
        schema.fields().iter().filter(|f| made.contains(&f.name().as_str())).map(|f| f.as_ref().clone()).collect();
    let made = batch(Arc::new(arrow::datatypes::Schema::new(fields)), &columns)?
        .ok_or_else(|| Error::data(name, "a PPO step had no rollouts; are there training prompts?"))?;
    let column = |field: &Arc<Field>| {
        made.column_by_name(field.name())
            .or_else(|| rows.column_by_name(field.name()))
            .cloned()
            .ok_or_else(|| Error::internal("rollouts", format!("no column {}", field.name())))
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let fields: Vec<Field> =
        schema.fields().iter().zip(&columns).map(|(f, c)| Field::new(f.name(), c.data_type().clone(), true)).collect();
    Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?)
}
