//! TRL preferences: `{prompt, chosen, rejected}` as texts, or as lists of messages with the prompt in its own field
//! (explicit) or in front of both answers (implicit).
//!
//! Out: the prompt's first user turn; as a pair, the prompt and the two answers. A list of messages in `prompt` alone
//! (TRL's prompt-only layout) gives prompts.

use serde_json::Value;

use super::{Context, Format, Pair, Prompt, hh};
use crate::import::dialogue::{self, Role, Turn};
use crate::import::reason::{Reason, Refusal};
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct Trl;

/// The prompt as turns: a list of messages, a text with `Human:` markers (its open `Assistant:` taken off), or a text.
fn prompt_turns(row: Row<'_>) -> Result<Option<Vec<Turn>>, Refusal> {
    match row.get("prompt") {
        None => Ok(None),
        Some(Value::Array(list)) => dialogue::turns(list).map(Some),
        Some(_) => {
            let text = row.text("prompt")?;
            if !hh::is_dialogue(text) {
                return Ok(Some(vec![Turn { role: Role::User, text: text.to_owned() }]));
            }
            let mut turns = hh::turns(text)?;
            turns.pop_if(|last| last.role == Role::Assistant && last.text.trim().is_empty());
            Ok(Some(turns))
        }
    }
}

/// One answer as the whole conversation: the prompt's turns are put in front where the field does not repeat them.
fn conversation(row: Row<'_>, name: &str, prompt: Option<&[Turn]>) -> Result<Vec<Turn>, Refusal> {
    let said = match row.get(name) {
        Some(Value::Array(list)) => dialogue::turns(list)?,
        _ => vec![Turn { role: Role::Assistant, text: row.text(name)?.to_owned() }],
    };
    match prompt {
        Some(prompt) if said.len() <= 1 => Ok(prompt.iter().cloned().chain(said).collect()),
        None if said.len() <= 1 => Err(Refusal::new(Reason::MissingField, "`prompt` is missing or null")),
        // The conversation repeats the prompt, or the prompt is implicit: the answers' own turns decide.
        _ => Ok(said),
    }
}

impl Format for Trl {
    fn name(&self) -> &'static str {
        "trl"
    }

    fn fields(&self) -> &'static str {
        "prompt, chosen, rejected (texts or [{role, content}])"
    }

    fn is_layout(&self) -> bool {
        true
    }

    fn has_pairs(&self) -> bool {
        true
    }

    fn matches(&self, row: Row<'_>) -> bool {
        let lists = dialogue::is_dialogue(row.get("chosen")) && dialogue::is_dialogue(row.get("rejected"));
        let texts = row.get("prompt").is_some() && row.is_text("chosen") && row.is_text("rejected");
        lists || texts || dialogue::is_dialogue(row.get("prompt"))
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        let id = row.id("prompt_id").or_else(|| row.id("id"));
        let instruction = match row.get("prompt") {
            Some(Value::Array(list)) => dialogue::first_user_turn(list)?,
            Some(_) => match prompt_turns(row)?.unwrap_or_default().into_iter().next() {
                Some(turn) if turn.role == Role::User => turn.text,
                _ => return Err(Refusal::new(Reason::NotAFirstTurn, "the prompt does not start with the user")),
            },
            None => dialogue::first_user_turn(row.list("chosen")?)?,
        };
        Ok(Prompt { id, instruction, ..Prompt::default() })
    }

    fn pair(&self, row: Row<'_>, _context: Context<'_>) -> Result<Pair, Refusal> {
        let prompt = prompt_turns(row)?;
        dialogue::pair(
            &conversation(row, "chosen", prompt.as_deref())?,
            &conversation(row, "rejected", prompt.as_deref())?,
        )
    }
}
