//! Drills: one line each about one thing that full verdicts are made of.

use super::answers::{HONEST, SHORT, SPECIFIC, short_prompt};
use super::{Document, Writer, good_or_bad, wordings};
use crate::world::check::{PRINCIPLES, check};
use crate::world::dice::Dice;
use crate::world::generate::wrong_value;
use crate::world::language::{FACTS, Language, PLACES, RELATIONS, fact_sentence};

/// Lines of [`glossary`].
const WORDINGS: usize = 4;

fn language(dice: &mut Dice) -> Language {
    if dice.chance(0.3) { Language::Es } else { Language::En }
}

/// Whether two places, two relations or two questions are the same, in either language.
pub(super) fn same(dice: &mut Dice) -> Document {
    let (place, relation) = (dice.below(PLACES.len()), dice.below(RELATIONS.len()));
    let (mut other_place, mut other_relation) = (place, relation);
    let same = dice.chance(0.5);
    let what = dice.weighted(&[0.35, 0.15, 0.5]);
    // A question differs in its place or in its relation.
    let by_place = what == 0 || (what == 2 && dice.chance(0.5));
    if !same && by_place {
        other_place = dice.other(PLACES.len(), place);
    } else if !same {
        other_relation = dice.other(RELATIONS.len(), relation);
    }
    let mut phrase = |place: usize, relation: usize| {
        let language = language(dice);
        let (place, name) = (PLACES[place], language.relation(relation));
        match (what, language) {
            (0, _) => place.to_string(),
            (1, _) => name.to_string(),
            (_, Language::En) => format!("{name} of {place}"),
            (_, Language::Es) => format!("{name} de {place}"),
        }
    };
    let (first, second) = (phrase(place, relation), phrase(other_place, other_relation));
    let mut page = Writer::verdicts();
    page.text(&format!("# Compare \n {first} ? {second} :"));
    page.verdict(SPECIFIC, good_or_bad(same, 0.0, dice));
    page.finish()
}

/// Whether a fact is true.
pub(super) fn fact_check(dice: &mut Dice) -> Document {
    let (place, relation) = (dice.below(PLACES.len()), dice.below(RELATIONS.len()));
    let honest = dice.chance(0.5);
    let value = value(place, relation, honest, dice);
    let mut page = Writer::verdicts();
    page.text(&format!("# Facts \n {} Honest :", fact_sentence(language(dice), place, relation, value)));
    page.verdict(HONEST, good_or_bad(honest, 0.0, dice));
    page.finish()
}

fn value(place: usize, relation: usize, honest: bool, dice: &mut Dice) -> &'static str {
    let truth = FACTS[place][relation];
    if honest { truth } else { wrong_value(dice, relation, truth) }
}

/// A question and a fact: to the point, true, in its language?
pub(super) fn lines(dice: &mut Dice) -> Document {
    let prompt = short_prompt(dice);
    let (mut place, mut relation) = (prompt.place, prompt.relation);
    if dice.chance(0.5) {
        if dice.chance(0.5) {
            place = dice.other(PLACES.len(), place);
        } else {
            relation = dice.other(RELATIONS.len(), relation);
        }
    }
    let honest = dice.chance(0.5);
    let value = value(place, relation, honest, dice);
    let language = if dice.chance(0.5) { prompt.language } else { prompt.language.other() };
    let answer = fact_sentence(language, place, relation, value);
    let report = check(&prompt, &answer);
    let mut page = Writer::verdicts();
    page.text(&format!("# Check \n {} {answer}", prompt.text()));
    for p in dice.shuffled(&SHORT) {
        page.text(&format!("{} :", PRINCIPLES[p]));
        page.verdict(p, good_or_bad(report.satisfies(p), 0.0, dice));
    }
    page.finish()
}

/// Which principle a wording is about, and which side of it.
pub(super) fn glossary(dice: &mut Dice) -> Document {
    let mut page = Writer::verdicts();
    page.text("# Glossary");
    for _ in 0..WORDINGS {
        let p = dice.below(PRINCIPLES.len());
        let negated = dice.chance(0.5);
        page.text(&format!(" \n - {} :", wordings::draw(p, negated, 0.1, dice)));
        page.verdict(p, if negated { "not" } else { "means" });
        page.verdict(p, PRINCIPLES[p]);
    }
    page.finish()
}
