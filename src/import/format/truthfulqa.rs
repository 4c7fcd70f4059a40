//! TruthfulQA: the CSV (`Question, Best Answer, ..`), the multiple-choice JSON (`question, mc1_targets, ..`) and the
//! Parquet form (`question, best_answer, ..`). Out: the question.

use super::{Context, Format, Prompt};
use crate::import::reason::Refusal;
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct TruthfulQa;

const ANSWERS: [&str; 4] = ["Best Answer", "best_answer", "mc1_targets", "mc2_targets"];

fn field(row: Row<'_>) -> &'static str {
    if row.0.contains_key("Question") { "Question" } else { "question" }
}

impl Format for TruthfulQa {
    fn name(&self) -> &'static str {
        "truthfulqa"
    }

    fn fields(&self) -> &'static str {
        "question, mc1_targets, mc2_targets; or Question, Best Answer"
    }

    fn matches(&self, row: Row<'_>) -> bool {
        row.is_text(field(row)) && ANSWERS.iter().any(|name| row.0.contains_key(*name))
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        Ok(Prompt { instruction: row.text(field(row))?.to_owned(), ..Prompt::default() })
    }
}
