//! ShareGPT: `{id, conversations: [{from, value}, ..]}`, also with `role` / `content` and with tool turns.
//!
//! Out: the first turn of the human. Tool turns that come later do not matter.

use super::{Context, Format, Prompt};
use crate::import::dialogue;
use crate::import::reason::Refusal;
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct ShareGpt;

fn field(row: Row<'_>) -> &'static str {
    if row.get("conversation").is_some() && row.get("conversations").is_none() {
        "conversation"
    } else {
        "conversations"
    }
}

impl Format for ShareGpt {
    fn name(&self) -> &'static str {
        "sharegpt"
    }

    fn fields(&self) -> &'static str {
        "id, conversations [{from, value}]"
    }

    fn matches(&self, row: Row<'_>) -> bool {
        dialogue::is_dialogue(row.get(field(row)))
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        let instruction = dialogue::first_user_turn(row.list(field(row))?)?;
        Ok(Prompt { id: row.id("id"), instruction, ..Prompt::default() })
    }
}
