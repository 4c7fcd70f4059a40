//! OpenAssistant: message trees with nested replies, and the flat table with one message per row.
//!
//! In: `{message_tree_id, tree_state, prompt: {message_id, text, role, lang, deleted, replies: [..]}}`, or
//! `{message_id, parent_id, text, role, lang, deleted, tree_state}`. Out: the root of each tree, the first turn of
//! the user; replies are no prompts of their own.

use serde_json::Value;

use super::{Context, Format, Prompt};
use crate::import::language;
use crate::import::reason::{Reason, Refusal};
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct Oasst;

impl Format for Oasst {
    fn name(&self) -> &'static str {
        "oasst"
    }

    fn fields(&self) -> &'static str {
        "message_tree_id, tree_state, prompt {text, lang, deleted, replies}; or flat: message_id, parent_id, text, role"
    }

    fn matches(&self, row: Row<'_>) -> bool {
        let tree = row.get("message_tree_id").is_some() && matches!(row.get("prompt"), Some(Value::Object(_)));
        let flat = row.is_text("message_id") && row.is_text("text") && row.is_text("role");
        tree || flat
    }

    fn prompt(&self, row: Row<'_>, context: Context<'_>) -> Result<Prompt, Refusal> {
        let root = if row.get("prompt").is_some() { row.object("prompt")? } else { row };
        if root.id("parent_id").is_some() {
            return Err(Refusal::new(Reason::NotAFirstTurn, "the message is a reply"));
        }
        let deleted = matches!(root.get("deleted"), Some(Value::Bool(true)))
            || matches!(root.get("deleted"), Some(Value::String(text)) if text.eq_ignore_ascii_case("true"));
        if deleted {
            return Err(Refusal::new(Reason::Deleted, "the message was deleted"));
        }
        if let Some(role) = root.optional_text("role")?.filter(|role| *role != "prompter") {
            return Err(Refusal::new(Reason::NotAFirstTurn, format!("the root is by the {role}")));
        }
        let wanted = &context.options.tree_states;
        if let Some(state) = row.optional_text("tree_state")?
            && !wanted.iter().any(|want| want == state || want == "all")
        {
            return Err(Refusal::new(Reason::NotReady, format!("tree_state is {state}")));
        }
        Ok(Prompt {
            id: root.id("message_id"),
            instruction: root.text("text")?.to_owned(),
            language: root.optional_text("lang")?.and_then(language::from_code),
            ..Prompt::default()
        })
    }
}
