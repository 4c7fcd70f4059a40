//! The library of principles: files in, look-ups and the `principles` table out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder};
use serde::Serialize;

use super::check::Finding;
use super::source::{At, Entries, parse};
use crate::{Error, Result, table};

/// The files that are part of the program, by the name a configuration gives them.
const BUILT_IN: &[(&str, &str)] = &[
    ("sets", include_str!("../../principles/sets.toml")),
    ("reward", include_str!("../../principles/reward.toml")),
    ("rl", include_str!("../../principles/rl.toml")),
    ("interventions", include_str!("../../principles/interventions.toml")),
    ("harmless", include_str!("../../principles/harmless.toml")),
    ("honest", include_str!("../../principles/honest.toml")),
    ("non_evasive", include_str!("../../principles/non_evasive.toml")),
    ("self_align", include_str!("../../principles/self_align.toml")),
    ("pocket", include_str!("../../principles/pocket.toml")),
];

/// The kinds of prompt that a boost can name (`prompts.kind`).
pub const KINDS: &[&str] = &["general", "reasoning", "red_teaming"];

/// One principle: what a response should be like, as text.
#[derive(Debug, Clone, Serialize)]
pub struct Principle {
    /// Short and unique.
    pub name: String,
    /// What the judge and the reward model read.
    pub definition: String,
    /// The opposite, read when the principle is negated.
    pub negative_definition: Option<String>,
    /// Weight of the draw at RL time; 0 = never drawn unless a boost lifts it.
    pub weight: f64,
    /// The sets it belongs to.
    pub sets: Vec<String>,
    /// Free words that a boost can name.
    pub tags: Vec<String>,
    /// The definition in other words, for evaluation only: no training prompt shows them.
    pub reworded: Vec<String>,
    /// The negative definition in other words, for evaluation only.
    pub negative_reworded: Vec<String>,
    #[serde(skip)]
    pub(crate) at: At,
}

impl Principle {
    /// The text that a prompt shows; `None` when it is negated and has no negative definition.
    pub fn text(&self, negated: bool) -> Option<&str> {
        if negated { self.negative_definition.as_deref() } else { Some(&self.definition) }
    }

    /// Whether it belongs to a set.
    pub fn is_in(&self, set: &str) -> bool {
        self.sets.iter().any(|own| own == set)
    }
}

/// One numbered rule of the self-align prompt.
#[derive(Debug, Clone, Serialize)]
pub struct Rule {
    /// Short and unique; exemplars name it.
    pub name: String,
    /// What the model should do.
    pub definition: String,
    #[serde(skip)]
    pub(crate) at: At,
}

/// One worked exemplar of the self-align prompt.
#[derive(Debug, Clone, Serialize)]
pub struct Exemplar {
    /// The user's turn.
    pub user: String,
    /// Names of the rules that apply.
    pub rules: Vec<String>,
    /// Internal thoughts before the answer.
    pub thoughts: Option<String>,
    /// The answer.
    pub assistant: String,
    #[serde(skip)]
    pub(crate) at: At,
}

/// A question about the assistant itself and its hand-written answer; SFT learns it beside the demonstrations.
#[derive(Debug, Clone, Serialize)]
pub struct Identity {
    /// What the user asks.
    pub question: String,
    /// The answer.
    pub answer: String,
    #[serde(skip)]
    pub(crate) at: At,
}

/// More weight for the principles with a tag, on one kind of prompt.
#[derive(Debug, Clone, Serialize)]
pub struct Boost {
    /// The kind of prompt, one of [`KINDS`].
    pub kind: String,
    /// The tag.
    pub tag: String,
    /// Added to the weight.
    pub weight: f64,
    #[serde(skip)]
    pub(crate) at: At,
}

/// What a set is for and what it asks of its members.
#[derive(Debug, Clone)]
pub struct Set {
    /// What principles write into their `sets`.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// Whether every member needs a negative definition.
    pub negatives: bool,
    /// How many members one prompt draws by weight, where it draws.
    pub draw: Option<usize>,
    pub(crate) at: At,
}

/// A principle as a configuration or a draw chose it; serialises to what the reward template reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// The principle's name.
    pub name: String,
    /// Whether its opposite was chosen.
    pub negated: bool,
    /// The definition, or the negative definition when negated.
    pub text: String,
}

