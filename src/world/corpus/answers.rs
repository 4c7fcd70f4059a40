//! Prompts with one or two answers, made so that verdicts about them are worth learning.
//!
//! In: how long, what to emphasise, dice. Out: a prompt and its answers. Full answers are those of
//! [`generate`](crate::world::generate); short ones are one or two facts, for the principles that need the facts.

use super::{Emphasis, NOISE};
use crate::world::check::PRINCIPLES;
use crate::world::dice::Dice;
use crate::world::generate::{Style, answer, draw_prompt, wrong_value};
use crate::world::language::{FACTS, Language, PLACES, Prompt, RELATIONS, VERBS, fact_sentence};

/// Numbers of principles, as in [`PRINCIPLES`].
pub(super) const HONEST: usize = 3;
/// See [`HONEST`].
pub(super) const SPECIFIC: usize = 5;
const MULTILINGUAL: usize = 8;

/// What a short answer can be about.
pub(super) const SHORT: [usize; 3] = [SPECIFIC, HONEST, MULTILINGUAL];
const ALL: [usize; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// How often a full answer is made to show one principle.
const FORCED: f64 = 0.6;

/// How long answers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// One or two facts.
    Short,
    /// Anything the generator writes.
    Full,
}

impl Length {
    /// The principles that verdicts are about.
    pub(super) fn principles(self) -> &'static [usize] {
        match self {
            Length::Short => &SHORT,
            Length::Full => &ALL,
        }
    }

    /// The probability that a verdict is turned.
    pub(super) fn noise(self) -> f64 {
        match self {
            Length::Short => 0.0,
            Length::Full => NOISE,
        }
    }

    /// A prompt and an answer.
    pub(super) fn one(self, emphasis: &Emphasis, dice: &mut Dice) -> (Prompt, String) {
        match self {
            Length::Short => {
                let prompt = short_prompt(dice);
                let traits = [0.5; 3].map(|p| dice.chance(p));
                let answer = short_answer(&prompt, traits, dice);
                (prompt, answer)
            }
            Length::Full => {
                let mut style = Style::draw(dice);
                let prompt = if dice.chance(FORCED) {
                    let principle = self.emphasised(emphasis, dice);
                    force(&mut style, principle, dice.chance(0.5));
                    prompt_for(principle, dice)
                } else {
                    draw_prompt(dice)
                };
                let answer = answer(&prompt, &style, dice);
                (prompt, answer)
            }
        }
    }

    /// A prompt and two answers.
    pub(super) fn two(self, emphasis: &Emphasis, dice: &mut Dice) -> (Prompt, String, String) {
        match self {
            Length::Short => {
                let prompt = short_prompt(dice);
                let principle = self.emphasised(emphasis, dice);
                let mut a = [0.6; 3].map(|p| dice.chance(p));
                let mut b = [0.6; 3].map(|p| dice.chance(p));
                for (i, p) in SHORT.iter().enumerate() {
                    if *p == principle {
                        a[i] = dice.chance(0.5);
                        b[i] = !a[i];
                    }
                }
                let (a, b) = (short_answer(&prompt, a, dice), short_answer(&prompt, b, dice));
                (prompt, a, b)
            }
            Length::Full => {
                let (mut a, mut b) = (Style::draw(dice), Style::draw(dice));
                let prompt = if dice.chance(FORCED) {
                    let principle = self.emphasised(emphasis, dice);
                    if dice.chance(0.4) {
                        // Alike but for the principle, and perhaps the length.
                        let extra = dice.pick(&[a.extra, b.extra]);
                        b = Style { extra, ..a.clone() };
                    }
                    let negated = dice.chance(0.5);
                    force(&mut a, principle, negated);
                    force(&mut b, principle, !negated);
                    prompt_for(principle, dice)
                } else {
                    draw_prompt(dice)
                };
                let (a, b) = (answer(&prompt, &a, dice), answer(&prompt, &b, dice));
                (prompt, a, b)
            }
        }
    }

    fn emphasised(self, emphasis: &Emphasis, dice: &mut Dice) -> usize {
        let principles = self.principles();
        let weights: Vec<f64> = principles.iter().map(|&p| emphasis.principles[p]).collect();
        principles[dice.weighted(&weights)]
    }
}

/// Makes a style follow a principle, or its opposite.
pub(super) fn force(style: &mut Style, principle: usize, negated: bool) {
    match PRINCIPLES[principle] {
        "Polite" => style.polite = !negated,
        "Honest" => style.accurate = !negated,
        "Ethical" => style.ethical = !negated,
        "Specific" => style.specific = !negated,
        "Methodical" => style.steps = !negated,
        "Creative" => style.vivid = !negated,
        "Multilingual" => style.same_language = !negated,
        "Humble" => style.praise = negated,
        "Comprehensive" => style.extra = if negated { 0 } else { 3 },
        _ if negated => style.extra = 3,
        // Concise.
        _ => *style = Style { extra: 0, polite: false, vivid: false, praise: false, steps: false, ..style.clone() },
    }
}

/// A prompt on which the principle can be told apart.
fn prompt_for(principle: usize, dice: &mut Dice) -> Prompt {
    let language = if dice.chance(0.35) { Language::Es } else { Language::En };
    let harmful = match PRINCIPLES[principle] {
        "Ethical" => true,
        "Honest" | "Specific" | "Comprehensive" => false,
        _ => dice.chance(0.25),
    };
    Prompt {
        language,
        place: dice.below(PLACES.len()),
        relation: dice.below(RELATIONS.len()),
        verb: harmful.then(|| dice.below(VERBS.len())),
        form: dice.below(2),
    }
}

/// A harmless prompt.
pub(super) fn short_prompt(dice: &mut Dice) -> Prompt {
    Prompt {
        language: if dice.chance(0.4) { Language::Es } else { Language::En },
        place: dice.below(PLACES.len()),
        relation: dice.below(RELATIONS.len()),
        verb: None,
        form: dice.below(2),
    }
}

/// One or two facts that are to the point, true and in the prompt's language, or not ([`SHORT`]).
fn short_answer(prompt: &Prompt, [specific, honest, same_language]: [bool; 3], dice: &mut Dice) -> String {
    let (mut place, mut relation) = (prompt.place, prompt.relation);
    if !specific {
        // Another place, another relation, or both.
        let z = dice.uniform();
        if z < 0.6 {
            place = dice.other(PLACES.len(), place);
        }
        if z > 0.45 {
            relation = dice.other(RELATIONS.len(), relation);
        }
    }
    let language = if same_language { prompt.language } else { prompt.language.other() };
    let mut told = vec![relation];
    if dice.chance(0.35) {
        let misses = |r: &usize| specific || place != prompt.place || *r != prompt.relation;
        let others: Vec<usize> = (0..RELATIONS.len()).filter(|r| *r != relation && misses(r)).collect();
        told.push(dice.pick(&others));
    }
    let told = dice.shuffled(&told);
    let wrong = (!honest).then(|| dice.below(told.len()));
    let sentence = |(i, &relation): (usize, &usize)| {
        let truth = FACTS[place][relation];
        let value = if wrong == Some(i) { wrong_value(dice, relation, truth) } else { truth };
        fact_sentence(language, place, relation, value)
    };
    told.iter().enumerate().map(sentence).collect::<Vec<_>>().join(" ")
}
