//! Plain rows with one text per field: JSON, CSV or Parquet, with `--column` for fields of other names.
//!
//! In: any row. Out: `instruction` (or `prompt`, or `question`), with `input` below it where there is one, and
//! `prompt_id`, `kind`, `language`, `source` where the row has them (so salmon's own `prompts` table imports as it
//! is); as a pair, `prompt`, `chosen` and `rejected`.

use super::{Context, Format, Pair, Prompt, with_input};
use crate::import::reason::{Reason, Refusal};
use crate::import::row::Row;
use crate::import::{PromptKind, clean, language};

/// What `--column TARGET=NAME` can map.
pub(crate) const TARGETS: [&str; 9] =
    ["instruction", "input", "prompt_id", "kind", "language", "source", "prompt", "chosen", "rejected"];

/// Where an instruction is looked for when no `--column` says.
const INSTRUCTION: [&str; 3] = ["instruction", "prompt", "question"];

#[derive(Debug)]
pub(crate) struct Plain;

/// The field that a target is read from.
fn field<'a>(context: Context<'a>, target: &'a str) -> &'a str {
    let mapped = context.options.columns.iter().find(|(name, _)| name == target);
    mapped.map_or(target, |(_, field)| field.as_str())
}

fn is_mapped(context: Context<'_>, target: &str) -> bool {
    context.options.columns.iter().any(|(name, _)| name == target)
}

/// A field the row may have. One that nobody mapped may be something else under the same name: then it is left out.
fn optional<'a>(row: Row<'a>, context: Context<'_>, target: &str) -> Result<Option<&'a str>, Refusal> {
    let text = row.optional_text(field(context, target));
    if is_mapped(context, target) { text } else { Ok(text.unwrap_or_default()) }
}

/// The field that the instruction is read from.
fn instruction_field<'a>(row: Row<'_>, context: Context<'a>) -> &'a str {
    if is_mapped(context, "instruction") {
        return field(context, "instruction");
    }
    INSTRUCTION.into_iter().find(|name| row.get(name).is_some()).unwrap_or("instruction")
}

impl Format for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn fields(&self) -> &'static str {
        "instruction, prompt or question; or any field named with --column"
    }

    fn is_layout(&self) -> bool {
        true
    }

    fn has_pairs(&self) -> bool {
        true
    }

    fn matches(&self, row: Row<'_>) -> bool {
        INSTRUCTION.iter().any(|name| row.is_text(name))
    }

    fn prompt(&self, row: Row<'_>, context: Context<'_>) -> Result<Prompt, Refusal> {
        let text = row.text(instruction_field(row, context))?;
        let name = optional(row, context, "kind")?;
        let kind = name.and_then(PromptKind::from_name);
        if let Some(name) = name.filter(|_| kind.is_none() && is_mapped(context, "kind")) {
            let detail = format!("kind `{}` is not general, reasoning or red_teaming", clean::excerpt(name));
            return Err(Refusal::new(Reason::WrongType, detail));
        }
        Ok(Prompt {
            id: row.id(field(context, "prompt_id")),
            instruction: with_input(text, optional(row, context, "input")?),
            kind,
            language: optional(row, context, "language")?.and_then(language::from_code),
            source: optional(row, context, "source")?.map(str::to_owned),
        })
    }

    fn pair(&self, row: Row<'_>, context: Context<'_>) -> Result<Pair, Refusal> {
        let text = |target| row.text(field(context, target)).map(str::to_owned);
        Ok(Pair { prompt: text("prompt")?, chosen: text("chosen")?, rejected: text("rejected")? })
    }
}
