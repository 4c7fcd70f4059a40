//! OpenOrca: `{id, system_prompt, question, response}`; the id starts with flan, niv, t0 or cot.
//!
//! Out: the question; a `cot` question is reasoning. The system prompt says how to answer, which is what principles
//! are for, so it is left out.

use super::{Context, Format, Prompt};
use crate::import::PromptKind;
use crate::import::reason::Refusal;
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct OpenOrca;

impl Format for OpenOrca {
    fn name(&self) -> &'static str {
        "openorca"
    }

    fn fields(&self) -> &'static str {
        "id, system_prompt, question, response"
    }

    fn matches(&self, row: Row<'_>) -> bool {
        row.is_text("question") && row.is_text("response") && row.0.contains_key("system_prompt")
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        let id = row.id("id");
        let kind = id.as_deref().is_some_and(|id| id.starts_with("cot")).then_some(PromptKind::Reasoning);
        Ok(Prompt { id, instruction: row.text("question")?.to_owned(), kind, ..Prompt::default() })
    }
}
