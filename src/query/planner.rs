//! Turns logical model operators into running ones.
//!
//! In: an optimised plan with [`ModelNode`]s and [`MergeNode`]s. Out: a physical plan with a [`ModelExec`] or a merge for each.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{LexOrdering, create_physical_sort_exprs};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use super::exec::{ExecCall, ModelExec, Pace};
use super::merge::MergeNode;
use super::models::Models;
use super::node::ModelNode;

/// DataFusion's planner, with ours for the model operators.
#[derive(Debug)]
pub(super) struct ModelQueryPlanner {
    pub(super) models: Arc<Models>,
    pub(super) pace: Pace,
}

#[async_trait]
impl QueryPlanner for ModelQueryPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, state: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let models = ModelPlanner { models: Arc::clone(&self.models), pace: self.pace };
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(models)]).create_physical_plan(plan, state).await
    }
}

struct ModelPlanner {
    models: Arc<Models>,
    pace: Pace,
}

#[async_trait]
impl ExtensionPlanner for ModelPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        state: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let ([logical], [physical]) = (logical_inputs, physical_inputs) else { return Ok(None) };
        if let Some(merge) = node.as_any().downcast_ref::<MergeNode>() {
            let keys = create_physical_sort_exprs(&merge.keys, logical.schema(), state.execution_props(), context)?;
            let keys = LexOrdering::new(keys).ok_or_else(|| crate::Error::internal("Merge", "it has no keys"))?;
            return Ok(Some(Arc::new(SortPreservingMergeExec::new(keys, Arc::clone(physical)))));
        }
        let Some(node) = node.as_any().downcast_ref::<ModelNode>() else { return Ok(None) };
        let mut calls = Vec::with_capacity(node.calls.len());
        for call in &node.calls {
            let args = call.args.iter().map(|arg| planner.create_physical_expr(arg, logical.schema(), state, context));
            calls.push(ExecCall {
                model: call.model.clone(),
                operation: call.operation.clone(),
                args: args.collect::<Result<_>>()?,
                column: call.column.clone(),
            });
        }
        let order = physical.properties().output_ordering().cloned();
        let exec = ModelExec::try_new(Arc::clone(physical), calls.into(), Arc::clone(&self.models), self.pace, order)?;
        Ok(Some(Arc::new(exec)))
    }
}
