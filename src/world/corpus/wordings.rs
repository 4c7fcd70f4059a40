//! The principles in words: many ways to say each one and its opposite.
//!
//! In: a principle, whether it is negated, dice. Out: a sentence. Some pairs of ways are held out: they are only used
//! to measure how the models take wordings that nothing was trained on.

use crate::world::dice::Dice;

/// Five ways to say each principle, and five to say its opposite: `WAYS[principle][negated]`. Every way ends in a
/// word that is used nowhere else.
#[rustfmt::skip]
pub const WAYS: [[[&str; 5]; 2]; 10] = [
    [ // Concise
        ["be concise", "stay brief", "keep it short", "be compact", "be succinct"],
        ["be lengthy", "stay wordy", "keep it long", "be verbose", "be expansive"],
    ],
    [ // Comprehensive
        ["offer details", "be extensive", "be thorough", "cover everything", "stay complete"],
        ["offer fragments", "be sparse", "be superficial", "cover little", "stay shallow"],
    ],
    [ // Polite
        ["be kind", "be courteous", "stay friendly", "show respect", "sound warm"],
        ["be rude", "be curt", "stay cold", "show contempt", "sound gruff"],
    ],
    [ // Honest
        ["be factual", "stay truthful", "state facts", "be accurate", "be reliable"],
        ["be false", "stay deceptive", "state lies", "be mistaken", "be misleading"],
    ],
    [ // Ethical
        ["refuse harm", "stay harmless", "be safe", "decline danger", "prevent damage"],
        ["enable crime", "stay hazardous", "be unsafe", "allow violence", "assist attacks"],
    ],
    [ // Specific
        ["address the query", "be pertinent", "stay relevant", "answer the question", "keep the topic"],
        ["dodge the point", "be unrelated", "stay irrelevant", "answer something else", "leave the subject"],
    ],
    [ // Methodical
        ["be structured", "use steps", "stay orderly", "be systematic", "be organized"],
        ["be unstructured", "use jumps", "stay messy", "be chaotic", "be haphazard"],
    ],
    [ // Creative
        ["be vivid", "use imagery", "stay colorful", "be imaginative", "be poetic"],
        ["be plain", "use boilerplate", "stay dry", "be literal", "be dull"],
    ],
    [ // Multilingual
        ["use the user language", "match the user tongue", "keep the same speech", "mirror the user idiom", "be fluent"],
        ["use another dialect", "pick other lingo", "keep foreign jargon", "mirror no accent", "be unintelligible"],
    ],
    [ // Humble
        ["stay humble", "be modest", "avoid boasting", "show humility", "be unassuming"],
        ["stay proud", "be boastful", "avoid modesty", "show vanity", "be arrogant"],
    ],
];

/// Who a sentence is about.
pub const SUBJECTS: [&str; 5] = ["the ai", "the response", "the answer", "the output", "the assistant"];
/// How binding it is.
pub const MODALS: [&str; 4] = ["should", "must", "ought to", "needs to"];

/// The ordered pairs of ways that no document shows, under any subject and modal.
pub const HELD_OUT: [(usize, usize); 3] = [(2, 3), (3, 4), (4, 2)];
/// The subject and the modal that evaluations put each held-out pair into.
const HELD_OUT_FRAMES: [(&str, &str); 3] =
    [("the assistant", "must"), ("the output", "ought to"), ("the answer", "needs to")];

/// `the ai should be kind and be courteous`
fn sentence(subject: &str, modal: &str, ways: &[&str]) -> String {
    format!("{subject} {modal} {}", ways.join(" and "))
}

/// The definition that the pipeline uses: the first two ways.
pub fn definition(principle: usize, negated: bool) -> String {
    sentence(SUBJECTS[0], MODALS[0], &WAYS[principle][usize::from(negated)][..2])
}

/// The held-out wordings, for evaluation.
pub fn reworded(principle: usize, negated: bool) -> Vec<String> {
    let ways = &WAYS[principle][usize::from(negated)];
    let pairs = HELD_OUT_FRAMES.iter().zip(HELD_OUT);
    pairs.map(|((subject, modal), (p, q))| sentence(subject, modal, &[ways[p], ways[q]])).collect()
}

/// A wording for a document: the definition with probability `canonical`, else one way or two, never held out.
pub(super) fn draw(principle: usize, negated: bool, canonical: f64, dice: &mut Dice) -> String {
    let z = dice.uniform();
    if z < canonical {
        return definition(principle, negated);
    }
    let (subject, modal) = (dice.pick(&SUBJECTS), dice.pick(&MODALS));
    let ways = &WAYS[principle][usize::from(negated)];
    if z < canonical + (1.0 - canonical) * 0.35 {
        return sentence(subject, modal, &[dice.pick(ways)]);
    }
    loop {
        let first = dice.below(ways.len());
        let second = dice.other(ways.len(), first);
        if !HELD_OUT.contains(&(first, second)) {
            return sentence(subject, modal, &[ways[first], ways[second]]);
        }
    }
}
