//! Turns logical model operators into running ones.
//!
//! In: an optimised plan with [`ModelNode`]s. Out: a physical plan with a [`ModelExec`] for each.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use super::exec::{ExecCall, ModelExec, Pace};
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
        let Some(node) = node.as_any().downcast_ref::<ModelNode>() else { return Ok(None) };
        let ([logical], [physical]) = (logical_inputs, physical_inputs) else {
            return Err(crate::Error::internal("Model", "it has one input").into());
        };
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
        let exec = ModelExec::try_new(Arc::clone(physical), calls.into(), Arc::clone(&self.models), self.pace)?;
        Ok(Some(Arc::new(exec)))
    }
}
