//! The pre-training corpus: its vocabulary, its layouts, and verdicts that the checkers agree with.

use std::collections::HashMap;

use salmon::draw::{self, Key};
use salmon::model::Tokenizer;
use salmon::principle::{Library, Templates};
use salmon::world::check::{PRINCIPLES, Report, check};
use salmon::world::corpus::wordings::{HELD_OUT, MODALS, SUBJECTS, WAYS, definition, reworded};
use salmon::world::corpus::{CONTEXT, Document, Emphasis, Kind, Loss, Supply, document, formats};
use salmon::world::dice::Dice;
use salmon::world::language::{Language, PLACES, Prompt, RELATIONS, RELATIONS_ES, VERBS};
use salmon::world::vocabulary::{END, START, UNKNOWN, vocabulary};
use serde_json::{Value, json};

fn key() -> Key {
    draw::key(3, &["corpus-test"])
}

fn documents(kind: Kind, count: u64) -> Vec<Document> {
    let one = |n| document(kind, &Emphasis::default(), &mut Dice::new(key().with(kind as u64).with(n)));
    (0..count).map(one).collect()
}

fn principle(name: &str) -> usize {
    PRINCIPLES.iter().position(|p| *p == name).unwrap_or_else(|| panic!("{name} is no principle"))
}

/// Every prompt that a document can have, by its text.
fn prompts() -> HashMap<String, Prompt> {
    let mut prompts = HashMap::new();
    for language in [Language::En, Language::Es] {
        for place in 0..PLACES.len() {
            for relation in 0..RELATIONS.len() {
                for form in 0..2 {
                    for verb in (0..VERBS.len()).map(Some).chain([None]) {
                        let prompt = Prompt { language, place, relation, verb, form };
                        prompts.insert(prompt.text(), prompt);
                    }
                }
            }
        }
    }
    prompts
}

/// Every wording that a document may have: which principle, and whether it is negated.
fn wordings() -> HashMap<String, (usize, bool)> {
    let mut wordings = HashMap::new();
    for (p, sides) in WAYS.iter().enumerate() {
        for (negated, ways) in sides.iter().enumerate() {
            for subject in SUBJECTS {
                for modal in MODALS {
                    for (i, first) in ways.iter().enumerate() {
                        let start = format!("{subject} {modal} {first}");
                        for (j, second) in ways.iter().enumerate() {
                            if i != j && !HELD_OUT.contains(&(i, j)) {
                                wordings.insert(format!("{start} and {second}"), (p, negated == 1));
                            }
                        }
                        wordings.insert(start, (p, negated == 1));
                    }
                }
            }
        }
    }
    wordings
}

/// The verdicts of a document in order: principle and word.
fn verdicts(document: &Document) -> Vec<(usize, String)> {
    let word = |(id, loss): (&u32, &Loss)| match loss {
        Loss::Verdict(p) => Some((*p, vocabulary().text(&[*id]))),
        _ => None,
    };
    document.ids.iter().zip(&document.losses).filter_map(word).collect()
}

#[test]
fn the_vocabulary_is_that_of_the_shipped_tokenizer() {
    let shipped = include_bytes!("../datasets/pocket/tokenizer.json");
    let made = vocabulary().tokenizer_json().unwrap();
    let parsed: Value = serde_json::from_slice(shipped).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&made).unwrap(), parsed);
    assert_eq!(made, shipped, "the same values in another layout");
    assert_eq!(vocabulary().words().len(), 358);

    let tokenizer = Tokenizer::from_bytes(&made, "made").unwrap();
    let text = documents(Kind::Rules, 1)[0].text();
    assert_eq!(
        tokenizer.encode(&text, false).unwrap(),
        text.split(' ').map(|w| vocabulary().id(w)).collect::<Vec<_>>()
    );
    assert_eq!(vocabulary().id("xylophone"), UNKNOWN);
}

