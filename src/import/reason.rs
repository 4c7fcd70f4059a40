//! Why a source row does not reach the output.
//!
//! In: what a reader, a format or the cleaning found wrong with a row. Out: one [`Reason`] per dropped row, with a
//! detail for people; the names are the values of `dropped.reason`.

/// Why a row was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The text is empty or only white space.
    Empty,
    /// The prompt has fewer characters than `--min-chars`.
    TooShort,
    /// The prompt has more characters than `--max-chars`.
    TooLong,
    /// The same prompt (or prompt and answers), but for case and white space, was kept before.
    Duplicate,
    /// A field is null or not there.
    MissingField,
    /// A field or the row has another type than the format says.
    WrongType,
    /// The row ends in the middle: a torn download or a writer that was killed.
    TornLine,
    /// The row is not valid JSON or CSV.
    Malformed,
    /// The row is not valid UTF-8.
    BadUtf8,
    /// The row has half of a UTF-16 pair (`\ud83d` without its partner).
    LoneSurrogate,
    /// The row is larger than what is held in memory for one row.
    LineTooLong,
    /// The message was deleted by its author or a moderator.
    Deleted,
    /// The message tree is not in a state that was asked for.
    NotReady,
    /// The row does not start a conversation: a reply, or a conversation whose start is cut off.
    NotAFirstTurn,
    /// The conversation starts with a tool's turn.
    ToolRole,
    /// The turns are not a prompt that ends in the user's turn and an answer of the assistant.
    TurnOrder,
    /// Chosen and rejected do not answer the same prompt.
    NoSharedPrompt,
    /// The chosen or the rejected answer is empty.
    EmptyTurn,
    /// Chosen and rejected are the same text.
    Identical,
    /// Both answers have the same score.
    Tie,
    /// The score ratio is not above `--min-score-ratio`.
    LowScoreRatio,
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Reason; 21] = [
        Reason::Empty,
        Reason::TooShort,
        Reason::TooLong,
        Reason::Duplicate,
        Reason::MissingField,
        Reason::WrongType,
        Reason::TornLine,
        Reason::Malformed,
        Reason::BadUtf8,
        Reason::LoneSurrogate,
        Reason::LineTooLong,
        Reason::Deleted,
        Reason::NotReady,
        Reason::NotAFirstTurn,
        Reason::ToolRole,
        Reason::TurnOrder,
        Reason::NoSharedPrompt,
        Reason::EmptyTurn,
        Reason::Identical,
        Reason::Tie,
        Reason::LowScoreRatio,
    ];

    /// The name in the `dropped` table and in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Empty => "empty",
            Reason::TooShort => "too_short",
            Reason::TooLong => "too_long",
            Reason::Duplicate => "duplicate",
            Reason::MissingField => "missing_field",
            Reason::WrongType => "wrong_type",
            Reason::TornLine => "torn_line",
            Reason::Malformed => "malformed",
            Reason::BadUtf8 => "bad_utf8",
            Reason::LoneSurrogate => "lone_surrogate",
            Reason::LineTooLong => "line_too_long",
            Reason::Deleted => "deleted",
            Reason::NotReady => "not_ready",
            Reason::NotAFirstTurn => "not_a_first_turn",
            Reason::ToolRole => "tool_role",
            Reason::TurnOrder => "turn_order",
            Reason::NoSharedPrompt => "no_shared_prompt",
            Reason::EmptyTurn => "empty_turn",
            Reason::Identical => "identical",
            Reason::Tie => "tie",
            Reason::LowScoreRatio => "low_score_ratio",
        }
    }
}

/// A row that is dropped: the reason, what exactly was found, and the text to show where the row itself says less.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
    pub(crate) text: Option<String>,
}

impl Refusal {
    /// A refusal that is shown with the beginning of the row.
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Refusal { reason, detail: detail.into(), text: None }
    }

    /// A refusal that is shown with the text it is about.
    pub(crate) fn of_text(reason: Reason, detail: impl Into<String>, text: &str) -> Self {
        Refusal { reason, detail: detail.into(), text: Some(text.to_owned()) }
    }
}
