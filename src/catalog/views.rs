//! The views that every run has: one file of `sql/views/` each.
//!
//! A file is one SELECT over the tables of a run (and other views). Its first line is a comment that says what a row is;
//! the file's name is the view's.

/// One view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Its name.
    pub name: &'static str,
    /// Its file.
    pub sql: &'static str,
}

impl View {
    /// What a row is: the first comment line.
    pub fn doc(&self) -> &'static str {
        self.sql.lines().next().unwrap_or_default().trim_start_matches("--").trim()
    }
}

macro_rules! views {
    ($($name:literal),* $(,)?) => {
        &[$(View { name: $name, sql: include_str!(concat!("../../sql/views/", $name, ".sql")) }),*]
    };
}

/// All of them, in the order in which the documentation has them.
const VIEWS: &[View] = views![];

/// All views.
pub fn all() -> &'static [View] {
    VIEWS
}

/// The view of that name.
pub fn by_name(name: &str) -> Option<&'static View> {
    VIEWS.iter().find(|view| view.name == name)
}
