//! The two outputs: prompts and preference pairs. Cleaning, lengths, duplicates, ids, languages and splits.
//!
//! In: what a format took from a row. Out: rows of the `prompts` or the `human_preferences` table, or the reason why
//! a row is none.

use std::collections::HashSet;
use std::path::Path;

use super::format::{Context, Format, Pair, Prompt};
use super::reason::{Reason, Refusal};
use super::row::Row;
use super::sink::{Cell, Sink};
use super::{Options, PromptKind, clean, language, tables};
use crate::{Result, table};

/// The output that is being written, and what it has seen.
pub(crate) struct Target<'a> {
    options: &'a Options,
    sink: Sink,
    /// Keys of the prompts (or pairs) kept so far: 16 bytes each, so a million prompts take some 32 MB.
    seen: HashSet<[u8; 16]>,
    /// Keys of the prompt ids given so far.
    ids: HashSet<[u8; 16]>,
}

impl<'a> Target<'a> {
    pub(crate) fn new(out: &Path, options: &'a Options) -> Result<Self> {
        let table = if options.preferences { tables::human_preferences() } else { table::prompts() };
        Ok(Target { options, sink: Sink::new(out, &table)?, seen: HashSet::new(), ids: HashSet::new() })
    }

    /// Takes one row: kept, or refused with the reason. The outer error is a failure to write.
    pub(crate) fn take(
        &mut self,
        format: &dyn Format,
        row: Row<'_>,
        context: Context<'_>,
        source: &str,
    ) -> Result<std::result::Result<(), Refusal>> {
        let taken = if self.options.preferences {
            format.pair(row, context).and_then(|pair| self.clean_pair(&pair))
        } else {
            match format.prompt(row, context) {
                Ok(prompt) => return self.take_prompt(prompt, source),
                Err(refusal) => Err(refusal),
            }
        };
        match taken {
            Ok((key, pair)) => {
                let split = clean::split(key, self.options.test_fraction);
                let id = clean::hex(key);
                let cells = [id.as_str(), &pair.prompt, &pair.chosen, &pair.rejected, source, split].map(Cell::Text);
                self.sink.push(&cells).map(Ok)
            }
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn take_prompt(&mut self, prompt: Prompt, source: &str) -> Result<std::result::Result<(), Refusal>> {
        let instruction = clean::text(&prompt.instruction);
        let key = clean::key(&instruction);
        if let Err(refusal) = self.check_length(&instruction) {
            return Ok(Err(refusal));
        }
        if !self.seen.insert(key) {
            return Ok(Err(Refusal::of_text(Reason::Duplicate, "", &instruction)));
        }
        // Two datasets may number their rows alike: the second prompt of an id goes by its hash.
        let own = prompt.id.filter(|id| self.ids.insert(clean::key(id)));
        let id = own.unwrap_or_else(|| clean::hex(key));
        let kind = self.options.kind.or(prompt.kind).unwrap_or(PromptKind::General);
        let language = prompt.language.or_else(|| language::detect(&instruction));
        let source = self.options.source.as_deref().or(prompt.source.as_deref()).unwrap_or(source);
        let written = self.sink.push(&[
            Cell::Text(&id),
            Cell::Text(&instruction),
            Cell::Text(source),
            Cell::Text(kind.name()),
            Cell::OptionalText(language.as_deref()),
            Cell::Real(kind.length_bonus()),
            Cell::Text(clean::split(key, self.options.test_fraction)),
        ]);
        written.map(Ok)
    }

    /// The cleaned pair and the key of its prompt.
    fn clean_pair(&mut self, pair: &Pair) -> std::result::Result<([u8; 16], Pair), Refusal> {
        let prompt = clean::text(&pair.prompt);
        let (chosen, rejected) = (clean::text(&pair.chosen), clean::text(&pair.rejected));
        self.check_length(&prompt)?;
        for (name, answer) in [("chosen", &chosen), ("rejected", &rejected)] {
            if answer.is_empty() {
                return Err(Refusal::of_text(Reason::EmptyTurn, format!("the {name} answer is empty"), &prompt));
            }
        }
        if chosen == rejected {
            return Err(Refusal::of_text(Reason::Identical, "", &prompt));
        }
        let key = clean::key(&prompt);
        let parts = [key, clean::key(&chosen), clean::key(&rejected)].map(clean::hex);
        if !self.seen.insert(clean::key(&parts.join(" "))) {
            return Err(Refusal::of_text(Reason::Duplicate, "", &prompt));
        }
        Ok((key, Pair { prompt, chosen, rejected }))
    }

    fn check_length(&self, text: &str) -> std::result::Result<(), Refusal> {
        let chars = text.chars().count();
        let reason = match chars {
            0 => Reason::Empty,
            short if short < self.options.min_chars => Reason::TooShort,
            long if self.options.max_chars.is_some_and(|max| long > max) => Reason::TooLong,
            _ => return Ok(()),
        };
        Err(Refusal::of_text(reason, format!("{chars} characters"), text))
    }

    /// Puts the file in its place.
    pub(crate) fn commit(self) -> Result<()> {
        self.sink.commit()
    }
}
