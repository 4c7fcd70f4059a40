//! The pre-training corpus: what the base model reads to learn the language, its facts, and how to judge.
//!
//! ```text
//! kind, emphasis, dice ─> document: token ids, and per token what is learned from it
//! ```
//!
//! In: a [`Kind`], an [`Emphasis`], dice. Out: a [`Document`]. The kinds go from drills of one line over short answers
//! to the layouts that the pipeline uses. A document with verdicts is learned from at its verdicts only; their truth
//! comes from the checkers, turned with probability [`NOISE`] where answers are long. A verdict on several principles
//! that disagree is good as often as they hold.

mod answers;
mod drills;
pub mod formats;
mod pairs;
mod prose;
mod singles;
mod supply;
pub mod wordings;

use serde::{Deserialize, Serialize};

use self::answers::Length;
use super::dice::Dice;
use super::vocabulary::{END, START, vocabulary};

pub use self::supply::{MICRO_BATCH, Supply, SupplyState};

/// The longest document, in tokens: the context of the base model.
pub const CONTEXT: usize = 256;
/// The probability that a verdict about a full answer is turned.
pub const NOISE: f64 = 0.02;

/// The kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A question and an answer.
    Chat,
    /// Rules, and two questions with answers that follow them.
    Rules,
    /// True facts about one place.
    Facts,
    /// Drill: whether two phrases mean the same.
    Match,
    /// Drill: whether a fact is true.
    FactCheck,
    /// Drill: a question, a fact, verdicts.
    Lines,
    /// Drill: which principle a wording states, and whether it is negated.
    Glossary,
    /// One or two facts as an answer, verdicts by name.
    ShortName,
    /// The same, verdicts on wordings of either polarity.
    ShortDefinition,
    /// The same in the layout of the reward prompt.
    ShortReward,
    /// A full answer, verdicts by name.
    FullName,
    /// The same, verdicts on wordings of either polarity.
    FullDefinition,
    /// The same in the layout of the reward prompt.
    FullReward,
    /// Two short answers, comparisons by name.
    ShortPair,
    /// The same in the layout of the judge's prompt.
    ShortJudge,
    /// Two full answers, comparisons by name.
    FullPair,
    /// The same in the layout of the judge's prompt.
    FullJudge,
}

impl Kind {
    /// All kinds, by their number.
    pub const ALL: [Kind; 17] = [
        Kind::Chat,
        Kind::Rules,
        Kind::Facts,
        Kind::Match,
        Kind::FactCheck,
        Kind::Lines,
        Kind::Glossary,
        Kind::ShortName,
        Kind::ShortDefinition,
        Kind::ShortReward,
        Kind::FullName,
        Kind::FullDefinition,
        Kind::FullReward,
        Kind::ShortPair,
        Kind::ShortJudge,
        Kind::FullPair,
        Kind::FullJudge,
    ];

    /// Whether every token is learned from; the others have verdicts.
    pub fn is_prose(self) -> bool {
        matches!(self, Kind::Chat | Kind::Rules | Kind::Facts)
    }
}

/// What a token is learned from as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Not at all.
    None,
    /// As text.
    Language,
    /// As a verdict on a principle, by its number in [`PRINCIPLES`](super::check::PRINCIPLES).
    Verdict(usize),
}

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// `<s>`, the words, `</s>`; at most [`CONTEXT`].
    pub ids: Vec<u32>,
    /// One per id.
    pub losses: Vec<Loss>,
}

impl Document {
    /// The words between `<s>` and `</s>`.
    pub fn text(&self) -> String {
        vocabulary().text(&self.ids[1..self.ids.len() - 1])
    }

    /// Tokens that are learned from.
    pub fn learned(&self) -> usize {
        self.losses.iter().filter(|loss| **loss != Loss::None).count()
    }
}

/// What the trainer wants more of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Emphasis {
    /// How often answers are made to differ in each principle, as weights.
    pub principles: [f64; 10],
    /// Whether comparisons by name also come in forms close to the judge's layout.
    pub bridging: bool,
}

impl Default for Emphasis {
    fn default() -> Self {
        Emphasis { principles: [1.0; 10], bridging: true }
    }
}

/// A document of that kind.
pub fn document(kind: Kind, emphasis: &Emphasis, dice: &mut Dice) -> Document {
    loop {
        let document = draw(kind, emphasis, dice);
        // Rare: all its principles hold alike for both answers, or both answers and all wordings are long.
        if document.learned() > 0 && document.ids.len() <= CONTEXT {
            return document;
        }
    }
}

fn draw(kind: Kind, emphasis: &Emphasis, dice: &mut Dice) -> Document {
    use {pairs::Form as Pair, singles::Form as Single};
    match kind {
        Kind::Chat => prose::chat(dice),
        Kind::Rules => prose::rules(dice),
        Kind::Facts => prose::facts(dice),
        Kind::Match => drills::same(dice),
        Kind::FactCheck => drills::fact_check(dice),
        Kind::Lines => drills::lines(dice),
        Kind::Glossary => drills::glossary(dice),
        Kind::ShortName => singles::single(Length::Short, Single::Name, emphasis, dice),
        Kind::ShortDefinition => singles::single(Length::Short, Single::Definition, emphasis, dice),
        Kind::ShortReward => singles::single(Length::Short, Single::Reward, emphasis, dice),
        Kind::FullName => singles::single(Length::Full, Single::Name, emphasis, dice),
        Kind::FullDefinition => singles::single(Length::Full, Single::Definition, emphasis, dice),
        Kind::FullReward => singles::single(Length::Full, Single::Reward, emphasis, dice),
        Kind::ShortPair => pairs::pair(Length::Short, Pair::Name, emphasis, dice),
        Kind::ShortJudge => pairs::pair(Length::Short, Pair::Judge, emphasis, dice),
        Kind::FullPair => pairs::pair(Length::Full, Pair::Name, emphasis, dice),
        Kind::FullJudge => pairs::pair(Length::Full, Pair::Judge, emphasis, dice),
    }
}

/// A document on its way.
struct Writer {
    document: Document,
    /// What plain text is learned as.
    plain: Loss,
}

impl Writer {
    /// A document that is learned from at every token.
    fn prose() -> Self {
        Writer::new(Loss::Language)
    }

    /// A document that is learned from at its verdicts.
    fn verdicts() -> Self {
        Writer::new(Loss::None)
    }

    fn new(plain: Loss) -> Self {
        Writer { document: Document { ids: vec![START], losses: vec![Loss::None] }, plain }
    }

    fn push(&mut self, id: u32, loss: Loss) {
        self.document.ids.push(id);
        self.document.losses.push(loss);
    }

    /// Adds words.
    fn text(&mut self, text: &str) {
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            self.push(vocabulary().id(word), self.plain);
        }
    }

    /// Adds a word that says something about a principle.
    fn verdict(&mut self, principle: usize, word: &str) {
        self.push(vocabulary().id(word), Loss::Verdict(principle));
    }

    fn finish(mut self) -> Document {
        self.push(END, self.plain);
        self.document
    }
}

/// The verdict `true` or `false`, turned with probability `noise`.
fn good_or_bad(good: bool, noise: f64, dice: &mut Dice) -> &'static str {
    if good != dice.chance(noise) { "good" } else { "bad" }
}
