//! The views that every run has: one file of `sql/views/` each.
//!
//! A file is one SELECT over the tables of a run (and other views). Its first line is a comment with the name and the
//! question that the view answers; the file's name is the view's.

/// One view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Its name.
    pub name: &'static str,
    /// Its file.
    pub sql: &'static str,
}

impl View {
    /// The question that it answers: the first comment line behind the name.
    pub fn doc(&self) -> &'static str {
        let line = self.sql.lines().next().unwrap_or_default().trim_start_matches("--").trim();
        line.split_once(": ").map_or(line, |(_, question)| question)
    }

    /// The aliases under which it reads runs; none where it is a view of one run.
    pub fn runs(&self) -> &'static [&'static str] {
        if self.name == "drift" { &["a", "b"] } else { &[] }
    }
}

macro_rules! views {
    ($($name:literal),* $(,)?) => {
        &[$(View { name: $name, sql: include_str!(concat!("../../sql/views/", $name, ".sql")) }),*]
    };
}

/// All of them, in the order in which the documentation has them.
const VIEWS: &[View] = views![
    "order_flips",
    "judge_calibration",
    "principle_agreement",
    "dominant_principles",
    "margin_calibration",
    "length_bias",
    "label_noise",
    "negation_consistency",
    "splits",
    "reward_kl",
    "best_and_worst_rollouts",
    "drift",
];

/// All views.
pub fn all() -> &'static [View] {
    VIEWS
}

/// The view of that name.
pub fn by_name(name: &str) -> Option<&'static View> {
    VIEWS.iter().find(|view| view.name == name)
}
