//! Takes model calls out of expressions and puts operators under the expressions that use them.
//!
//! In: a plan as SQL wrote it. Out: the same plan with every call computed by a [`ModelNode`]:
//! ```text
//! Projection: reward('rm', generate('p', q)['response']) + 1
//!   Scan q
//! becomes
//! Projection: __model_1 + 1
//!   Model: __model_1 = reward('rm', __model_0['response'])
//!     Model: __model_0 = generate('p', q)
//!       Scan q
//! ```
//! SELECT lists, WHERE / HAVING and ORDER BY are rewritten; a call anywhere else is an error that says how to
//! write it instead.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, Extension, Filter, LogicalPlan, Projection, Sort};
use datafusion::optimizer::AnalyzerRule;

use super::call::ModelCall;
use super::judge;
use super::markers::as_call;
use super::models::Models;
use super::node::ModelNode;
use super::reuse::reuse;
use crate::{Error, Result};

/// The analyser rule.
#[derive(Debug)]
pub(super) struct ExtractModelCalls {
    pub(super) models: Arc<Models>,
}

impl AnalyzerRule for ExtractModelCalls {
    fn name(&self) -> &str {
        "extract_model_calls"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let mut lift = Lift { models: &self.models, next: first_free(&plan)? };
        Ok(plan.transform_up_with_subqueries(|plan| Ok(lift.rewrite(plan)?))?.data)
    }
}

/// Column numbers are unique in the whole plan, also in one that was analysed before and is used again.
fn first_free(plan: &LogicalPlan) -> DataFusionResult<usize> {
    let mut next = 0;
    plan.apply_with_subqueries(|plan| {
        if let Some(node) = ModelNode::of(plan) {
            let numbers = node.calls.iter().filter_map(|call| call.column.strip_prefix(PREFIX)?.parse::<usize>().ok());
            next = next.max(numbers.map(|n| n + 1).max().unwrap_or(0));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(next)
}

const PREFIX: &str = "__model_";

struct Lift<'a> {
    models: &'a Arc<Models>,
    next: usize,
}

impl Lift<'_> {
    fn rewrite(&mut self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let Some(call) = first_call(&plan)? else { return Ok(Transformed::no(plan)) };
        let plan = match plan {
            LogicalPlan::Projection(projection) => {
                let preserver = NamePreserver::new_for_projection();
                let names: Vec<_> = projection.expr.iter().map(|expr| preserver.save(expr)).collect();
                let (exprs, input) = self.lift(projection.expr, Arc::unwrap_or_clone(projection.input))?;
                let exprs = exprs.into_iter().zip(names).map(|(expr, name)| name.restore(expr)).collect();
                LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?)
            }
            LogicalPlan::Filter(filter) => {
                let schema = Arc::clone(filter.input.schema());
                let (mut exprs, input) = self.lift(vec![filter.predicate], Arc::unwrap_or_clone(filter.input))?;
                let Some(predicate) = exprs.pop() else {
                    return Err(Error::internal("WHERE", "the predicate was lost"));
                };
                only(&schema, LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?))?
            }
            LogicalPlan::Sort(sort) => {
                let schema = Arc::clone(sort.input.schema());
                let keys = sort.expr.iter().map(|key| key.expr.clone()).collect();
                let (exprs, input) = self.lift(keys, Arc::unwrap_or_clone(sort.input))?;
                let expr = sort.expr.into_iter().zip(exprs).map(|(key, expr)| key.with_expr(expr)).collect();
                only(&schema, LogicalPlan::Sort(Sort { expr, input: Arc::new(input), fetch: sort.fetch }))?
            }
            other => return Err(misuse(call, &other)),
        };
        Ok(Transformed::yes(plan))
    }

    /// Computes every call in `exprs` below, innermost first, and leaves columns in their place.
    fn lift(&mut self, exprs: Vec<Expr>, mut input: LogicalPlan) -> Result<(Vec<Expr>, LogicalPlan)> {
        let mut exprs = judge::expand(exprs, self.models, input.schema())?;
        loop {
            let markers = innermost(&exprs)?;
            if markers.is_empty() {
                return Ok((exprs, input));
            }
            let mut columns: Vec<(Expr, Expr)> = Vec::with_capacity(markers.len());
            let mut calls: Vec<ModelCall> = Vec::new();
            for marker in markers {
                let call = self.parse(&marker, &input)?;
                let column = if let Some(same) = calls.iter().find(|other| other.same_as(&call)) {
                    same.column.clone()
                } else if let Some((widened, column)) = reuse(&input, &call)? {
                    input = widened;
                    column
                } else {
                    self.next += 1;
                    calls.push(call.clone());
                    call.column
                };
                columns.push((marker, Expr::Column(Column::new_unqualified(column))));
            }
            if !calls.is_empty() {
                let node = Arc::new(ModelNode::try_new(input, calls)?);
                input = LogicalPlan::Extension(Extension { node });
            }
            exprs = exprs.into_iter().map(|expr| replace(expr, &columns)).collect::<Result<_>>()?;
        }
    }

    fn parse(&self, marker: &Expr, input: &LogicalPlan) -> Result<ModelCall> {
        let Some((function, args)) = as_call(marker) else {
            return Err(Error::internal("model call", "not a call"));
        };
        for arg in args {
            if arg.contains_outer() || contains_subquery(arg)? {
                return Err(Error::query(
                    function.name(),
                    "an argument may not be a subquery or refer to an outer query: join it in a subquery first",
                ));
            }
        }
        let call = ModelCall::parse(function, args, input.schema(), format!("{PREFIX}{}", self.next))?;
        self.models.check(&call.model, function.name())?;
        Ok(call)
    }
}

