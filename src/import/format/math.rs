//! MATH: `{problem, level, type, solution}`. Out: the problem, always reasoning.

use super::{Context, Format, Prompt};
use crate::import::PromptKind;
use crate::import::reason::Refusal;
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct Math;

impl Format for Math {
    fn name(&self) -> &'static str {
        "math"
    }

    fn fields(&self) -> &'static str {
        "problem, level, type, solution"
    }

    fn matches(&self, row: Row<'_>) -> bool {
        row.is_text("problem") && (row.is_text("solution") || row.is_text("level"))
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        Ok(Prompt {
            instruction: row.text("problem")?.to_owned(),
            kind: Some(PromptKind::Reasoning),
            ..Prompt::default()
        })
    }
}
