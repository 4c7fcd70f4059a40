//! Anthropic HH: `{chosen, rejected}`, each a whole dialogue in one text with `Human:` and `Assistant:` paragraphs.
//!
//! Out: the first human turn; as a pair, everything before the last `Assistant:` is the prompt, which both dialogues
//! must share, and what follows it are the answers. Prompts are red-teaming where the path says harmless or red-team.

use super::{Context, Format, Pair, Prompt};
use crate::import::PromptKind;
use crate::import::dialogue::{self, Role, Turn};
use crate::import::reason::{Reason, Refusal};
use crate::import::row::Row;

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

#[derive(Debug)]
pub(crate) struct Hh;

/// Whether a text is a dialogue in this layout.
pub(super) fn is_dialogue(text: &str) -> bool {
    text.trim_start().starts_with("Human:") && text.contains("Assistant:")
}

/// With `\n` line ends and a blank line before the first marker, so that all markers look alike.
fn normalised(text: &str) -> String {
    format!("\n\n{}", text.replace("\r\n", "\n").trim_start())
}

/// The turns of a dialogue; text before the first marker is an error.
pub(super) fn turns(text: &str) -> Result<Vec<Turn>, Refusal> {
    let text = normalised(text);
    let mut rest = if text.trim().is_empty() { "" } else { text.as_str() };
    let mut turns = Vec::new();
    while !rest.is_empty() {
        let (role, body) = match (rest.strip_prefix(HUMAN), rest.strip_prefix(ASSISTANT)) {
            (Some(body), _) => (Role::User, body),
            (_, Some(body)) => (Role::Assistant, body),
            _ => {
                return Err(Refusal::new(
                    Reason::WrongType,
                    "no dialogue: it starts with neither Human: nor Assistant:",
                ));
            }
        };
        let end = [body.find(HUMAN), body.find(ASSISTANT)].into_iter().flatten().min().unwrap_or(body.len());
        let (said, after) = body.split_at(end);
        turns.push(Turn { role, text: said.to_owned() });
        rest = after;
    }
    Ok(turns)
}

impl Format for Hh {
    fn name(&self) -> &'static str {
        "hh"
    }

    fn fields(&self) -> &'static str {
        "chosen, rejected (dialogues with Human: and Assistant:)"
    }

    fn has_pairs(&self) -> bool {
        true
    }

    fn matches(&self, row: Row<'_>) -> bool {
        let dialogue = |name| row.text(name).is_ok_and(is_dialogue);
        row.get("prompt").is_none() && row.is_text("rejected") && dialogue("chosen")
    }

    fn prompt(&self, row: Row<'_>, context: Context<'_>) -> Result<Prompt, Refusal> {
        let first = turns(row.text("chosen")?)?.into_iter().next();
        let path = context.file.to_ascii_lowercase();
        let red = ["harmless", "red-team", "red_team"].iter().any(|word| path.contains(word));
        match first {
            Some(Turn { role: Role::User, text }) => {
                Ok(Prompt { instruction: text, kind: red.then_some(PromptKind::RedTeaming), ..Prompt::default() })
            }
            Some(_) => Err(Refusal::new(Reason::NotAFirstTurn, "the dialogue starts with the assistant")),
            None => Err(Refusal::new(Reason::Empty, "the dialogue has no turn")),
        }
    }

    fn pair(&self, row: Row<'_>, _context: Context<'_>) -> Result<Pair, Refusal> {
        let (chosen, rejected) = (normalised(row.text("chosen")?), normalised(row.text("rejected")?));
        let (Some((prompt, chosen)), Some((other, rejected))) =
            (chosen.rsplit_once(ASSISTANT), rejected.rsplit_once(ASSISTANT))
        else {
            return Err(Refusal::new(Reason::TurnOrder, "a dialogue without an Assistant: turn"));
        };
        if prompt != other {
            return Err(Refusal::new(Reason::NoSharedPrompt, "the dialogues differ before their last Assistant: turn"));
        }
        if chosen.contains(HUMAN) || rejected.contains(HUMAN) {
            return Err(Refusal::new(Reason::TurnOrder, "a dialogue ends in a Human: turn"));
        }
        let prompt = dialogue::prompt_text(&turns(prompt)?)?;
        Ok(Pair { prompt, chosen: chosen.to_owned(), rejected: rejected.to_owned() })
    }
}
