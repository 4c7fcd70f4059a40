//! Two rewrites that save model time.
//!
//! In: a plan with [`ModelNode`]s. Out: the same rows from fewer calls:
//! - [`SortBelowModel`]: `ORDER BY` on input columns sorts before the model, so rows stream out in order, and
//!   `ORDER BY ... LIMIT 5` asks the model five times instead of once per row of the table.
//! - [`DropUnusedCalls`]: a result nobody reads is not computed.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, Projection, Sort};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::node::ModelNode;
use super::reuse::source;

/// `Sort(Model(x))` and `Sort(Projection(Model(x)))` become `Model(Sort(x))` under the projection.
#[derive(Debug)]
pub(super) struct SortBelowModel;

impl OptimizerRule for SortBelowModel {
    fn name(&self) -> &str {
        "sort_below_model"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Sort(sort) = &plan else { return Ok(Transformed::no(plan)) };
        let (projection, below) = match sort.input.as_ref() {
            LogicalPlan::Projection(projection) => (Some(projection), projection.input.as_ref()),
            other => (None, other),
        };
        let Some(node) = ModelNode::of(below) else { return Ok(Transformed::no(plan)) };
        let mut keys = Vec::with_capacity(sort.expr.len());
        for key in &sort.expr {
            match key_below(&key.expr, projection, node)? {
                Some(expr) => keys.push(key.with_expr(expr)),
                None => return Ok(Transformed::no(plan)),
            }
        }
        let sorted =
            LogicalPlan::Sort(Sort { expr: keys, input: Arc::new(node.input.clone()), fetch: sort.fetch });
        let node = Arc::new(ModelNode::try_new(sorted, node.calls.clone())?);
        let model = LogicalPlan::Extension(Extension { node });
        Ok(Transformed::yes(match projection {
            Some(above) => LogicalPlan::Projection(Projection::try_new(above.expr.clone(), Arc::new(model))?),
            None => model,
        }))
    }
}

/// The sort key over the node's input, unless it reads a result or a computed column.
fn key_below(key: &Expr, projection: Option<&Projection>, node: &ModelNode) -> Result<Option<Expr>> {
    let mut known = !key.is_volatile();
    let below = key.clone().transform_up(|part| {
        let Expr::Column(column) = &part else { return Ok(Transformed::no(part)) };
        let column = match projection {
            Some(projection) => source(column, &projection.schema, &projection.expr),
            None => Some(column.clone()),
        };
        match column {
            Some(column) if !node.computes(&column.name) => Ok(Transformed::yes(Expr::Column(column))),
            _ => {
                known = false;
                Ok(Transformed::no(part))
            }
        }
    })?;
    Ok(known.then_some(below.data))
}

/// Removes calls whose column the projection or aggregate right above does not read.
#[derive(Debug)]
pub(super) struct DropUnusedCalls;

impl OptimizerRule for DropUnusedCalls {
    fn name(&self) -> &str {
        "drop_unused_model_calls"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_)) {
            return Ok(Transformed::no(plan));
        }
        let inputs = plan.inputs();
        let Some(node) = inputs.first().and_then(|input| ModelNode::of(input)) else {
            return Ok(Transformed::no(plan));
        };
        let exprs = plan.expressions();
        // A subquery that is still there may read a column without naming it among this node's own.
        for expr in &exprs {
            if expr.exists(|part| Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_))))? {
                return Ok(Transformed::no(plan));
            }
        }
        let read = |name: &str| exprs.iter().any(|expr| expr.column_refs().iter().any(|column| column.name == name));
        let calls: Vec<_> = node.calls.iter().filter(|call| read(&call.column)).cloned().collect();
        if calls.len() == node.calls.len() {
            return Ok(Transformed::no(plan));
        }
        let input = if calls.is_empty() {
            node.input.clone()
        } else {
            let node = Arc::new(ModelNode::try_new(node.input.clone(), calls)?);
            LogicalPlan::Extension(Extension { node })
        };
        Ok(Transformed::yes(plan.with_new_exprs(exprs, vec![input])?))
    }
}