#[test]
fn layouts_and_wordings_are_those_of_the_templates_and_the_principle_file() {
    let library = Library::load(std::path::Path::new("."), &["pocket"]).unwrap().checked().unwrap();
    let templates = Templates::load(None, &library).unwrap();
    let render = |name: &str, fields: Value| templates.render(name, fields).unwrap();
    let head = formats::judge_head("i i", "a a", "b b");
    let fields =
        json!({"instruction": "i i", "output_a": "a a", "output_b": "b b", "principle": "P", "definition": "d d"});
    assert_eq!(render("pocket_judge", fields), head + &formats::judge_principle("P", "d d"));
    let fields = json!({"instruction": "i i", "response": "r r", "principles": [{"text": "x"}, {"text": "y"}]});
    let review = format!("{} \n - x \n - y{}", formats::review_head("i i", "r r"), formats::REVIEW_TAIL);
    assert_eq!(render("pocket_reward", fields), review);
    assert_eq!(render("pocket_chat", json!({"instruction": "i i"})), formats::chat("i i"));
    let fields = json!({"instruction": "q", "rules": [{"name": "N", "definition": "d"}],
                        "exemplars": [{"user": "u", "assistant": "s"}], "pick": 0});
    let turns = format!("{} \n s{} \n", formats::turn("u"), formats::turn("q"));
    assert_eq!(render("pocket_self_align", fields), format!("{} \n 1 ( N ) d{turns}", formats::RULES_HEAD));

    for (p, name) in PRINCIPLES.iter().enumerate() {
        let found = library.principle(name).unwrap();
        assert_eq!((found.text(false), found.text(true)), (Some(&*definition(p, false)), Some(&*definition(p, true))));
        assert_eq!((&found.reworded, &found.negative_reworded), (&reworded(p, false), &reworded(p, true)));
    }
}

#[test]
fn documents_fit_the_context_and_the_vocabulary() {
    for kind in Kind::ALL {
        for document in documents(kind, 300) {
            assert!(document.ids.len() <= CONTEXT && document.ids.len() == document.losses.len());
            assert_eq!((document.ids.first(), document.ids.last()), (Some(&START), Some(&END)));
            assert!(!document.ids.contains(&UNKNOWN), "{}", document.text());
            assert_eq!(document.losses[0], Loss::None);
            assert!(document.learned() > 0);
            let is_prose = document.losses[1..].iter().all(|loss| *loss == Loss::Language);
            assert_eq!(is_prose, kind.is_prose());
            assert!(kind.is_prose() || !document.losses.contains(&Loss::Language));
        }
    }
}

#[test]
fn prose_is_valid_and_keeps_its_rules() {
    let (prompts, wordings) = (prompts(), wordings());
    for document in documents(Kind::Chat, 300) {
        let text = document.text();
        let lines: Vec<&str> = text.split(" \n ").collect();
        let ["# Assistant", "### User", question, "### Assistant", answer] = lines[..] else { panic!("{text}") };
        assert!(check(&prompts[question], answer).valid, "{text}");
    }
    for document in documents(Kind::Facts, 100) {
        let text = document.text();
        let report = check(&prompts["what is the river of alba ?"], &text);
        assert!(report.valid && report.facts == 4 && report.value(principle("Honest")) == 1, "{text}");
    }
    let mut kept = 0;
    for document in documents(Kind::Rules, 400) {
        let text = document.text();
        let mut turns = text.split(" \n ### User \n ");
        let head: Vec<&str> = turns.next().unwrap().split(" \n ").collect();
        assert_eq!(head[..2], ["# Assistant", "### Rules"]);
        let mut rules = Vec::new();
        for (i, line) in head[2..].iter().enumerate() {
            let (name, wording) = line.strip_prefix(&format!("{} ( ", i + 1)).unwrap().split_once(" ) ").unwrap();
            assert_eq!(PRINCIPLES[wordings[wording].0], name);
            rules.push(wordings[wording]);
        }
        assert!((2..=3).contains(&rules.len()));
        let turns: Vec<(&str, &str)> = turns.map(|turn| turn.split_once(" \n ### Assistant \n ").unwrap()).collect();
        assert_eq!(turns.len(), 2);
        for (question, answer) in turns {
            let prompt = &prompts[question];
            let report = check(prompt, answer);
            assert!(report.valid, "{text}");
            for (p, negated) in &rules {
                // Others may be impossible on this prompt, or undone by the length limit.
                if ["Polite", "Multilingual", "Humble"].contains(&PRINCIPLES[*p]) {
                    assert_eq!(report.value(*p) == 1, !negated, "{text}");
                    kept += 1;
                }
            }
        }
    }
    assert!(kept > 100);
}

