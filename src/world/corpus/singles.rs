//! Verdicts on one answer.

use super::answers::Length;
use super::formats::{REVIEW_TAIL, review_head};
use super::wordings;
use super::{Document, Emphasis, Writer, good_or_bad};
use crate::world::check::{PRINCIPLES, Report, check};
use crate::world::dice::Dice;
use crate::world::language::Prompt;

/// How verdicts are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `Polite : good`
    Name,
    /// `- the ai should be rude : bad`
    Definition,
    /// The reward prompt: one to three wordings that agree, then the verdict on all of them.
    Reward,
}

/// Most wordings with a verdict each.
const DEFINITIONS: usize = 6;
/// Most verdicts in the reward prompt's layout.
const GROUPS: usize = 3;
/// The probability of [`definition`](wordings::definition) among the wordings.
const CANONICAL: f64 = 0.4;

/// An answer with verdicts in a random order.
pub(super) fn single(length: Length, form: Form, emphasis: &Emphasis, dice: &mut Dice) -> Document {
    let (prompt, answer) = length.one(emphasis, dice);
    let report = check(&prompt, &answer);
    let noise = length.noise();
    let order = dice.shuffled(length.principles());
    let mut asked: Vec<usize> = order.into_iter().filter(|&p| is_worth(&prompt, &report, p, dice)).collect();
    if asked.is_empty() {
        asked.extend(length.principles().last());
    }
    let mut page = Writer::verdicts();
    page.text(&review_head(&prompt.text(), &answer));
    match form {
        Form::Name => {
            for p in asked {
                page.text(&format!(" \n {} :", PRINCIPLES[p]));
                page.verdict(p, good_or_bad(report.satisfies(p), noise, dice));
            }
        }
        Form::Definition => {
            for p in asked.into_iter().take(DEFINITIONS) {
                let negated = dice.chance(0.5);
                page.text(&format!(" \n - {} :", wordings::draw(p, negated, CANONICAL, dice)));
                page.verdict(p, good_or_bad(report.satisfies(p) != negated, noise, dice));
            }
        }
        Form::Reward => {
            let mut rest = asked.as_slice();
            for _ in 0..GROUPS {
                let size = dice.pick(&[1, 1, 1, 2, 3]).min(rest.len());
                let (group, after) = rest.split_at(size);
                let Some(first) = group.first() else { break };
                rest = after;
                let good = dice.chance(0.5);
                for &p in group {
                    let negated = report.satisfies(p) != good;
                    page.text(&format!(" \n - {}", wordings::draw(p, negated, CANONICAL, dice)));
                }
                page.text(REVIEW_TAIL);
                page.verdict(*first, good_or_bad(good, noise, dice));
            }
        }
    }
    page.finish()
}

/// Whether the verdict is asked for: matters of taste never are, what the prompt alone decides seldom.
fn is_worth(prompt: &Prompt, report: &Report, principle: usize, dice: &mut Dice) -> bool {
    if report.undecided(principle) {
        return false;
    }
    let trivial = match PRINCIPLES[principle] {
        "Honest" | "Specific" | "Comprehensive" => prompt.verb.is_some(),
        "Ethical" => prompt.verb.is_none(),
        _ => false,
    };
    !trivial || dice.chance(0.15)
}
