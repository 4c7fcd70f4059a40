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
    /// The reward prompt: one to three wordings, then the verdict on all of them.
    Reward,
}

/// Most wordings with a verdict each.
const DEFINITIONS: usize = 6;
/// Most verdicts in the reward prompt's layout.
const GROUPS: usize = 3;
/// How often several wordings get polarities of their own, so that they may disagree.
const GRADED: f64 = 0.5;
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
                let (good, negated) = group_verdict(group, &report, dice);
                for (&p, negated) in group.iter().zip(negated) {
                    page.text(&format!(" \n - {}", wordings::draw(p, negated, CANONICAL, dice)));
                }
                page.text(REVIEW_TAIL);
                page.verdict(*first, good_or_bad(good, noise, dice));
            }
        }
    }
    page.finish()
}

/// A verdict on several principles, and which of them to negate for it. Either all agree with it, or it is good with
/// probability the share of them that hold: a reward is to grow with every principle, also where others are tied.
fn group_verdict(group: &[usize], report: &Report, dice: &mut Dice) -> (bool, Vec<bool>) {
    if group.len() > 1 && dice.chance(GRADED) {
        let negated: Vec<bool> = group.iter().map(|_| dice.chance(0.5)).collect();
        let holds = group.iter().zip(&negated).filter(|(p, negated)| report.satisfies(**p) != **negated).count();
        return (dice.chance(holds as f64 / group.len() as f64), negated);
    }
    let good = dice.chance(0.5);
    (good, group.iter().map(|&p| report.satisfies(p) != good).collect())
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