/// Everything that the loaded files say, in their order.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// The principles.
    pub principles: Vec<Principle>,
    /// The self-align rules; the first has number 1.
    pub rules: Vec<Rule>,
    /// The self-align exemplars.
    pub exemplars: Vec<Exemplar>,
    /// The questions about the assistant itself.
    pub identity: Vec<Identity>,
    /// The boosts.
    pub boosts: Vec<Boost>,
    /// The declared sets.
    pub sets: Vec<Set>,
}

impl Library {
    /// Loads principle files in order. A source is the name of a built-in file (`reward`), a `.toml` file, or a folder
    /// whose `.toml` files are loaded by name; paths are relative to `base`. Files that a file `uses` come before it,
    /// and no file is loaded twice. A user's entry with the name of a built-in one takes its place.
    ///
    /// # Errors
    /// A missing or unreadable file, or one that [`parse`] rejects. What is readable but wrong is left to
    /// [`Library::check`]; a pipeline loads with `Library::load(..)?.checked()?`.
    pub fn load<S: AsRef<str>>(base: &Path, sources: &[S]) -> Result<Self> {
        let mut loader = Loader::default();
        for source in sources {
            loader.source(base, source.as_ref(), "principles")?;
        }
        Ok(loader.library)
    }

    /// The names of the built-in files.
    pub fn built_in() -> Vec<&'static str> {
        BUILT_IN.iter().map(|(name, _)| *name).collect()
    }

    /// The text of a built-in file, for a starter copy.
    pub fn built_in_text(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(own, _)| *own == name).map(|(_, text)| *text)
    }

    /// Itself when [`Library::check`] finds nothing.
    ///
    /// # Errors
    /// The first finding, and how many more there are.
    pub fn checked(self) -> Result<Self> {
        Finding::first(self.check()).map(|()| self)
    }

    /// The principle of that name.
    pub fn principle(&self, name: &str) -> Option<&Principle> {
        self.principles.iter().find(|principle| principle.name == name)
    }

    /// The members of a set, in file order.
    ///
    /// # Errors
    /// No loaded principle belongs to it. `place` is where the set was asked for.
    pub fn set(&self, place: &str, name: &str) -> Result<Vec<&Principle>> {
        let members: Vec<&Principle> = self.principles.iter().filter(|principle| principle.is_in(name)).collect();
        if members.is_empty() {
            let known: BTreeSet<&str> =
                self.principles.iter().flat_map(|principle| principle.sets.iter().map(String::as_str)).collect();
            let known = Vec::from_iter(known).join(", ");
            return Err(Error::config(
                place,
                format!("no principle is in the set `{name}`; the loaded sets are: {known}"),
            ));
        }
        Ok(members)
    }

    /// The weight of a principle in the draw for a prompt of `kind`: its own weight plus the boosts of its tags.
    pub fn weight(&self, principle: &Principle, kind: &str) -> f64 {
        let boosts = self.boosts.iter().filter(|boost| boost.kind == kind && principle.tags.contains(&boost.tag));
        principle.weight + boosts.map(|boost| boost.weight).sum::<f64>()
    }

    /// The principles that a list such as `["Concise", "not Humble", "interventions"]` names. The name of a set stands
    /// for its members, where no principle has that name.
    ///
    /// # Errors
    /// What [`Library::check_names`] finds. `place` is the file and key of the list.
    pub fn resolve<S: AsRef<str>>(&self, place: &str, names: &[S]) -> Result<Vec<Chosen>> {
        Finding::first(self.check_names(place, names))?;
        let mut chosen = Vec::new();
        for item in names {
            let (negated, _, principles) = self.named(item.as_ref());
            chosen.extend(principles.into_iter().filter_map(|principle| {
                let text = principle.text(negated)?.to_string();
                Some(Chosen { name: principle.name.clone(), negated, text })
            }));
        }
        Ok(chosen)
    }

    /// What one item of such a list means: whether it negates, the bare name, and the principles it stands for.
    pub(super) fn named<'a>(&'a self, item: &'a str) -> (bool, &'a str, Vec<&'a Principle>) {
        let (negated, name) = match item.trim().strip_prefix("not ") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, item.trim()),
        };
        let principles = match self.principle(name) {
            Some(principle) => vec![principle],
            None if negated => vec![],
            None => self.principles.iter().filter(|principle| principle.is_in(name)).collect(),
        };
        (negated, name, principles)
    }

    /// The `principles` table.
    ///
    /// # Errors
    /// None that a user can cause; Arrow's own otherwise.
    pub fn batch(&self) -> Result<RecordBatch> {
        let all = &self.principles;
        let lists = |of: fn(&Principle) -> &Vec<String>| {
            let mut builder = ListBuilder::new(StringBuilder::new());
            for principle in all {
                builder.append_value(of(principle).iter().map(Some));
            }
            Arc::new(builder.finish()) as ArrayRef
        };
        let texts = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
        let columns: Vec<ArrayRef> = vec![
            texts(all.iter().map(|p| Some(p.name.as_str())).collect()),
            texts(all.iter().map(|p| Some(p.definition.as_str())).collect()),
            texts(all.iter().map(|p| p.negative_definition.as_deref()).collect()),
            Arc::new(Float64Array::from_iter_values(all.iter().map(|p| p.weight))),
            lists(|p| &p.sets),
            lists(|p| &p.tags),
        ];
        Ok(RecordBatch::try_new(table::principles().schema(), columns)?)
    }
}

