//! Stage `base`, for `model.base = "pretrain"`: the pocket world's corpus -> the model `base`.

use std::sync::Arc;

use super::setup::{Base, Setup};
use crate::Result;
use crate::stage::Stage;

/// The stage, where the run makes its own base model.
pub(super) fn stage(setup: &Arc<Setup>) -> Result<Option<Stage>> {
    match setup.base {
        Base::Folder { .. } => Ok(None),
        Base::Pretrained => Err(crate::Error::config("model.base", "pretrain is not there yet")),
    }
}
