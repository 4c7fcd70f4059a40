//! The running operator: rows in, the same rows with the models' answers out.
//!
//! ```text
//! input partition ─> micro-batches ─> [ ask ──> model ──> column ]   in_flight of them at once
//!   any batches       8, 16, .. rows  [ ask ──> model ──> column ] ─> batches, in input order
//! ```
//! In: record batches. Out: their rows in the same order with one column per call. Nothing runs ahead of the
//! `in_flight` micro-batches; dropping the stream (LIMIT reached, query cancelled, an error elsewhere) drops the
//! requests that are under way. Several partitions feed the same model; the operator asks for no repartitioning.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionMapping;
use datafusion::physical_expr::{LexOrdering, OrderingRequirements, PhysicalExpr};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use super::answers;
use super::call::{Operation, write_call};
use super::metrics::ModelMetrics;
use super::micro_batch::micro_batches;
use super::models::Models;
use super::requests;
use crate::engine::Inference;
use crate::{Error, Result};

/// How many rows go to a model at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Rows in the first micro-batch; each next one has twice as many.
    pub(super) first: usize,
    /// Rows in a micro-batch at most.
    pub(super) most: usize,
    /// Micro-batches with the model at once, per partition.
    pub(super) in_flight: usize,
}

/// One call with its arguments as they are evaluated.
#[derive(Debug)]
pub(super) struct ExecCall {
    pub(super) model: String,
    pub(super) operation: Operation,
    pub(super) args: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) column: String,
}

/// The operator.
#[derive(Debug)]
pub(super) struct ModelExec {
    pub(super) input: Arc<dyn ExecutionPlan>,
    pub(super) calls: Arc<[ExecCall]>,
    pub(super) models: Arc<Models>,
    pace: Pace,
    /// The order in which the input was planned to come. Required, lest the planner takes the sort below away and sorts
    /// the answers instead, so that the first waits for the last.
    order: Option<LexOrdering>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ModelExec {
    pub(super) fn try_new(
        input: Arc<dyn ExecutionPlan>,
        calls: Arc<[ExecCall]>,
        models: Arc<Models>,
        pace: Pace,
        order: Option<LexOrdering>,
    ) -> DataFusionResult<Self> {
        let input_schema = input.schema();
        let results =
            calls.iter().map(|call| Arc::new(Field::new(&call.column, call.operation.function().output_type(), true)));
        let fields: Vec<_> = input_schema.fields().iter().cloned().chain(results).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, input_schema.metadata().clone()));
        // Input columns keep their places, so what is known about them (sort order, constants) stays known.
        let places: Vec<usize> = (0..input_schema.fields().len()).collect();
        let mapping = ProjectionMapping::from_indices(&places, &input_schema)?;
        let properties = PlanProperties::new(
            input.equivalence_properties().project(&mapping, schema),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { input, calls, models, pace, order, properties: Arc::new(properties), metrics })
    }
}

impl DisplayAs for ModelExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelExec: ")?;
        for (i, call) in self.calls.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            let args: Vec<String> = call.args.iter().map(ToString::to_string).collect();
            write_call(f, &call.column, &call.operation, &call.model, &args)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for ModelExec {
    fn name(&self) -> &str {
        "ModelExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        for arg in self.calls.iter().flat_map(|call| &call.args) {
            if visit(arg)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.order.clone().map(OrderingRequirements::from)]
    }

    /// More partitions do not make the model faster: it batches over all of them anyway.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.into_iter().next() else {
            return Err(Error::internal("ModelExec", "it has one input").into());
        };
        let (calls, models) = (Arc::clone(&self.calls), Arc::clone(&self.models));
        Ok(Arc::new(Self::try_new(input, calls, models, self.pace, self.order.clone())?))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let memory = MemoryConsumer::new(format!("ModelExec[{partition}]")).register(context.memory_pool());
        let worker = Arc::new(Worker {
            calls: Arc::clone(&self.calls),
            models: Arc::clone(&self.models),
            loaded: OnceCell::new(),
            schema: self.schema(),
            metrics: ModelMetrics::new(&self.metrics, partition),
        });
        let loader = Arc::clone(&worker);
        let answered = micro_batches(input, self.pace.first, self.pace.most, memory.new_empty())
            // One after the other, so that the first row loads the models (no row, no loading) and the model gets the
            // micro-batches in order.
            .and_then(move |batch| {
                let worker = Arc::clone(&loader);
                async move { Ok((batch, worker.loaded().await?)) }
            })
            .map_ok(move |(batch, models)| {
                let (worker, memory) = (Arc::clone(&worker), memory.new_empty());
                async move { Ok(worker.answer(batch, &models, memory).await?) }
            })
            .try_buffered(self.pace.in_flight);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), answered.boxed())))
    }
}

