//! The formats: one small file each, and how a file's format is found from its first rows.
//!
//! In: a parsed row. Out: a [`Prompt`] or a [`Pair`] before cleaning, or the reason why the row gives none.

mod alpaca;
mod dolly;
mod hh;
mod math;
mod mt_bench;
mod oasst;
mod openai;
mod openorca;
mod plain;
mod self_instruct;
mod sharegpt;
mod shp;
mod trl;
mod truthfulqa;
mod ultrafeedback;

pub(crate) use plain::TARGETS;

use super::reason::{Reason, Refusal};
use super::row::Row;
use super::{Options, PromptKind};

/// A prompt as the source has it.
#[derive(Debug, Default)]
pub(crate) struct Prompt {
    /// The source's own id, where it has one.
    pub(crate) id: Option<String>,
    pub(crate) instruction: String,
    /// Where the source says: general otherwise.
    pub(crate) kind: Option<PromptKind>,
    /// ISO 639-3, where the source says.
    pub(crate) language: Option<String>,
    /// Where the row says; the file's source otherwise.
    pub(crate) source: Option<String>,
}

/// A preference pair as the source has it.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) prompt: String,
    pub(crate) chosen: String,
    pub(crate) rejected: String,
}

/// What a format may look at besides the row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) options: &'a Options,
    /// The file as the user named it.
    pub(crate) file: &'a str,
}

/// One source format.
pub(crate) trait Format: Sync + std::fmt::Debug {
    /// The name on the command line, and the default `source` of its rows.
    fn name(&self) -> &'static str;

    /// The fields it has, for people.
    fn fields(&self) -> &'static str;

    /// Whether a row looks like it.
    fn matches(&self, row: Row<'_>) -> bool;

    /// Whether the name stands for a layout that many datasets have; `source` is then the file's name.
    fn is_layout(&self) -> bool {
        false
    }

    /// Whether rows hold a chosen and a rejected answer.
    fn has_pairs(&self) -> bool {
        false
    }

    /// The prompt of a row.
    fn prompt(&self, row: Row<'_>, context: Context<'_>) -> Result<Prompt, Refusal>;

    /// The preference pair of a row, for formats that have them.
    fn pair(&self, _row: Row<'_>, _context: Context<'_>) -> Result<Pair, Refusal> {
        Err(Refusal::new(Reason::MissingField, format!("{} has no preference pairs", self.name())))
    }
}

/// Every format; the first one that matches a row is the row's format, so the most specific come first.
pub(crate) static ALL: [&dyn Format; 15] = [
    &oasst::Oasst,
    &shp::Shp,
    &ultrafeedback::UltraFeedback,
    &hh::Hh,
    &trl::Trl,
    &sharegpt::ShareGpt,
    &openai::OpenAi,
    &openorca::OpenOrca,
    &mt_bench::MtBench,
    &truthfulqa::TruthfulQa,
    &math::Math,
    &self_instruct::SelfInstruct,
    &dolly::Dolly,
    &alpaca::Alpaca,
    &plain::Plain,
];

/// The format of that name.
pub(crate) fn by_name(name: &str) -> Option<&'static dyn Format> {
    ALL.into_iter().find(|format| format.name() == name)
}

/// The format that most of the rows look like, or nothing when none looks like any.
pub(crate) fn detect<'a>(rows: impl Iterator<Item = Row<'a>>) -> Option<&'static dyn Format> {
    let mut votes = [0usize; ALL.len()];
    for row in rows {
        for (format, count) in ALL.iter().zip(&mut votes) {
            if format.matches(row) {
                *count += 1;
                break;
            }
        }
    }
    let most = votes.iter().copied().max().filter(|&most| most > 0)?;
    ALL.into_iter().zip(votes).find(|(_, count)| *count == most).map(|(format, _)| format)
}

/// An instruction and what it is about, as one text: `instruction`, a blank line, `input`.
fn with_input(instruction: &str, input: Option<&str>) -> String {
    let input = input.map(str::trim).unwrap_or_default();
    // An instruction that is missing stays empty, whatever its input is.
    if instruction.trim().is_empty()
        || input.is_empty()
        || input.trim_matches(['<', '>']).eq_ignore_ascii_case("noinput")
    {
        return instruction.to_owned();
    }
    format!("{}\n\n{input}", instruction.trim_end())
}
