//! A statement that is planned once and run many times, over a table whose rows change in between.
//!
//! ```text
//! SQL, parameters ─> physical plan ─┬─> run ─> rows
//!                                   ├─> run ─> rows          the plan reads a [`LiveTable`] when it runs,
//!            LiveTable.set(rows) ───┴─> run ─> rows          not when it is made
//! ```
//! In: a statement, its parameters, and the rows of the live table. Out: the result as one record batch per run.
//! PPO runs one statement hundreds of times; planning it takes as long as a small model takes to answer.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;

use super::listing::put;
use super::params::{Params, sql};
use crate::Result;

/// A statement with its plan.
pub struct Prepared {
    task: Arc<TaskContext>,
    plan: Arc<dyn ExecutionPlan>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Plans a query; tables and models are those that the session has now.
    ///
    /// # Errors
    /// As [`sql`].
    pub async fn new(context: &SessionContext, text: &str, params: &Params) -> Result<Self> {
        let frame = sql(context, text, params).await?;
        let task = Arc::new(frame.task_ctx());
        Ok(Prepared { task, plan: frame.create_physical_plan().await? })
    }

    /// Runs it over what its tables hold now.
    ///
    /// # Errors
    /// Those of the operators and models.
    pub async fn run(&self) -> Result<RecordBatch> {
        // What operators keep from a run (build sides of joins, channels between partitions) serves that run only.
        let plan = reset_plan_states(Arc::clone(&self.plan))?;
        let batches = collect(plan, Arc::clone(&self.task)).await?;
        // Of the batches, because a plan calls columns nullable that the rows' own schema does not, or the reverse.
        let schema = batches.first().map_or_else(|| self.plan.schema(), RecordBatch::schema);
        Ok(concat_batches(&schema, &batches)?)
    }
}

/// A table of one record batch, which can be replaced between runs of a plan that reads it.
#[derive(Debug, Clone)]
pub struct LiveTable(Arc<Rows>);

#[derive(Debug)]
struct Rows {
    schema: SchemaRef,
    batch: Mutex<RecordBatch>,
}

impl LiveTable {
    /// An empty table of that name, in place of one that has it.
    ///
    /// # Errors
    /// Where the session refuses the name.
    pub fn register(context: &SessionContext, name: &str, schema: Schema) -> Result<Self> {
        let schema = Arc::new(schema);
        let batch = Mutex::new(RecordBatch::new_empty(Arc::clone(&schema)));
        let rows = Arc::new(Rows { schema: Arc::clone(&schema), batch });
        let partition: Arc<dyn PartitionStream> = Arc::clone(&rows) as _;
        put(context, name, Arc::new(StreamingTable::try_new(schema, vec![partition])?))?;
        Ok(LiveTable(rows))
    }

    /// Replaces the rows.
    pub fn set(&self, batch: RecordBatch) {
        *self.0.batch.lock().unwrap_or_else(PoisonError::into_inner) = batch;
    }
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rows = futures::stream::iter([Ok(batch)]);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}
