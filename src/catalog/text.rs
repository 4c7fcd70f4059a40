//! SQL as text: its statements, and what is written differently from what DataFusion reads.
//!
//! In: text that people wrote. Out: pieces of the same text, cut where the tokens of the parser say.

use std::borrow::Cow;
use std::ops::Range;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer, Word};

use crate::{Error, Result};

/// A token and where it stands.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The token; texts in quotes are as they were written.
    pub token: Token,
    /// Its bytes.
    pub range: Range<usize>,
}

/// The tokens of `text`, without blanks and comments.
///
/// # Errors
/// A query error for a quote or a comment that does not end.
pub fn pieces(text: &str) -> Result<Vec<Piece>> {
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .with_unescape(false)
        .tokenize_with_location()
        .map_err(|e| Error::query("SQL", e))?;
    let mut places = Places { text, line: 1, column: 1, byte: 0 };
    let mut pieces = Vec::new();
    for token in tokens {
        let range = places.byte_of(token.span.start)..places.byte_of(token.span.end);
        if !matches!(token.token, Token::Whitespace(_)) {
            pieces.push(Piece { token: token.token, range });
        }
    }
    Ok(pieces)
}

/// Turns lines and columns, in rising order, into bytes.
struct Places<'a> {
    text: &'a str,
    line: u64,
    column: u64,
    byte: usize,
}

impl Places<'_> {
    fn byte_of(&mut self, place: Location) -> usize {
        while (self.line, self.column) < (place.line, place.column) {
            let Some(c) = self.text[self.byte..].chars().next() else { break };
            self.byte += c.len_utf8();
            (self.line, self.column) = if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.byte
    }
}

/// The statements of a script: cut at semicolons, without empty ones.
///
/// # Errors
/// As [`pieces`].
pub fn statements(text: &str) -> Result<Vec<&str>> {
    let (mut found, mut start, mut empty) = (Vec::new(), 0, true);
    for piece in pieces(text)? {
        if piece.token != Token::SemiColon {
            empty = false;
            continue;
        }
        if !empty {
            found.push(text[start..piece.range.start].trim());
        }
        (start, empty) = (piece.range.end, true);
    }
    if !empty {
        found.push(text[start..].trim());
    }
    Ok(found)
}

/// Where the last statement that ends in a semicolon ends; `None` while there is none, or a quote is open.
pub fn complete(text: &str) -> Option<usize> {
    let pieces = pieces(text).ok()?;
    pieces.iter().rev().find(|piece| piece.token == Token::SemiColon).map(|piece| piece.range.end)
}

/// `judgments as of '2026-11-27'` (and `for system_time as of`) becomes `"judgments@2026-11-27"`, which the catalog knows.
///
/// # Errors
/// As [`pieces`].
pub fn as_of(text: &str) -> Result<Cow<'_, str>> {
    let pieces = pieces(text)?;
    let (mut out, mut done) = (String::new(), 0);
    for (i, piece) in pieces.iter().enumerate() {
        let Token::Word(table) = &piece.token else { continue };
        if piece.range.start < done {
            continue;
        }
        let rest = &pieces[i + 1..];
        let rest = if spells(rest, &["for", "system_time"]) { &rest[2..] } else { rest };
        let [_, _, time, ..] = rest else { continue };
        let Token::SingleQuotedString(when) = &time.token else { continue };
        if !spells(rest, &["as", "of"]) {
            continue;
        }
        out += &text[done..piece.range.start];
        out += &format!("\"{}@{}\"", name_of(table).replace('"', "\"\""), when.replace('"', "\"\""));
        done = time.range.end;
    }
    if done == 0 {
        return Ok(Cow::Borrowed(text));
    }
    out += &text[done..];
    Ok(Cow::Owned(out))
}

/// The functions that the text calls: words before a parenthesis, in lower case.
///
/// # Errors
/// As [`pieces`].
pub fn calls(text: &str) -> Result<Vec<String>> {
    let pieces = pieces(text)?;
    let pairs = pieces.windows(2).filter_map(|pair| match (&pair[0].token, &pair[1].token) {
        (Token::Word(word), Token::LParen) => Some(word.value.to_lowercase()),
        _ => None,
    });
    Ok(pairs.collect())
}

fn spells(pieces: &[Piece], words: &[&str]) -> bool {
    let is = |(piece, wanted): (&Piece, &&str)| matches!(&piece.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted));
    pieces.len() >= words.len() && pieces.iter().zip(words).all(is)
}

/// The name that the word means: in lower case unless it is quoted.
fn name_of(word: &Word) -> String {
    if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() }
}
