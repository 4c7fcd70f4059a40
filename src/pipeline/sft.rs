//! Stage `sft`: principle engraving, demonstrations -> the model `sft`.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use serde_json::{Value, json};

use super::rows::{register, texts};
use super::settings::Settings;
use super::setup::Setup;
use super::training::{Order, train};
use crate::model::{ModelConfig, Tokenizer};
use crate::stage::{Job, Stage};
use crate::store::Artifact;
use crate::train::sft::{Example, SftTrainer};
use crate::train::{Plan, Run};
use crate::{Error, Result, query};

const SQL: &str = include_str!("../../sql/sft.sql");

/// The stage.
pub(super) fn stage(setup: &Arc<Setup>) -> Result<Stage> {
    let template = setup.config.templates.chat.clone();
    let settings = Settings::default().with("chat_template", template.clone());
    let mut lineage = setup.lineage(SQL, &settings, &[template])?;
    lineage.parameters.insert("trainer".into(), setup.json(&setup.config.sft)?);
    lineage.parameters.insert("model".into(), setup.model_json());
    lineage.parameters.insert("identity".into(), setup.json(&setup.library.identity)?);
    let mut inputs = vec![Artifact::table("demonstrations")];
    setup.uses("base", &mut inputs, &mut lineage);
    let setup = Arc::clone(setup);
    let outputs = vec![Artifact::model("sft"), Artifact::table("metrics")];
    Ok(Stage::new("sft", inputs, outputs, lineage, move |job| {
        let (setup, params) = (Arc::clone(&setup), settings.params());
        async move { run(&setup, job, &params).await }
    }))
}

async fn run(setup: &Arc<Setup>, job: Arc<Job>, params: &query::Params) -> Result<()> {
    let (ctx, _) = setup.session(&job, &[]).await?;
    setup.identity_table(&ctx)?;
    let base = setup.base_folder(&job).await?;
    let tokenizer = Tokenizer::open(&base)?;
    let network = setup.trainable(&base, &base, setup.key("sft/lora"))?;
    let (context, end) = (network.config().max_position_embeddings, end_token(network.config(), &base)?);

    let mut examples = Vec::new();
    let mut skipped = 0;
    let mut rows = query::sql(&ctx, SQL, params).await?.execute_stream().await?;
    while let Some(batch) = rows.try_next().await? {
        for (prompt, completion) in texts(&batch, "prompt")?.into_iter().zip(texts(&batch, "completion")?) {
            let prompt = tokenizer.encode(prompt, true)?;
            let mut answer = tokenizer.encode(completion, false)?;
            answer.push(end);
            if prompt.len() + answer.len() > context {
                skipped += 1;
            } else {
                examples.push(Example::answer(&prompt, &answer));
            }
        }
    }
    if examples.is_empty() {
        let problem =
            format!("no demonstration was kept and fits the context of {context} tokens ({skipped} too long)");
        return Err(Error::data(
            "stage sft",
            format!("{problem}; `select drop_reason, count(*) from demonstrations group by 1` says why"),
        ));
    }
    let config = setup.config.sft.clone();
    let key = setup.key("sft");
    let plan = Plan { rows: examples.len(), batch_size: config.batch_size, epochs: config.num_train_epochs, key };
    let run = Run { stage: "sft".into(), total_steps: plan.steps(), workers: setup.workers, key };
    let counts = vec![("rows/used", examples.len() as f64), ("rows/too_long", f64::from(skipped))];
    let order = Order {
        stage: "sft".into(),
        model: "sft".into(),
        checkpoint_seconds: setup.config.checkpoint_seconds,
        plan,
        counts,
    };
    train(job, SftTrainer::new(network, config, run)?, examples, order).await
}

/// The token that ends an answer.
pub(super) fn end_token(config: &ModelConfig, folder: &Path) -> Result<u32> {
    let none = || {
        Error::model(folder.join("config.json").display(), "has no eos_token_id; answers could not end, name the token")
    };
    config.eos_token_ids.first().copied().ok_or_else(none)
}

impl Setup {
    /// Registers the questions about the assistant itself as `identity`.
    fn identity_table(&self, ctx: &SessionContext) -> Result<()> {
        let rows: Vec<Value> = self
            .library
            .identity
            .iter()
            .enumerate()
            .map(|(ordinal, i)| json!({"ordinal": ordinal, "question": i.question, "answer": i.answer}))
            .collect();
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        register(
            ctx,
            "identity",
            vec![Field::new("ordinal", DataType::Int64, true), text("question"), text("answer")],
            &rows,
        )
    }
}
