//! Finds a call that is already computed further down, so that WHERE, SELECT and ORDER BY share it.
//!
//! In: a plan and a call over its columns. Out: the same plan with the result's column let through to the top,
//! when every operator in between keeps rows whole (filter, sort, limit, renaming of columns).

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

use super::call::ModelCall;
use super::node::ModelNode;
use crate::Result;

/// The widened plan and the name of the column that holds the result of `call`.
pub(super) fn reuse(plan: &LogicalPlan, call: &ModelCall) -> Result<Option<(LogicalPlan, String)>> {
    match plan {
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => below(plan, call),
        LogicalPlan::Extension(_) => {
            let Some(node) = ModelNode::of(plan) else { return Ok(None) };
            if let Some(same) = node.calls.iter().find(|other| other.same_as(call)) {
                return Ok(Some((plan.clone(), same.column.clone())));
            }
            below(plan, call)
        }
        LogicalPlan::Projection(projection) => {
            let Some(translated) = translate(call, projection)? else { return Ok(None) };
            let Some((input, column)) = reuse(&projection.input, &translated)? else { return Ok(None) };
            let mut exprs = projection.expr.clone();
            exprs.push(Expr::Column(Column::new_unqualified(&column)));
            Ok(Some((LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?), column)))
        }
        _ => Ok(None),
    }
}

/// Through an operator with one input whose columns it passes on under the same names.
fn below(plan: &LogicalPlan, call: &ModelCall) -> Result<Option<(LogicalPlan, String)>> {
    let inputs = plan.inputs();
    let [input] = inputs.as_slice() else { return Ok(None) };
    let known = |column: &&Column| input.schema().has_column(column);
    if !call.args.iter().flat_map(Expr::column_refs).all(|column| known(&column)) {
        return Ok(None);
    }
    let Some((input, column)) = reuse(input, call)? else { return Ok(None) };
    Ok(Some((plan.with_new_exprs(plan.expressions(), vec![input])?, column)))
}

/// `call` in terms of the projection's input, when its arguments use only columns that are passed on.
fn translate(call: &ModelCall, projection: &Projection) -> Result<Option<ModelCall>> {
    let mut known = true;
    let mut translated = call.clone();
    for arg in &mut translated.args {
        let renamed = arg.clone().transform_up(|part| match &part {
            Expr::Column(column) => match source(column, &projection.schema, &projection.expr) {
                Some(below) => Ok(Transformed::yes(Expr::Column(below))),
                None => {
                    known = false;
                    Ok(Transformed::no(part))
                }
            },
            _ => Ok(Transformed::no(part)),
        })?;
        *arg = renamed.data;
    }
    Ok(known.then_some(translated))
}

/// The input column that the projection passes on as `column`, if it passes it on unchanged.
pub(super) fn source(column: &Column, schema: &DFSchema, exprs: &[Expr]) -> Option<Column> {
    let index = schema.maybe_index_of_column(column)?;
    let mut expr = exprs.get(index)?;
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    match expr {
        Expr::Column(below) => Some(below.clone()),
        _ => None,
    }
}