#[test]
fn drills_are_right() {
    let (prompts, wordings) = (prompts(), wordings());
    // A phrase as the place and the relation that it names.
    let meaning = |phrase: &str| {
        let find = |list: &[&str]| phrase.split(' ').find_map(|word| list.iter().position(|item| *item == word));
        (find(&PLACES), find(&RELATIONS).or_else(|| find(&RELATIONS_ES)))
    };
    let (mut both, mut parts) = ([0, 0], [0, 0, 0]);
    for document in documents(Kind::Match, 600) {
        let text = document.text();
        let line = text.strip_prefix("# Compare \n ").unwrap();
        let (question, verdict) = line.split_once(" : ").unwrap();
        let (first, second) = question.split_once(" ? ").unwrap();
        let (first, second) = (meaning(first), meaning(second));
        parts[usize::from(first.0.is_some()) * 2 + usize::from(first.1.is_some()) - 1] += 1;
        let good = first == second;
        both[usize::from(good)] += 1;
        assert_eq!(verdict == "good", good, "{text}");
        assert_eq!(verdicts(&document), [(principle("Specific"), verdict.to_string())]);
    }
    assert!(both.iter().all(|n| *n > 200) && parts.iter().all(|n| *n > 50), "{both:?} {parts:?}");

    for document in documents(Kind::FactCheck, 300) {
        let text = document.text();
        let (fact, verdict) = text.strip_prefix("# Facts \n ").unwrap().split_once(" Honest : ").unwrap();
        let report = check(&prompts["what is the river of alba ?"], fact);
        assert!(report.valid && report.facts == 1);
        assert_eq!(verdict == "good", report.value(principle("Honest")) == 1, "{text}");
        assert_eq!(verdicts(&document), [(principle("Honest"), verdict.to_string())]);
    }
    for document in documents(Kind::Lines, 300) {
        let text = document.text();
        let line = text.strip_prefix("# Check \n ").unwrap();
        let question = prompts.keys().find(|question| line.starts_with(*question)).unwrap();
        let answer = format!("{} .", line[question.len() + 1..].split_once(" . ").unwrap().0);
        let report = check(&prompts[question], &answer);
        assert!(report.valid, "{text}");
        let found = verdicts(&document);
        assert_eq!(found.len(), 3);
        for (p, word) in found {
            assert_eq!(word == "good", report.satisfies(p), "{text}");
            assert!(line.contains(&format!(" {} : {word}", PRINCIPLES[p])), "{text}");
        }
    }
    for document in documents(Kind::Glossary, 300) {
        let text = document.text();
        let mut stated = Vec::new();
        for line in text.strip_prefix("# Glossary \n - ").unwrap().split(" \n - ") {
            let (wording, meaning) = line.split_once(" : ").unwrap();
            let (p, negated) = wordings[wording];
            assert_eq!(meaning, format!("{} {}", if negated { "not" } else { "means" }, PRINCIPLES[p]));
            stated.extend(meaning.split(' ').map(|word| (p, word.to_string())));
        }
        assert_eq!(verdicts(&document), stated);
    }
}

/// Right and wrong verdicts.
#[derive(Default)]
struct Count([u32; 2]);

impl Count {
    fn add(&mut self, right: bool) {
        self.0[usize::from(right)] += 1;
    }

    /// Full answers have turned verdicts, short ones have none.
    fn check(&self, kind: Kind, full: bool) {
        let [wrong, right] = self.0.map(f64::from);
        let share = wrong / (wrong + right);
        assert!(if full { (0.01..0.03).contains(&share) } else { wrong == 0.0 }, "{kind:?}: {share} of {:?}", self.0);
    }
}

