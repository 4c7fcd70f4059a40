//! Dolly: `{instruction, context, response, category}`.
//!
//! Out: the instruction, and after a blank line its context where it has one.

use super::{Context, Format, Prompt, with_input};
use crate::import::reason::Refusal;
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct Dolly;

impl Format for Dolly {
    fn name(&self) -> &'static str {
        "dolly"
    }

    fn fields(&self) -> &'static str {
        "instruction, context, response, category"
    }

    fn matches(&self, row: Row<'_>) -> bool {
        row.is_text("instruction") && row.is_text("response") && (row.is_text("context") || row.is_text("category"))
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        let instruction = with_input(row.text("instruction")?, row.optional_text("context")?);
        Ok(Prompt { instruction, ..Prompt::default() })
    }
}