/// The distinct calls whose own arguments hold no call.
fn innermost(exprs: &[Expr]) -> Result<Vec<Expr>> {
    let mut found: Vec<Expr> = Vec::new();
    for expr in exprs {
        expr.apply(|part| {
            if let Some((_, args)) = as_call(part) {
                let nested = args.iter().try_fold(false, |nested, arg| Ok::<_, Error>(nested || has_call(arg)?))?;
                if !nested && !found.contains(part) {
                    found.push(part.clone());
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(found)
}

fn any_call(exprs: &[Expr]) -> bool {
    exprs.iter().any(|expr| has_call(expr).unwrap_or(false))
}

fn has_call(expr: &Expr) -> Result<bool> {
    Ok(expr.exists(|part| Ok(as_call(part).is_some() || judge::name_of(part).is_some()))?)
}

fn contains_subquery(expr: &Expr) -> Result<bool> {
    Ok(expr.exists(|part| {
        Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    })?)
}

fn replace(expr: Expr, columns: &[(Expr, Expr)]) -> Result<Expr> {
    let replaced = expr.transform_down(|part| {
        Ok(match columns.iter().find(|(marker, _)| *marker == part) {
            Some((_, column)) => Transformed::yes(column.clone()),
            None => Transformed::no(part),
        })
    })?;
    Ok(replaced.data)
}

/// The function of the first call among a node's own expressions.
fn first_call(plan: &LogicalPlan) -> Result<Option<&'static str>> {
    let mut found = None;
    plan.apply_expressions(|expr| {
        expr.apply(|part| {
            if let Some(name) = as_call(part).map(|(function, _)| function.name()).or(judge::name_of(part)) {
                found = Some(name);
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// `plan` without the columns that `schema` lacks.
fn only(schema: &DFSchema, plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns = schema.columns().into_iter().map(Expr::Column).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
}

fn misuse(name: &str, plan: &LogicalPlan) -> Error {
    let place = match plan {
        LogicalPlan::Aggregate(aggregate) if any_call(&aggregate.group_expr) => "GROUP BY",
        LogicalPlan::Aggregate(_) => "an aggregate",
        LogicalPlan::Window(_) => "a window function",
        LogicalPlan::Join(_) => "a join condition",
        LogicalPlan::Distinct(_) => "DISTINCT ON",
        LogicalPlan::Values(_) => "VALUES",
        _ => "this clause",
    };
    Error::query(
        format!("{name}()"),
        format!(
            "not allowed in {place}; compute it in a subquery first and use its column: \
             SELECT ... FROM (SELECT *, {name}(...) AS x FROM ...) AS t"
        ),
    )
}
