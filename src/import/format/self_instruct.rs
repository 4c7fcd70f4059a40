//! Self-instruct seed tasks: `{id, instruction, instances: [{input, output}, ..]}`.
//!
//! Out: one prompt per task: the instruction with the input of its first instance.

use super::{Context, Format, Prompt, with_input};
use crate::import::reason::Refusal;
use crate::import::row::{self, Row};

#[derive(Debug)]
pub(crate) struct SelfInstruct;

impl Format for SelfInstruct {
    fn name(&self) -> &'static str {
        "self_instruct"
    }

    fn fields(&self) -> &'static str {
        "id, instruction, instances [{input, output}]"
    }

    fn matches(&self, row: Row<'_>) -> bool {
        row.is_text("instruction") && row.is_list("instances")
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        let input = match row.list("instances")?.first() {
            Some(instance) => row::object("instances", instance)?.optional_text("input")?,
            None => None,
        };
        Ok(Prompt { id: row.id("id"), instruction: with_input(row.text("instruction")?, input), ..Prompt::default() })
    }
}
