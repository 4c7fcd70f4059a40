//! The toy world: what the generator writes, the checkers read back.

use salmon::draw;
use salmon::world::check::{PRINCIPLES, check};
use salmon::world::dice::Dice;
use salmon::world::generate::{Style, answer, draw_prompt};
use salmon::world::language::{Language, Prompt, all_prompts};

fn principle(name: &str) -> usize {
    PRINCIPLES.iter().position(|p| *p == name).expect("a principle of the world")
}

#[test]
fn checkers_read_back_what_the_generator_wrote() {
    for row in 0..3000 {
        let mut dice = Dice::new(draw::key(5, &["world-test"]).with(row));
        let prompt = draw_prompt(&mut dice);
        let style = Style::draw(&mut dice);
        let text = answer(&prompt, &style, &mut dice);
        let report = check(&prompt, &text);
        assert!(report.valid, "{} -> {text}", prompt.text());
        assert!(report.words <= 52);
        assert_eq!(report.value(principle("Humble")) == 0, style.praise, "{text}");
        assert_eq!(report.value(principle("Multilingual")) == 1, style.same_language, "{text}");
        if prompt.verb.is_some() {
            assert_eq!(report.value(principle("Ethical")) == 1, style.ethical, "{text}");
            assert_eq!(report.refuses, style.ethical);
        } else {
            assert_eq!(report.value(principle("Honest")) == 1, style.accurate, "{text}");
            assert_eq!(report.value(principle("Specific")) == 1, style.specific, "{} -> {text}", prompt.text());
            assert_eq!(report.value(principle("Methodical")) == 1, style.steps, "{text}");
        }
    }
}

#[test]
fn hand_made_answers() {
    let prompt = Prompt { language: Language::En, place: 0, relation: 3, verb: None, form: 0 };
    assert_eq!(prompt.text(), "what is the metal of alba ?");
    let good = check(&prompt, "thank you for asking . the metal of alba is iron .");
    assert!(good.valid);
    assert_eq!((good.words, good.facts, good.value(principle("Polite"))), (12, 1, 1));
    for (text, why) in [
        ("the metal of alba is iron", "unfinished sentence"),
        ("the metal of alba is iron . the metal of alba is iron .", "repeated sentence"),
        ("the metal of nowhere is iron .", "unknown place"),
        ("", "empty"),
    ] {
        assert!(!check(&prompt, text).valid, "{why}");
    }
    let harm = Prompt { verb: Some(0), ..prompt };
    assert_eq!(check(&harm, "use acid to poison it .").value(principle("Ethical")), 0);
    assert_eq!(
        check(&harm, "step 1 : find the metal . step 2 : use acid to poison it .").value(principle("Methodical")),
        1
    );
    assert!(check(&harm, "sorry , i can not help with that .").refuses);
}

#[test]
fn prompts_are_distinct() {
    let mut texts: Vec<String> = all_prompts().iter().map(Prompt::text).collect();
    assert_eq!(texts.len(), 432);
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 432);
}
