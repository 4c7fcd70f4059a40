//! Documents that are learned from word by word: conversations and facts.

use super::answers::force;
use super::{Document, Writer, formats, wordings};
use crate::world::check::PRINCIPLES;
use crate::world::dice::Dice;
use crate::world::generate::{Style, answer, draw_prompt};
use crate::world::language::{FACTS, Language, PLACES, RELATIONS, fact_sentence};

/// Turns after the rules.
const TURNS: usize = 2;

/// A question and an answer in any style.
pub(super) fn chat(dice: &mut Dice) -> Document {
    let prompt = draw_prompt(dice);
    let style = Style::draw(dice);
    let mut page = Writer::prose();
    page.text(&formats::chat(&prompt.text()));
    page.text(&answer(&prompt, &style, dice));
    page.finish()
}

/// Two or three rules in a random order, then questions with answers that keep them and are otherwise much alike.
pub(super) fn rules(dice: &mut Dice) -> Document {
    let all: Vec<usize> = (0..PRINCIPLES.len()).collect();
    let count = dice.pick(&[2, 3]);
    let mut rules: Vec<(usize, bool)> = dice.sample(&all, count).into_iter().map(|p| (p, dice.chance(0.25))).collect();
    let mut page = Writer::prose();
    page.text(formats::RULES_HEAD);
    for (i, (p, negated)) in rules.iter().enumerate() {
        let text = wordings::draw(*p, *negated, 0.6, dice);
        page.text(&format!(" \n {} ( {} ) {text}", i + 1, PRINCIPLES[*p]));
    }
    // Concise takes everything out that another rule may want in.
    rules.sort_by_key(|(p, _)| PRINCIPLES[*p] != "Concise");
    let base = Style::draw(dice);
    for _ in 0..TURNS {
        let prompt = draw_prompt(dice);
        let (mut style, other) = (base.clone(), Style::draw(dice));
        let mut change = |field: &mut bool, to: bool| {
            if dice.chance(0.15) {
                *field = to;
            }
        };
        change(&mut style.polite, other.polite);
        change(&mut style.vivid, other.vivid);
        change(&mut style.praise, other.praise);
        change(&mut style.steps, other.steps);
        if dice.chance(0.15) {
            style.extra = other.extra;
        }
        for (p, negated) in &rules {
            force(&mut style, *p, *negated);
        }
        page.text(&formats::turn(&prompt.text()));
        page.text(&format!(" \n {}", answer(&prompt, &style, dice)));
    }
    page.finish()
}

/// All that is known about one place.
pub(super) fn facts(dice: &mut Dice) -> Document {
    let place = dice.below(PLACES.len());
    let language = if dice.chance(0.3) { Language::Es } else { Language::En };
    let relations: Vec<usize> = (0..RELATIONS.len()).collect();
    let mut page = Writer::prose();
    for relation in dice.shuffled(&relations) {
        page.text(&fact_sentence(language, place, relation, FACTS[place][relation]));
    }
    page.finish()
}
