//! Two rewrites that save model time.
//!
//! In: a plan with [`ModelNode`]s. Out: the same rows from fewer calls:
//! - [`SortBelowModel`]: `ORDER BY` on input columns sorts before the model, so rows stream out in order, and
//!   `ORDER BY ... LIMIT 5` asks the model five times instead of once per row of the table. Where a union puts a model's
//!   rows beside others, each branch is sorted, and then they are merged.
//! - [`DropUnusedCalls`]: a result nobody reads is not computed.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Expr, Extension, Filter, LogicalPlan, Projection, Sort, SortExpr, SubqueryAlias, Union,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::merge::MergeNode;
use super::node::ModelNode;
use super::reuse::source;

/// `Sort(Model(x))` becomes `Model(Sort(x))`, also through projections, aliases and (without a limit) filters in between.
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
        if sort.expr.iter().any(|key| key.expr.is_volatile()) {
            return Ok(Transformed::no(plan));
        }
        if let Some(sorted) = sort_below(&sort.expr, sort.fetch, &sort.input)? {
            return Ok(Transformed::yes(sorted));
        }
        match sort_branches(&sort.expr, &sort.input)? {
            Some(merged) if sort.fetch.is_none() => Ok(Transformed::yes(merged)),
            _ => Ok(Transformed::no(plan)),
        }
    }
}

/// `plan`, a union below renamings, with each branch sorted and their rows merged, when a branch asks a model.
fn sort_branches(keys: &[SortExpr], plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    Ok(match plan {
        LogicalPlan::Projection(above) => {
            let Some(keys) = renamed(keys, |key| source(key, &above.schema, &above.expr))? else { return Ok(None) };
            let Some(input) = sort_branches(&keys, &above.input)? else { return Ok(None) };
            Some(LogicalPlan::Projection(Projection::try_new(above.expr.clone(), Arc::new(input))?))
        }
        LogicalPlan::SubqueryAlias(above) => {
            let Some(keys) = renamed(keys, |key| same_place(key, &above.schema, &above.input))? else {
                return Ok(None);
            };
            let Some(input) = sort_branches(&keys, &above.input)? else { return Ok(None) };
            Some(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), above.alias.clone())?))
        }
        LogicalPlan::Union(union) => {
            let mut inputs = Vec::with_capacity(union.inputs.len());
            let mut asks = false;
            for input in &union.inputs {
                let Some(keys) = renamed(keys, |key| same_place(key, &union.schema, input))? else { return Ok(None) };
                let below = sort_below(&keys, None, input)?;
                asks |= below.is_some();
                let above = || LogicalPlan::Sort(Sort { expr: keys, input: Arc::clone(input), fetch: None });
                inputs.push(Arc::new(below.unwrap_or_else(above)));
            }
            let input = LogicalPlan::Union(Union { inputs, schema: Arc::clone(&union.schema) });
            let node = Arc::new(MergeNode { input, keys: keys.to_vec() });
            asks.then_some(LogicalPlan::Extension(Extension { node }))
        }
        _ => None,
    })
}

/// The column of `input` at the place that `key` has in `schema`.
fn same_place(key: &Column, schema: &DFSchema, input: &LogicalPlan) -> Option<Column> {
    Some(Column::from(input.schema().qualified_field(schema.maybe_index_of_column(key)?)))
}

/// `plan` with its rows sorted under the nearest model operator, unless a key needs more than that one's input.
fn sort_below(keys: &[SortExpr], fetch: Option<usize>, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    Ok(match plan {
        LogicalPlan::Projection(above) => {
            let Some(keys) = renamed(keys, |key| source(key, &above.schema, &above.expr))? else { return Ok(None) };
            let Some(input) = sort_below(&keys, fetch, &above.input)? else { return Ok(None) };
            Some(LogicalPlan::Projection(Projection::try_new(above.expr.clone(), Arc::new(input))?))
        }
        LogicalPlan::SubqueryAlias(above) => {
            let Some(keys) = renamed(keys, |key| same_place(key, &above.schema, &above.input))? else {
                return Ok(None);
            };
            let Some(input) = sort_below(&keys, fetch, &above.input)? else { return Ok(None) };
            Some(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), above.alias.clone())?))
        }
        // The rows that a filter drops are sorted for nothing, but those it keeps need not wait for the last answer.
        LogicalPlan::Filter(filter) if fetch.is_none() => {
            let Some(input) = sort_below(keys, fetch, &filter.input)? else { return Ok(None) };
            Some(LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::new(input))?))
        }
        LogicalPlan::Extension(_) => {
            let Some(node) = ModelNode::of(plan) else { return Ok(None) };
            let input_column = |key: &Column| (!node.computes(&key.name)).then(|| key.clone());
            let Some(keys) = renamed(keys, input_column)? else { return Ok(None) };
            let sorted = LogicalPlan::Sort(Sort { expr: keys, input: Arc::new(node.input.clone()), fetch });
            let node = Arc::new(ModelNode::try_new(sorted, node.calls.clone())?);
            Some(LogicalPlan::Extension(Extension { node }))
        }
        _ => None,
    })
}

/// The sort keys with every column renamed by `below`; `None` if one has no name there.
fn renamed(keys: &[SortExpr], below: impl Fn(&Column) -> Option<Column>) -> Result<Option<Vec<SortExpr>>> {
    let mut known = true;
    let mut renamed = Vec::with_capacity(keys.len());
    for key in keys {
        let expr = key.expr.clone().transform_up(|part| match &part {
            Expr::Column(column) => match below(column) {
                Some(column) => Ok(Transformed::yes(Expr::Column(column))),
                None => {
                    known = false;
                    Ok(Transformed::no(part))
                }
            },
            _ => Ok(Transformed::no(part)),
        })?;
        renamed.push(key.with_expr(expr.data));
    }
    Ok(known.then_some(renamed))
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
            if expr
                .exists(|part| Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_))))?
            {
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
