//! The logical operator that merges the branches of a union.
//!
//! In: a union whose branches are each sorted by the same keys. Out: its rows in that order, as they come. A sort above
//! the union would do as well, but physical planning takes sorts below a sort away, and then the first row waits for a
//! model's last answer.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;

use datafusion::common::DFSchemaRef;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, SortExpr, UserDefinedLogicalNodeCore};

/// The rows of `input` in the order of `keys`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MergeNode {
    pub(super) input: LogicalPlan,
    pub(super) keys: Vec<SortExpr>,
}

impl UserDefinedLogicalNodeCore for MergeNode {
    fn name(&self) -> &str {
        "Merge"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        self.keys.iter().map(|key| key.expr.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        write!(f, "Merge: {}", keys.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(input), true) = (inputs.into_iter().next(), exprs.len() == self.keys.len()) else {
            return Err(crate::Error::internal("Merge", "wrong arity").into());
        };
        let keys = self.keys.iter().zip(exprs).map(|(key, expr)| key.with_expr(expr)).collect();
        Ok(MergeNode { input, keys })
    }

    /// Which rows there are does not depend on their order.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::new()
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }
}

// There is no order between plans.
impl PartialOrd for MergeNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}
