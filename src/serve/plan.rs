//! A statement as a plan.
//!
//! In: a parsed statement, the session of its query. Out: a logical plan, its parameters still open.

use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as Parsed;

use super::failure::Failure;
use super::tokens::Token;
use crate::catalog::{MODEL_FUNCTIONS, explain};

/// Plans a statement. `session` knows the same tables, to suggest one of them in place of one that is not there.
pub(super) async fn plan(
    state: &SessionState,
    parsed: Parsed,
    session: &SessionContext,
) -> Result<LogicalPlan, Failure> {
    state.statement_to_plan(parsed).await.map_err(|error| match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => error.into(),
        _ => explain(error.into(), session).into(),
    })
}

/// That a plan asks no model, unless the token may.
pub(super) fn allow_models(plan: &LogicalPlan, token: &Token) -> Result<(), Failure> {
    if token.models {
        return Ok(());
    }
    let mut found = None;
    let mut call = |expression: &Expr| {
        if let Expr::ScalarFunction(call) = expression {
            found = found.or_else(|| MODEL_FUNCTIONS.iter().find(|name| **name == call.func.name()));
        }
        Ok(TreeNodeRecursion::Continue)
    };
    plan.apply_with_subqueries(|node| node.apply_expressions(|expression| expression.apply(&mut call)))?;
    match found {
        Some(name) => Err(Failure::refused(format!("{name}() needs a model, which token {} may not ask", token.name))),
        None => Ok(()),
    }
}
