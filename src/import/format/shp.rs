//! Stanford Human Preferences: `{post_id, history, human_ref_A, human_ref_B, labels, score_ratio}`.
//!
//! Out: the post; as a pair, the comment that `labels` prefers (1 = A, 0 = B) against the other, where `score_ratio`
//! is above the threshold.

use super::{Context, Format, Pair, Prompt};
use crate::import::reason::{Reason, Refusal};
use crate::import::row::Row;

#[derive(Debug)]
pub(crate) struct Shp;

impl Format for Shp {
    fn name(&self) -> &'static str {
        "shp"
    }

    fn fields(&self) -> &'static str {
        "post_id, history, human_ref_A, human_ref_B, labels, score_ratio"
    }

    fn has_pairs(&self) -> bool {
        true
    }

    fn matches(&self, row: Row<'_>) -> bool {
        row.is_text("history") && row.is_text("human_ref_A") && row.is_text("human_ref_B")
    }

    fn prompt(&self, row: Row<'_>, _context: Context<'_>) -> Result<Prompt, Refusal> {
        Ok(Prompt { id: row.id("post_id"), instruction: row.text("history")?.to_owned(), ..Prompt::default() })
    }

    fn pair(&self, row: Row<'_>, context: Context<'_>) -> Result<Pair, Refusal> {
        let (a, b) = (row.text("human_ref_A")?.to_owned(), row.text("human_ref_B")?.to_owned());
        let label = row.number("labels")?;
        let ratio = row.number("score_ratio")?;
        if ratio.is_nan() || ratio <= context.options.min_score_ratio {
            let detail = format!("score_ratio {ratio} is not above {}", context.options.min_score_ratio);
            return Err(Refusal::new(Reason::LowScoreRatio, detail));
        }
        let (chosen, rejected) = if label == 1.0 {
            (a, b)
        } else if label == 0.0 {
            (b, a)
        } else {
            return Err(Refusal::new(Reason::WrongType, format!("`labels` is {label}, not 0 or 1")));
        };
        Ok(Pair { prompt: row.text("history")?.to_owned(), chosen, rejected })
    }
}
