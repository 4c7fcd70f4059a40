//! MT-Bench questions: `{question_id, category, turns: [first, second]}`.
//!
//! Out: the first turn; the categories math and reasoning are reasoning.

use serde_json::Value;

use super::{Context, Format, Prompt};
use crate::import::PromptKind;
use crate::import::reason::{Reason, Refusal};
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct MtBench;

impl Format for MtBench {
    fn name(&self) -> &'static str {
        "mt_bench"
    }

    fn fields(&self) -> &'static str {
        "question_id, category, turns [first, second]"
    }

    fn matches(&self, row: Row<'_>) -> bool {
        row.is_list("turns") && (row.get("question_id").is_some() || row.is_text("category"))
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        let instruction = match row.list("turns")?.first() {
            Some(Value::String(text)) => text.clone(),
            Some(_) => return Err(Refusal::new(Reason::WrongType, "the first item of `turns` is not text")),
            None => return Err(Refusal::new(Reason::Empty, "`turns` is empty")),
        };
        let reasoning = matches!(row.optional_text("category")?, Some("math" | "reasoning"));
        let kind = reasoning.then_some(PromptKind::Reasoning);
        Ok(Prompt { id: row.id("question_id"), instruction, kind, ..Prompt::default() })
    }
}
