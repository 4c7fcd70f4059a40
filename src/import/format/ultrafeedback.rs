//! UltraFeedback-binarized: `{prompt, prompt_id, chosen: [messages], rejected: [messages], score_chosen,
//! score_rejected}`.
//!
//! Out: the first user turn; as a pair, the shared turns and the two last answers. Equal scores are a tie.

use super::{Context, Format, Pair, Prompt};
use crate::import::dialogue;
use crate::import::reason::{Reason, Refusal};
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct UltraFeedback;

impl Format for UltraFeedback {
    fn name(&self) -> &'static str {
        "ultrafeedback"
    }

    fn fields(&self) -> &'static str {
        "prompt, prompt_id, chosen [{role, content}], rejected [..], score_chosen, score_rejected"
    }

    fn has_pairs(&self) -> bool {
        true
    }

    fn matches(&self, row: Row<'_>) -> bool {
        row.is_list("chosen") && row.is_list("rejected") && row.get("score_chosen").is_some()
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        let instruction = dialogue::first_user_turn(row.list("chosen")?)?;
        Ok(Prompt { id: row.id("prompt_id"), instruction, ..Prompt::default() })
    }

    fn pair(&self, row: Row<'_>, _context: Context<'_>) -> Result<Pair, Refusal> {
        let pair = dialogue::pair(&dialogue::turns(row.list("chosen")?)?, &dialogue::turns(row.list("rejected")?)?)?;
        let score = row.number("score_chosen")?;
        if score == row.number("score_rejected")? {
            return Err(Refusal::new(Reason::Tie, format!("both scores are {score}")));
        }
        Ok(pair)
    }
}
