//! OpenAI chat: `{messages: [{role, content}, ..]}`; content may be a list of parts, of which text counts.
//!
//! Out: the first turn of the user.

use super::{Context, Format, Prompt};
use crate::import::dialogue;
use crate::import::reason::Refusal;
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct OpenAi;

impl Format for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn fields(&self) -> &'static str {
        "messages [{role, content}]"
    }

    fn is_layout(&self) -> bool {
        true
    }

    fn matches(&self, row: Row<'_>) -> bool {
        dialogue::is_dialogue(row.get("messages"))
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        let instruction = dialogue::first_user_turn(row.list("messages")?)?;
        Ok(Prompt { id: row.id("prompt_id").or_else(|| row.id("id")), instruction, ..Prompt::default() })
    }
}
