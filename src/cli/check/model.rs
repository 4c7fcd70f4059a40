//! The base model's folder, without its weights.
//!
//! In: `[model]`. Out: its configuration and tokenizer, or what is wrong with it.

use std::path::Path;

use super::Report;
use super::place::Places;
use crate::config::Config;
use crate::model::{ModelConfig, Tokenizer, inspect};
use crate::{Result, world};

/// What the cost and the limits follow from.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: ModelConfig,
    pub(super) tokenizer: Tokenizer,
}

/// Looks at the folder; `None` for one that cannot be used. A base that the run makes has the layout of the one that
/// salmon ships.
pub(super) fn check(config: &Config, folder: &Path, places: &Places, report: &mut Report) -> Result<Option<Model>> {
    let place = places.of("model.base");
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
    let inspection = match inspect(&path) {
        Ok(inspection) => inspection,
        Err(error) => {
            report.finding(error);
            return Ok(None);
        }
    };
    inspection.problems.iter().for_each(|problem| report.finding(problem));
    if inspection.config.eos_token_ids.is_empty() {
        let file = path.join("config.json");
        report.finding(format!("{}: has no eos_token_id; answers could not end", file.display()));
    }
    if let Some(Err(error)) = config.model.lora.as_ref().map(|lora| lora.check_model(&inspection.config)) {
        report.finding(format!("{}: {error}", places.of("model.lora")));
    }
    let tokenizer = match Tokenizer::open(&path) {
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
    Ok(Some(Model { config: inspection.config, tokenizer }))
}
