//! Comparisons of two answers.

use super::answers::Length;
use super::formats::{judge_head, judge_next, judge_principle};
use super::wordings;
use super::{Document, Emphasis, Writer};
use crate::world::check::{PRINCIPLES, Report, check};
use crate::world::dice::Dice;

/// How comparisons are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `Polite : b`, or forms on the way to the judge's.
    Name,
    /// The judge's prompt, with further questions about the same outputs.
    Judge,
}

/// Most questions in the judge's layout.
const QUESTIONS: usize = 5;
/// The probability that a question shows its definition again.
const REPEATED: f64 = 0.3;
/// The probability of asking where both answers are equal.
const EQUAL: f64 = 0.08;

/// Two answers with comparisons in a random order.
pub(super) fn pair(length: Length, form: Form, emphasis: &Emphasis, dice: &mut Dice) -> Document {
    let (prompt, a, b) = length.two(emphasis, dice);
    let reports = (check(&prompt, &a), check(&prompt, &b));
    let noise = length.noise();
    let differ = |p: usize| reports.0.value(p) != reports.1.value(p);
    let order = dice.shuffled(length.principles());
    let asked: Vec<usize> = order.into_iter().filter(|&p| differ(p) || dice.chance(EQUAL)).collect();
    let mut page = Writer::verdicts();
    page.text(&judge_head(&prompt.text(), &a, &b));
    match form {
        Form::Name => {
            let bridge = if emphasis.bridging { dice.below(4) } else { 0 };
            for p in asked {
                let name = PRINCIPLES[p];
                page.text(&match bridge {
                    0 => format!(" \n {name} :"),
                    1 => format!(" \n more {name} :"),
                    2 => format!(" \n more {name} is ("),
                    _ => judge_next(name),
                });
                compare(&mut page, p, &reports, noise, dice);
            }
        }
        Form::Judge => {
            for (i, p) in asked.into_iter().take(QUESTIONS).enumerate() {
                if i == 0 || dice.chance(REPEATED) {
                    page.text(&judge_principle(PRINCIPLES[p], &wordings::draw(p, false, 0.6, dice)));
                } else {
                    page.text(&judge_next(PRINCIPLES[p]));
                }
                compare(&mut page, p, &reports, noise, dice);
                page.text(")");
            }
        }
    }
    page.finish()
}

/// The letter of the answer with more of the principle; where both are equal, any letter, which is not learned.
fn compare(page: &mut Writer, principle: usize, reports: &(Report, Report), noise: f64, dice: &mut Dice) {
    let (a, b) = (reports.0.value(principle), reports.1.value(principle));
    if a == b {
        page.text(dice.pick(&["a", "b"]));
    } else {
        page.verdict(principle, if (a > b) != dice.chance(noise) { "a" } else { "b" });
    }
}