#[test]
fn verdicts_on_one_answer_agree_with_the_checkers() {
    let (prompts, wordings) = (prompts(), wordings());
    let kinds = [
        (Kind::ShortName, false),
        (Kind::ShortDefinition, false),
        (Kind::ShortReward, false),
        (Kind::FullName, true),
        (Kind::FullDefinition, true),
        (Kind::FullReward, true),
    ];
    for (kind, full) in kinds {
        let mut count = Count::default();
        // Groups that disagree: how many are good, and how many should be.
        let (mut mixed, mut good, mut expected) = (0, 0.0, 0.0);
        for document in documents(kind, if full { 1200 } else { 600 }) {
            let text = document.text();
            let lines: Vec<&str> = text.split(" \n ").collect();
            assert_eq!(
                (lines[0], lines[1], lines[3], lines[5]),
                ("# Review", "### Response", "### Instruction", "### Principles")
            );
            let report = check(&prompts[lines[4]], lines[2]);
            assert!(report.valid, "{text}");
            let mut found = verdicts(&document).into_iter();
            // Principles asked about since the last verdict, and whether the answer satisfies the wording.
            let mut open: Vec<(usize, bool)> = Vec::new();
            for line in &lines[6..] {
                let line = line.strip_prefix("- ").unwrap_or(line);
                let (asked, word) = line.rsplit_once(" : ").map_or((line, None), |(asked, word)| (asked, Some(word)));
                let word = word.or_else(|| asked.strip_prefix("the response is "));
                if let Some((p, negated)) = wordings.get(asked) {
                    open.push((*p, report.satisfies(*p) != *negated));
                } else if word.is_some() && PRINCIPLES.contains(&asked) {
                    open.push((principle(asked), report.satisfies(principle(asked))));
                } else {
                    assert!(line == "### Verdict" || line.starts_with("the response is "), "{line}");
                }
                let Some(word) = word else { continue };
                assert!(open.iter().all(|(p, _)| !report.undecided(*p)), "{text}");
                assert_eq!(found.next(), Some((open[0].0, word.to_string())), "{text}");
                assert!(["good", "bad"].contains(&word));
                let share = open.iter().filter(|(_, good)| *good).count() as f64 / open.len() as f64;
                if share == 0.0 || share == 1.0 {
                    count.add((word == "good") == (share == 1.0));
                } else {
                    mixed += 1;
                    good += f64::from(u8::from(word == "good"));
                    expected += share;
                }
                open.clear();
            }
            assert_eq!((found.next(), open.len()), (None, 0));
        }
        count.check(kind, full);
        assert_eq!(mixed > 50, matches!(kind, Kind::ShortReward | Kind::FullReward), "{kind:?} {mixed}");
        // Three deviations of a mean of coins.
        let off = (good - expected).abs() / f64::from(mixed.max(1));
        assert!(off < 1.5 / f64::from(mixed.max(1)).sqrt(), "{kind:?}: {good} of {mixed} are good, not {expected}");
    }
}

#[test]
fn comparisons_agree_with_the_checkers() {
    let (prompts, wordings) = (prompts(), wordings());
    let kinds = [(Kind::ShortPair, false), (Kind::ShortJudge, false), (Kind::FullPair, true), (Kind::FullJudge, true)];
    for (kind, full) in kinds {
        let (mut count, mut letters, mut forms) = (Count::default(), [0, 0], [0; 4]);
        for document in documents(kind, if full { 1500 } else { 300 }) {
            let text = document.text();
            let lines: Vec<&str> = text.split(" \n ").collect();
            assert_eq!((lines[4], lines[6]), ("### Output ( a )", "### Output ( b )"));
            let prompt = &prompts[lines[3]];
            let (a, b): (Report, Report) = (check(prompt, lines[5]), check(prompt, lines[7]));
            assert!(a.valid && b.valid, "{text}");
            let mut found = verdicts(&document).into_iter();
            let mut rest = lines[8..].iter();
            while let Some(mut line) = rest.next() {
                if *line == "### Principle" {
                    let (name, wording) = rest.next().unwrap().split_once(" : ").unwrap();
                    assert_eq!(wordings[wording], (principle(name), false));
                    assert_eq!(rest.next(), Some(&"### Verdict"));
                    line = rest.next().unwrap();
                    assert!(line.starts_with(&format!("more {name} is output ( ")), "{text}");
                }
                let line = line.strip_suffix(" )").unwrap_or(line);
                let (asked, letter) = line.rsplit_once(' ').unwrap();
                let shapes = ["NAME :", "more NAME :", "more NAME is (", "more NAME is output ("];
                let name = asked.split(' ').find(|word| PRINCIPLES.contains(word)).unwrap();
                forms[shapes.iter().position(|shape| shape.replace("NAME", name) == asked).unwrap()] += 1;
                let p = principle(name);
                assert!(["a", "b"].contains(&letter));
                if a.value(p) == b.value(p) {
                    continue;
                }
                letters[usize::from(letter == "a")] += 1;
                assert_eq!(found.next(), Some((p, letter.to_string())), "{text}");
                count.add((letter == "a") == (a.value(p) > b.value(p)));
            }
            assert_eq!(found.next(), None, "{text}");
        }
        count.check(kind, full);
        let is_judge = matches!(kind, Kind::ShortJudge | Kind::FullJudge);
        assert!(if is_judge { forms[..3] == [0; 3] } else { !forms.contains(&0) }, "{kind:?} {forms:?}");
        let share = f64::from(letters[0]) / f64::from(letters[0] + letters[1]);
        assert!((0.4..0.6).contains(&share), "{kind:?}: {share} of the answers are b");
    }
}

