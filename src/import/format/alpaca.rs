//! Alpaca: `{instruction, input, output}`.
//!
//! Out: the instruction, and after a blank line its input where it has one (`<noinput>` is none).

use super::{Context, Format, Prompt, with_input};
use crate::import::reason::Refusal;
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct Alpaca;

impl Format for Alpaca {
    fn name(&self) -> &'static str {
        "alpaca"
    }

    fn fields(&self) -> &'static str {
        "instruction, input, output"
    }

    fn matches(&self, row: Row<'_>) -> bool {
        row.is_text("instruction") && (row.is_text("output") || row.is_text("input"))
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        let instruction = with_input(row.text("instruction")?, row.optional_text("input")?);
        Ok(Prompt { instruction, ..Prompt::default() })
    }
}