/// What every micro-batch of a partition needs.
struct Worker {
    calls: Arc<[ExecCall]>,
    models: Arc<Models>,
    loaded: OnceCell<Arc<[Loaded]>>,
    schema: SchemaRef,
    metrics: ModelMetrics,
}

/// The model of one call, and the tokens of its choices.
struct Loaded {
    model: Arc<dyn Inference>,
    choices: Vec<u32>,
}

impl Worker {
    /// The models of the calls, in their order.
    async fn loaded(&self) -> Result<Arc<[Loaded]>> {
        let load = async {
            let _timer = self.metrics.load_time.timer();
            let mut loaded = Vec::with_capacity(self.calls.len());
            for call in self.calls.iter() {
                let model = self.models.get(&call.model).await?;
                let choices = match &call.operation {
                    Operation::ChoiceLogits { choices } => {
                        requests::choice_tokens(choices, &call.model, model.tokenizer())?
                    }
                    _ => Vec::new(),
                };
                loaded.push(Loaded { model, choices });
            }
            Ok(loaded.into())
        };
        self.loaded.get_or_try_init(|| load).await.cloned()
    }

    /// The batch with its result columns. `memory` holds its bytes and the largest answer it can get until it leaves
    /// the operator.
    async fn answer(&self, batch: RecordBatch, models: &[Loaded], memory: MemoryReservation) -> Result<RecordBatch> {
        memory.try_grow(batch.get_array_memory_size() + batch.num_rows().saturating_mul(self.bytes_per_row()))?;
        let calls = self.calls.iter().zip(models);
        let results = try_join_all(calls.map(|(call, loaded)| self.call(call, loaded, &batch))).await?;
        let columns = batch.columns().iter().cloned().chain(results).collect();
        let answered = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.metrics.baseline.record_output(answered.num_rows());
        Ok(answered)
    }

    async fn call(&self, call: &ExecCall, loaded: &Loaded, batch: &RecordBatch) -> Result<ArrayRef> {
        let asked = {
            let _timer = self.metrics.baseline.elapsed_compute().timer();
            let mut args = Vec::with_capacity(call.args.len());
            for arg in &call.args {
                args.push(arg.evaluate(batch)?.into_array(batch.num_rows())?);
            }
            requests::ask(&call.operation, &args, &loaded.choices, loaded.model.as_ref(), &self.metrics)?
        };
        let outputs = if asked.requests.is_empty() {
            Vec::new()
        } else {
            let _timer = self.metrics.model_time.timer();
            loaded.model.submit(asked.requests).await?
        };
        let _timer = self.metrics.baseline.elapsed_compute().timer();
        answers::column(&call.operation, &asked.rows, outputs, &self.metrics)
    }

    /// Bytes a row's answers take at most, as far as it is known: an id, a log-probability and some text per token.
    fn bytes_per_row(&self) -> usize {
        let bytes = self.calls.iter().map(|call| match &call.operation {
            Operation::Generate { sampling, .. } => sampling.max_tokens.saturating_mul(24),
            Operation::ChoiceLogits { choices } => choices.len() * 8,
            Operation::Reward => 8,
            Operation::Logprobs => 1024,
        });
        bytes.fold(0, usize::saturating_add)
    }
}
