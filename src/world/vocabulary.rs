//! The words of the toy language as tokens: one word, one token.
//!
//! In: the language, the prompt layouts and the wordings. Out: the word list in id order, ids for text, and the
//! `tokenizer.json` of the base model.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::check::PRINCIPLES;
use super::corpus::formats;
use super::corpus::wordings::{MODALS, SUBJECTS, WAYS};
use super::language::{Language, PLACES, TOOLS, VALUES, all_prompts, fact_sentence};
use crate::{Error, Result};

/// The tokens that are no words, in id order.
pub const SPECIAL: [&str; 4] = ["<pad>", "<s>", "</s>", "<unk>"];
/// The id of `<s>`, which stands before every text.
pub const START: u32 = 1;
/// The id of `</s>`.
pub const END: u32 = 2;
/// The id of what is not in the vocabulary.
pub const UNKNOWN: u32 = 3;

/// Words that no sentence or layout brings along: verdicts, list signs, headings of the drills.
const FURTHER: &str = "good bad a b ( ) : ? , . ! - # ## ### 0 1 2 3 4 5 not means same different yes no true false \
                       Glossary Facts Check Compare Notes Critique the of and is";
/// The words of the steps in answers.
const STEPS: &str = "step 1 : look at find the step 2 : use to it . paso 1 : mira busca el paso 2 : usa para ese .";

/// The word list and its index.
#[derive(Debug)]
pub struct Vocabulary {
    words: Vec<String>,
    ids: HashMap<String, u32>,
}

static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(Vocabulary::build);

/// The vocabulary of the pocket world.
pub fn vocabulary() -> &'static Vocabulary {
    &VOCABULARY
}

impl Vocabulary {
    fn build() -> Self {
        let mut words = BTreeSet::new();
        let mut add = |text: &str| words.extend(text.split(' ').filter(|word| !word.is_empty()).map(str::to_string));
        [FURTHER, STEPS, formats::REVIEW_TAIL, formats::RULES_HEAD].into_iter().for_each(&mut add);
        add(&formats::judge_head("", "", ""));
        add(&formats::judge_principle("", ""));
        add(&formats::review_head("", ""));
        add(&formats::chat(""));
        PRINCIPLES.into_iter().chain(TOOLS).chain(VALUES.into_iter().flatten()).for_each(&mut add);
        all_prompts().iter().for_each(|prompt| add(&prompt.text()));
        for language in [Language::En, Language::Es] {
            let p = language.phrases();
            let groups = [p.polite, p.polite_end, p.vivid, p.praise, p.refusal];
            groups.into_iter().flatten().for_each(|phrase| add(phrase));
            (0..PLACES.len()).for_each(|place| add(&fact_sentence(language, place, 0, "")));
        }
        WAYS.iter().flatten().flatten().chain(&SUBJECTS).chain(&MODALS).for_each(|text| add(text));
        let words: Vec<String> = SPECIAL.into_iter().map(str::to_string).chain(words).collect();
        let ids = words.iter().zip(0..).map(|(word, id)| (word.clone(), id)).collect();
        Vocabulary { words, ids }
    }

    /// The words in id order: the special tokens, then the rest by code points.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The id of a word; [`UNKNOWN`] for any other text.
    pub fn id(&self, word: &str) -> u32 {
        self.ids.get(word).copied().unwrap_or(UNKNOWN)
    }

    /// Words with single spaces between them.
    pub fn text(&self, ids: &[u32]) -> String {
        let word = |id: &u32| self.words.get(*id as usize).map_or(SPECIAL[UNKNOWN as usize], String::as_str);
        ids.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    /// The contents of `tokenizer.json`.
    ///
    /// # Errors
    /// An internal error where JSON cannot be written.
    pub fn tokenizer_json(&self) -> Result<Vec<u8>> {
        let special = |(id, text): (usize, &&str)| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        };
        let vocabulary: Map<String, Value> =
            self.words.iter().cloned().zip((0..self.words.len()).map(Value::from)).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": SPECIAL.iter().enumerate().map(special).collect::<Vec<_>>(),
            "normalizer": null,
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": " +"}, "behavior": "Removed", "invert": false},
            "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": SPECIAL[UNKNOWN as usize]},
        });
        let mut bytes = Vec::new();
        let layout = serde_json::ser::PrettyFormatter::with_indent(b" ");
        tokenizer
            .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, layout))
            .map_err(|e| Error::internal("tokenizer.json", "cannot be written").because(e))?;
        Ok(bytes)
    }
}