#[test]
fn held_out_wordings_never_appear() {
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Match | Kind::FactCheck)).collect();
    // The last word of a way -> its principle, side and number; every way has a last word of its own.
    let mut endings: HashMap<&str, (usize, usize, usize)> = HashMap::new();
    for (p, sides) in WAYS.iter().enumerate() {
        for (side, ways) in sides.iter().enumerate() {
            for (i, way) in ways.iter().enumerate() {
                assert!(endings.insert(way.rsplit(' ').next().unwrap(), (p, side, i)).is_none(), "{way}");
            }
        }
    }
    let mut pairs = 0;
    let mut look = |text: &str| {
        let mut held = false;
        for (before, after) in text.match_indices(" and ").map(|(at, joint)| (&text[..at], &text[at + joint.len()..])) {
            let Some(&(p, side, first)) = before.rsplit(' ').next().and_then(|word| endings.get(word)) else {
                continue;
            };
            let second = WAYS[p][side].iter().position(|way| after.starts_with(way)).unwrap();
            pairs += 1;
            held |= HELD_OUT.contains(&(first, second));
        }
        held
    };
    for p in 0..PRINCIPLES.len() {
        for negated in [false, true] {
            assert!(!look(&definition(p, negated)));
            assert!(reworded(p, negated).iter().all(|text| look(text)), "this test would find one");
        }
    }
    for n in 0..20_000u64 {
        let kind = kinds[n as usize % kinds.len()];
        let document = document(kind, &Emphasis::default(), &mut Dice::new(key().with(1000).with(n)));
        let text = document.text();
        assert!(!look(&text), "{text}");
    }
    assert!(pairs > 20_000, "{pairs}");
}

#[test]
fn emphasis_decides_what_answers_differ_in() {
    let mut emphasis = Emphasis { principles: [0.0; 10], bridging: false };
    emphasis.principles[principle("Creative")] = 1.0;
    let differing = |emphasis: &Emphasis| {
        let one = |n| document(Kind::FullPair, emphasis, &mut Dice::new(key().with(2000).with(n)));
        (0..300).map(one).filter(|d| verdicts(d).iter().any(|(p, _)| *p == principle("Creative"))).count()
    };
    let (with, without) = (differing(&emphasis), differing(&Emphasis::default()));
    assert!(with > without + 60, "{with} {without}");
    let text = document(Kind::FullPair, &emphasis, &mut Dice::new(key())).text();
    assert!(!text.contains(" \n more "), "{text}");
}

#[test]
fn a_supply_goes_on_where_it_was() {
    let emphasis = |n: usize| Emphasis { principles: [0.1 + n as f64 / 7.0; 10], bridging: n.is_multiple_of(2) };
    let kinds = [Kind::FullJudge, Kind::Match, Kind::FullJudge, Kind::ShortPair, Kind::FullJudge];
    let mut supply = Supply::new(key());
    let mut restored = Supply::new(key());
    for n in 0..60 {
        let kind = kinds[n % kinds.len()];
        let batch = supply.next(kind, &emphasis(n));
        let widest = batch.iter().map(|d| d.ids.len()).max().unwrap();
        assert!(batch.len() * widest <= 1260 && batch.len() >= 3);
        assert_eq!(batch, restored.next(kind, &emphasis(n)), "call {n}");
        if n == 40 {
            supply.discard();
            restored.discard();
        }
        let state = serde_json::to_string(&restored.state()).unwrap();
        restored = Supply::restore(key(), &serde_json::from_str(&state).unwrap());
    }
}
