//! The models of the runs, known by name and loaded when a statement asks them.
//!
//! In: runs that `salmon run` made. Out: an entry for each model in [`Models`], and the templates that the first run was made
//! with. A model is fetched and read on a thread with a runtime of its own, because whoever asks may hold up the threads
//! of the one that it runs in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::opened::{OpenRun, reward_template, stored_config};
use super::space::Run;
use crate::engine::Inference;
use crate::model::Tokenizer;
use crate::principle::Templates;
use crate::query::{Judging, Models};
use crate::{Error, Result};

/// The functions that need a model of a run, or its tokenizer.
pub(crate) const MODEL_FUNCTIONS: [&str; 7] =
    ["generate", "choice_logits", "reward", "logprobs", "judge", "count_tokens", "truncate_tokens"];

/// Whether a function needs to know the models or templates of a run.
pub(super) fn needs_run(function: &str) -> bool {
    function == "render" || MODEL_FUNCTIONS.contains(&function)
}

/// What is known of the runs' models.
#[derive(Debug)]
pub(super) struct Known {
    /// The templates of the first run.
    pub(super) templates: Arc<Templates>,
    /// Where each model's run lies.
    places: BTreeMap<String, String>,
}

/// Adds the models of the runs to `models`. A run that keeps no configuration has none that could be asked.
pub(super) async fn know(runs: &[Run], models: &Models, built_in: &Arc<Templates>) -> Result<Known> {
    let mut known = Known { templates: Arc::clone(built_in), places: BTreeMap::new() };
    for (i, run) in runs.iter().enumerate() {
        if stored_config(&run.store).await?.is_none() {
            continue;
        }
        let url = run.store.url();
        let opened = OpenRun::open(url).await?;
        let templates = Arc::new(opened.all_templates().await?);
        if i == 0 {
            known.templates = Arc::clone(&templates);
        }
        let judging = Arc::new(judging(&opened, templates).await?);
        for model in opened.names() {
            let bare = (i == 0).then(|| model.clone());
            let full = run.alias.as_ref().map(|alias| format!("{alias}.{model}"));
            for name in bare.into_iter().chain(full) {
                register(models, &name, url, &model, &judging);
                known.places.insert(name, url.to_string());
            }
        }
    }
    Ok(known)
}

impl Known {
    /// The folder of the base model of the run that a model belongs to.
    pub(super) async fn base(&self, model: &str) -> Result<PathBuf> {
        let url = self.places.get(model).ok_or_else(|| Error::internal(format!("model {model}"), "has no run"))?;
        OpenRun::open(url).await?.base_folder().await
    }
}

async fn judging(run: &OpenRun, templates: Arc<Templates>) -> Result<Judging> {
    let judge = &run.config.judge;
    let principles = run.library().await?;
    Ok(Judging {
        templates,
        template: run.config.templates.judge.clone(),
        answers: judge.answers.clone(),
        max_query_tokens: judge.max_query_tokens,
        max_response_tokens: judge.max_response_tokens,
        principles: principles.principles.iter().map(|p| (p.name.clone(), p.definition.clone())).collect(),
    })
}

fn register(models: &Models, name: &str, url: &str, model: &str, judging: &Arc<Judging>) {
    let (from, of) = (url.to_string(), model.to_string());
    let load = move || {
        let (url, model) = (from.clone(), of.clone());
        apart(async move || load(&url, &model).await)
    };
    let url = url.to_string();
    let tokenizer = move || {
        let url = url.clone();
        apart(async move || Ok(Arc::new(Tokenizer::open(&OpenRun::open(&url).await?.base_folder().await?)?)))
    };
    models.register_with_judging(name, load, tokenizer, Arc::clone(judging));
}

async fn load(url: &str, model: &str) -> Result<Arc<dyn Inference>> {
    let run = OpenRun::open(url).await?;
    let manifest = run.made(model).await?;
    let rewards = manifest.as_ref().and_then(reward_template).is_some();
    let found = run.find(manifest.as_ref()).await?;
    found.setup.inference(&found.base, &found.folder, rewards)
}

/// Runs `work` to its end on a thread of its own.
fn apart<T: Send + 'static>(work: impl AsyncFnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let bad = |e: std::io::Error| Error::internal("model", "no thread to load it").because(e);
    let thread = std::thread::Builder::new().spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(bad)?;
        runtime.block_on(work())
    });
    thread.map_err(bad)?.join().map_err(|_| Error::internal("model", "loading it failed"))?
}
