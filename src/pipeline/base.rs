//! Stage `base`, for `model.base = "pretrain"`: the pocket world's corpus -> the model `base`.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::setup::{Base, Setup};
use super::training::{Pace, Recorder};
use crate::stage::{Job, Stage};
use crate::store::{Artifact, Lineage};
use crate::world::curriculum::Options;
use crate::world::pretrain::{STAGE, pretrain};
use crate::{Error, Result};

/// Raised when the corpus, the curriculum or the constants of the training change.
const VERSION: u32 = 1;

/// The stage, where the run makes its own base model.
pub(super) fn stage(setup: &Arc<Setup>) -> Result<Option<Stage>> {
    if !matches!(setup.base, Base::Pretrained) {
        return Ok(None);
    }
    let options = Options::default();
    let mut lineage = Lineage { version: VERSION, seed: Some(setup.config.seed), ..Lineage::default() };
    lineage.parameters.insert("length".into(), setup.json(&options)?);
    let outputs = vec![Artifact::model("base"), Artifact::table("metrics")];
    let setup = Arc::clone(setup);
    Ok(Some(Stage::new(STAGE, vec![], outputs, lineage, move |job| {
        let setup = Arc::clone(&setup);
        async move { run(&setup, job, options).await }
    })))
}

/// Trains to the end of the curriculum, from the newest checkpoint on, and writes model and metrics.
async fn run(setup: &Setup, job: Arc<Job>, options: Options) -> Result<()> {
    let scratch = job.scratch()?;
    let (folder, model) = (scratch.path().join("checkpoint"), scratch.path().join("model"));
    let checkpoints = job.checkpoints("base")?;
    let resume = checkpoints.restore(&folder).await?.is_some();
    let mut recorder = if resume { Recorder::restore(&folder)? } else { Recorder::default() };
    let (key, workers, seconds) = (setup.key(STAGE), setup.workers, setup.config.checkpoint_seconds);
    let (runtime, worker) = (Handle::current(), Arc::clone(&job));
    let recorder = tokio::task::spawn_blocking(move || -> Result<Recorder> {
        let job = worker;
        let mut pace = Pace::new(seconds);
        let network = pretrain(key, workers, options, resume.then_some(folder.as_path()), |run, metrics| {
            recorder.add(STAGE, run.steps_done(), metrics);
            job.advance(run.curriculum().tokens(), run.curriculum().end(), "tokens");
            if pace.due() || job.stop().asked() {
                run.save(&folder)?;
                recorder.save(&folder)?;
                runtime.block_on(checkpoints.save(run.steps_done() as u64, &folder))?;
            }
            job.stop().check(STAGE)
        })?;
        network.save(&model)?;
        runtime.block_on(job.write_model("base", &model))?;
        Ok(recorder)
    })
    .await
    .map_err(|e| Error::internal("pre-training", "its thread died").because(e))??;
    recorder.write(&job).await
}