/// An entry that a user's file may put in place of a built-in one.
pub(crate) trait Entry {
    /// What must be unique.
    fn id(&self) -> String;
    /// Where it stands.
    fn at(&self) -> &At;
}

macro_rules! entry {
    ($($type:ty: $id:expr;)*) => {$(
        impl Entry for $type {
            fn id(&self) -> String {
                let id: fn(&$type) -> String = $id;
                id(self)
            }
            fn at(&self) -> &At {
                &self.at
            }
        }
    )*};
}

entry! {
    Principle: |entry| entry.name.clone();
    Rule: |entry| entry.name.clone();
    Exemplar: |entry| entry.user.clone();
    Identity: |entry| entry.question.clone();
    Boost: |entry| format!("{} / {}", entry.kind, entry.tag);
    Set: |entry| entry.name.clone();
}

/// Puts new entries in place of built-in ones of the same name, or at the end. Other repetitions stay, for the check.
fn merge<T: Entry>(into: &mut Vec<T>, new: Vec<T>) {
    for entry in new {
        let id = entry.id();
        match into.iter_mut().find(|old| old.at().built_in && !entry.at().built_in && old.id() == id) {
            Some(old) => *old = entry,
            None => into.push(entry),
        }
    }
}

#[derive(Default)]
struct Loader {
    library: Library,
    seen: BTreeSet<String>,
}

impl Loader {
    /// Loads one source that `place` asked for.
    fn source(&mut self, base: &Path, name: &str, place: &str) -> Result<()> {
        if let Some(text) = Library::built_in_text(name) {
            if self.seen.insert(name.to_string()) {
                let entries = parse(&format!("built-in {name}.toml"), text, true)?;
                self.add(base, entries)?;
            }
            return Ok(());
        }
        let path = base.join(name);
        if path.is_dir() {
            let files = toml_files(&path)?;
            return files.iter().try_for_each(|file| self.file(file));
        }
        if !path.exists() {
            let known = Library::built_in().join(", ");
            let problem =
                format!("there is no principle file {}; write a path, or a built-in name: {known}", path.display());
            return Err(Error::config(place, problem));
        }
        self.file(&path)
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let unreadable = |error| Error::config(path.display(), "cannot read the principle file").because(error);
        let full = path.canonicalize().map_err(unreadable)?;
        if !self.seen.insert(full.display().to_string()) {
            return Ok(());
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let entries = parse(&path.display().to_string(), &text, false)?;
        self.add(path.parent().unwrap_or(Path::new("")), entries)
    }

    fn add(&mut self, base: &Path, entries: Entries) -> Result<()> {
        for (name, place) in &entries.uses {
            self.source(base, name, place)?;
        }
        merge(&mut self.library.principles, entries.principles);
        merge(&mut self.library.rules, entries.rules);
        merge(&mut self.library.exemplars, entries.exemplars);
        merge(&mut self.library.identity, entries.identity);
        merge(&mut self.library.boosts, entries.boosts);
        merge(&mut self.library.sets, entries.sets);
        Ok(())
    }
}

/// The `.toml` files of a folder, by name.
fn toml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error| Error::config(folder.display(), "cannot list the principle folder").because(error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Error::config(
            folder.display(),
            "the principle folder holds no .toml file; add one, or name a file",
        ));
    }
    Ok(files)
}
