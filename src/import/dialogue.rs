//! Conversations: turns with roles, the first user turn, and prompt and answers of a preference pair.
//!
//! In: lists of messages (`from`/`value` or `role`/`content`). Out: the text of the first user turn, or the shared
//! prompt and the two last turns of two conversations.

use serde_json::Value;

use super::clean;
use super::format::Pair;
use super::reason::{Reason, Refusal};
use super::row::{self, Row};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) role: Role,
    pub(crate) text: String,
}

/// The names that chat datasets use for the four roles.
fn role(name: &str) -> Result<Role, Refusal> {
    Ok(match name.trim().to_ascii_lowercase().as_str() {
        "user" | "human" | "prompter" => Role::User,
        "assistant" | "gpt" | "chatgpt" | "bard" | "bing" | "model" | "bot" => Role::Assistant,
        "system" | "developer" => Role::System,
        "tool" | "function" | "function_call" | "function-call" | "tool_call" | "observation" | "function_response"
        | "tool_response" => Role::Tool,
        other => return Err(Refusal::new(Reason::WrongType, format!("unknown role `{}`", clean::excerpt(other)))),
    })
}

/// Text content; a list of parts is joined (only its text parts), null is an empty turn.
fn content(row: Row<'_>, name: &str) -> Result<String, Refusal> {
    match row.get(name) {
        None => Ok(String::new()),
        Some(Value::Array(parts)) => {
            let mut texts = Vec::new();
            for part in parts {
                let part = row::object(name, part)?;
                if let Some(text) = part.optional_text("text")? {
                    texts.push(text);
                }
            }
            Ok(texts.join("\n"))
        }
        Some(_) => row.text(name).map(str::to_owned),
    }
}

/// One message of a list.
fn turn(value: &Value) -> Result<Turn, Refusal> {
    let message = row::object("a turn", value)?;
    let (who, what) = if message.get("from").is_some() { ("from", "value") } else { ("role", "content") };
    Ok(Turn { role: role(message.text(who)?)?, text: content(message, what)? })
}

/// Whether a list looks like a conversation.
pub(crate) fn is_dialogue(value: Option<&Value>) -> bool {
    let first = value.and_then(Value::as_array).and_then(|turns| turns.first()).and_then(Value::as_object);
    first.is_some_and(|turn| (turn.contains_key("from") || turn.contains_key("role")) && turn.len() > 1)
}

/// Every turn of a list.
pub(crate) fn turns(list: &[Value]) -> Result<Vec<Turn>, Refusal> {
    list.iter().map(turn).collect()
}

/// The first user turn; system turns before it are passed over, and nothing after it is looked at.
pub(crate) fn first_user_turn(list: &[Value]) -> Result<String, Refusal> {
    for value in list {
        let turn = turn(value)?;
        match turn.role {
            Role::System => continue,
            Role::User => return Ok(turn.text),
            Role::Assistant => {
                return Err(Refusal::new(Reason::NotAFirstTurn, "the conversation starts with the assistant"));
            }
            Role::Tool => return Err(Refusal::new(Reason::ToolRole, "the conversation starts with a tool")),
        }
    }
    Err(Refusal::new(Reason::Empty, "the conversation has no user turn"))
}

/// A prompt of several turns as one text: a single user turn stays as it is, more turns are paragraphs that begin
/// with `System: `, `User: ` or `Assistant: `.
pub(crate) fn prompt_text(turns: &[Turn]) -> Result<String, Refusal> {
    let spoken: Vec<&Turn> =
        turns.iter().filter(|turn| turn.role != Role::System || !turn.text.trim().is_empty()).collect();
    match spoken.as_slice() {
        [] => Err(Refusal::new(Reason::Empty, "the prompt has no turn")),
        [only] if only.role == Role::User => Ok(clean::text(&only.text)),
        [.., last] if last.role != Role::User => {
            Err(Refusal::new(Reason::TurnOrder, "the prompt does not end in the user's turn"))
        }
        many => {
            let paragraphs = many.iter().map(|turn| {
                let name = match turn.role {
                    Role::System => "System",
                    Role::User => "User",
                    Role::Assistant => "Assistant",
                    Role::Tool => "Tool",
                };
                format!("{name}: {}", clean::text(&turn.text))
            });
            Ok(paragraphs.collect::<Vec<_>>().join("\n\n"))
        }
    }
}

/// The pair of two conversations that share all turns but the last.
pub(crate) fn pair(chosen: &[Turn], rejected: &[Turn]) -> Result<Pair, Refusal> {
    let (Some((chosen, prompt)), Some((rejected, other))) = (chosen.split_last(), rejected.split_last()) else {
        return Err(Refusal::new(Reason::EmptyTurn, "chosen or rejected has no turn"));
    };
    if prompt != other {
        return Err(Refusal::new(Reason::NoSharedPrompt, "the turns before the answers differ"));
    }
    if chosen.role != Role::Assistant || rejected.role != Role::Assistant {
        return Err(Refusal::new(Reason::TurnOrder, "the last turn is not the assistant's"));
    }
    Ok(Pair { prompt: prompt_text(prompt)?, chosen: chosen.text.clone(), rejected: rejected.text.clone() })
}
