//! The base model's folder, without its weights.
//!
//! In: `[model]`. Out: its configuration and tokenizer, or what is wrong with it.

use std::path::Path;

use super::Report;
use super::place::Places;
use crate::config::Config;
use crate::model::{Dimensions, ModelConfig, Tokenizer, has_weights, inspect};
use crate::store::{self, Remote};
use crate::{Error, Result, world};

/// What the cost and the limits follow from.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: ModelConfig,
    pub(super) tokenizer: Tokenizer,
    /// The size of a model at a URL that was never fetched.
    pub(super) unfetched: Option<u64>,
}

/// Looks at the folder; `None` for one that cannot be used. A base that the run makes has the layout of the one that
/// salmon ships.
pub(super) async fn check(
    config: &Config,
    folder: &Path,
    places: &Places,
    report: &mut Report,
) -> Result<Option<Model>> {
    let place = places.of("model.base");
    if store::is_url(&config.model.base) {
        return at_url(config, places, report).await;
    }
    let path = match config.model.base.as_str() {
        "pocket" | "pretrain" => world::base::folder()?,
        path => folder.join(path),
    };
    if !path.is_dir() {
        let shown = path.display();
        report.finding(format!("{place}: there is no model folder {shown}; give the folder with config.json"));
        return Ok(None);
    }
    let before = report.findings.len();
    if !has_weights(&path) {
        return without_weights(config, &path, places, report);
    }
    let inspection = match inspect(&path) {
        Ok(inspection) => inspection,
        Err(error) => {
            report.finding(error);
            return Ok(None);
        }
    };
    inspection.problems.iter().for_each(|problem| report.finding(problem));
    let Some(tokenizer) = tokenizer(config, &inspection.config, &path, places, report)? else { return Ok(None) };
    let name = &config.model.base;
    report.done(
        before,
        format!(
            "model: {name}: {} tensors, {:.1} M parameters, {:.1} MB; vocabulary {}, context {}",
            inspection.tensors,
            inspection.parameters as f64 / 1e6,
            inspection.bytes as f64 / 1e6,
            tokenizer.vocab_size(),
            inspection.config.max_position_embeddings
        ),
    )?;
    Ok(Some(Model { config: inspection.config, tokenizer, unfetched: None }))
}

/// A folder at a URL: its weights are listed, not fetched.
async fn at_url(config: &Config, places: &Places, report: &mut Report) -> Result<Option<Model>> {
    let before = report.findings.len();
    let found = async {
        let source = Remote::folder(&config.model.base).await?;
        let path = source.without_weights().fetch().await?;
        Ok::<_, Error>((ModelConfig::open(&path)?, source, path))
    };
    let (model, source, path) = match found.await {
        Ok(found) => found,
        Err(error) => {
            report.finding(error);
            return Ok(None);
        }
    };
    if !source.names().any(|name| name.ends_with(".safetensors")) {
        report.finding(format!("{}: holds no *.safetensors", source.url()));
    }
    let Some(tokenizer) = tokenizer(config, &model, &path, places, report)? else { return Ok(None) };
    let millions = Dimensions::of(&model)?.parameters() as f64 / 1e6;
    let sizes = format!(
        "{:.1} MB in {} files, {millions:.1} M parameters; vocabulary {}, context {}",
        source.size() as f64 / 1e6,
        source.names().count(),
        tokenizer.vocab_size(),
        model.max_position_embeddings
    );
    report.done(before, format!("model: {}: {sizes}", source.url()))?;
    let unfetched = if source.recorded().is_none() { Some(source.size()) } else { None };
    Ok(Some(Model { config: model, tokenizer, unfetched }))
}

/// A folder that holds no weights yet: what a run will cost can be said before they are downloaded.
fn without_weights(config: &Config, path: &Path, places: &Places, report: &mut Report) -> Result<Option<Model>> {
    let before = report.findings.len();
    let model = match ModelConfig::open(path) {
        Ok(model) => model,
        Err(error) => {
            report.finding(error);
            return Ok(None);
        }
    };
    let parameters = Dimensions::of(&model)?.parameters();
    let bytes = parameters as f64 * model.torch_dtype.elt_size_in_bytes() as f64;
    report.note(format!(
        "{}: has no weights; a run needs its *.safetensors, {:.1} GB with the type in config.json",
        path.display(),
        bytes / 1e9
    ));
    let Some(tokenizer) = tokenizer(config, &model, path, places, report)? else { return Ok(None) };
    let (name, context) = (&config.model.base, model.max_position_embeddings);
    let millions = parameters as f64 / 1e6;
    let sizes = format!("{millions:.1} M parameters; vocabulary {}, context {context}", tokenizer.vocab_size());
    report.done(before, format!("model: {name}: config.json and tokenizer, no weights, {sizes}"))?;
    Ok(Some(Model { config: model, tokenizer, unfetched: None }))
}

/// The tokenizer, and what must be so for answers to end and verdicts to be tokens.
fn tokenizer(
    config: &Config,
    model: &ModelConfig,
    path: &Path,
    places: &Places,
    report: &mut Report,
) -> Result<Option<Tokenizer>> {
    if model.eos_token_ids.is_empty() {
        let file = path.join("config.json");
        report.finding(format!("{}: has no eos_token_id; answers could not end", file.display()));
    }
    if let Some(Err(error)) = config.model.lora.as_ref().map(|lora| lora.check_model(model)) {
        report.finding(format!("{}: {error}", places.of("model.lora")));
    }
    let tokenizer = match Tokenizer::open(path) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            report.finding(error);
            return Ok(None);
        }
    };
    let mut answers = vec![("judge.answers", &config.judge.answers)];
    answers.extend(config.reward.answers.as_ref().map(|answers| ("reward.answers", answers)));
    for (key, texts) in answers {
        for text in texts {
            let tokens = match tokenizer.token(text) {
                Some(_) => 1,
                None => tokenizer.encode(text, false)?.len(),
            };
            if tokens != 1 {
                let place = places.of(key);
                report.finding(format!("{place}: `{text}` is {tokens} tokens of the model; it must be one"));
            }
        }
    }
    Ok(Some(tokenizer))
}
