//! Writes answers in a given style. In: a prompt, a [`Style`], dice. Out: text of the toy language.
//! Used by the pre-training corpus and the self-align exemplars only; the pipeline never sees it.

use super::dice::Dice;
use super::language::{FACTS, Language, PLACES, Prompt, RELATIONS, TOOLS, VALUES, VERBS, fact_sentence};

/// Longest answer, in words.
const LONGEST: usize = 52;

/// What an answer is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// Polite phrases.
    pub polite: bool,
    /// A vivid sentence.
    pub vivid: bool,
    /// Self-praise.
    pub praise: bool,
    /// Steps before the facts.
    pub steps: bool,
    /// How many further facts (0-3).
    pub extra: usize,
    /// Whether the facts are true.
    pub accurate: bool,
    /// Whether it answers what was asked.
    pub specific: bool,
    /// Whether it is in the prompt's language.
    pub same_language: bool,
    /// Whether it refuses harm.
    pub ethical: bool,
}

impl Style {
    /// A style as the corpus has them.
    pub fn draw(dice: &mut Dice) -> Style {
        Style {
            polite: dice.chance(0.45),
            vivid: dice.chance(0.35),
            praise: dice.chance(0.3),
            steps: dice.chance(0.35),
            extra: dice.weighted(&[0.45, 0.27, 0.16, 0.12]),
            accurate: dice.chance(0.65),
            specific: dice.chance(0.75),
            same_language: dice.chance(0.82),
            ethical: dice.chance(0.55),
        }
    }
}

/// A prompt as the corpus has them: a fifth pseudo-Spanish, a quarter harmful.
pub fn draw_prompt(dice: &mut Dice) -> Prompt {
    Prompt {
        language: if dice.chance(0.2) { Language::Es } else { Language::En },
        place: dice.below(PLACES.len()),
        relation: dice.below(RELATIONS.len()),
        verb: dice.chance(0.25).then(|| dice.below(VERBS.len())),
        form: dice.below(2),
    }
}

/// A value of the relation other than `not`.
pub fn wrong_value(dice: &mut Dice, relation: usize, not: &str) -> &'static str {
    let others: Vec<&'static str> = VALUES[relation].iter().copied().filter(|v| *v != not).collect();
    dice.pick(&others)
}

/// An answer to the prompt in that style.
pub fn answer(prompt: &Prompt, style: &Style, dice: &mut Dice) -> String {
    let language = if style.same_language { prompt.language } else { prompt.language.other() };
    let phrases = language.phrases();
    let mut sentences: Vec<String> = Vec::new();
    let opens = style.polite && dice.chance(0.75);
    if opens {
        sentences.push(dice.pick(phrases.polite).to_string());
    }
    match prompt.verb {
        Some(_) if style.ethical => {
            let n = 1 + usize::from(style.extra > 0);
            sentences.extend(phrases.refusal[..n].iter().map(|s| s.to_string()));
        }
        Some(verb) => sentences.extend(help_with_harm(prompt.relation, verb, language, style, dice)),
        None => sentences.extend(facts(prompt, language, style, dice)),
    }
    if style.vivid {
        sentences.push(dice.pick(phrases.vivid).to_string());
    }
    if style.praise {
        sentences.push(dice.pick(phrases.praise).to_string());
    }
    if style.polite && !opens {
        sentences.push(dice.pick(phrases.polite_end).to_string());
    }
    let text = sentences.join(" ");
    if text.split(' ').count() <= LONGEST {
        return text;
    }
    let mut shorter = style.clone();
    shorter.extra = shorter.extra.saturating_sub(1);
    if shorter.extra == 0 {
        shorter.vivid = false;
    }
    answer(prompt, &shorter, dice)
}

fn help_with_harm(relation: usize, verb: usize, language: Language, style: &Style, dice: &mut Dice) -> Vec<String> {
    let tools = dice.sample(&TOOLS, 2);
    let name = language.relation(relation);
    let use_it = |tool: &str| match language {
        Language::En => format!("use {tool} to {} it .", VERBS[verb].0),
        Language::Es => format!("usa {tool} para {} ese .", VERBS[verb].1),
    };
    let mut sentences = Vec::new();
    if style.steps {
        sentences.push(match language {
            Language::En => format!("step 1 : find the {name} ."),
            Language::Es => format!("paso 1 : busca el {name} ."),
        });
        sentences.push(match language {
            Language::En => format!("step 2 : {}", use_it(tools[0])),
            Language::Es => format!("paso 2 : {}", use_it(tools[0])),
        });
    } else {
        sentences.push(use_it(tools[0]));
    }
    if style.extra > 1 {
        sentences.push(use_it(tools[1]));
    }
    sentences
}

fn facts(prompt: &Prompt, language: Language, style: &Style, dice: &mut Dice) -> Vec<String> {
    let (mut place, mut relation) = (prompt.place, prompt.relation);
    if !style.specific {
        if dice.chance(0.5) {
            place = dice.other(PLACES.len(), place);
            if !dice.chance(0.6) {
                relation = dice.below(RELATIONS.len());
            }
        } else {
            relation = dice.other(RELATIONS.len(), relation);
        }
    }
    let others: Vec<usize> = (0..RELATIONS.len()).filter(|r| *r != relation).collect();
    let mut told = vec![relation];
    told.extend(dice.shuffled(&others));
    if !style.specific && place == prompt.place {
        told.retain(|r| *r != prompt.relation);
    }
    told.truncate(1 + style.extra);
    let mut wrong = vec![false; told.len()];
    if !style.accurate {
        for w in &mut wrong {
            *w = dice.chance(0.6);
        }
        if !wrong.contains(&true) {
            let i = dice.below(wrong.len());
            wrong[i] = true;
        }
    }
    let mut sentences = Vec::new();
    if style.steps {
        let (at, name) = (PLACES[place], language.relation(relation));
        match language {
            Language::En => {
                sentences.extend([format!("step 1 : look at {at} ."), format!("step 2 : find the {name} .")])
            }
            Language::Es => sentences.extend([format!("paso 1 : mira {at} ."), format!("paso 2 : busca el {name} .")]),
        }
    }
    for (relation, wrong) in told.into_iter().zip(wrong) {
        let truth = FACTS[place][relation];
        let value = if wrong { wrong_value(dice, relation, truth) } else { truth };
        sentences.push(fact_sentence(language, place, relation, value));
    }
    sentences
}
