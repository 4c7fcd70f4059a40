//! The logical operator: its input's columns, and one more per model call.
//!
//! In: a plan with columns `a, b`. Out: `a, b, __model_0, ...`, one row per input row, in input order.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use super::call::ModelCall;

/// Computes `calls` for each row of `input`.
#[derive(Debug, Clone)]
pub(super) struct ModelNode {
    pub(super) input: LogicalPlan,
    pub(super) calls: Vec<ModelCall>,
    schema: DFSchemaRef,
}

impl ModelNode {
    pub(super) fn try_new(input: LogicalPlan, calls: Vec<ModelCall>) -> DataFusionResult<Self> {
        let results = calls.iter().map(|call| (None, Arc::new(field(call))));
        let fields = input.schema().iter().map(|(table, field)| (table.cloned(), Arc::clone(field)));
        let metadata = input.schema().metadata().clone();
        let schema = Arc::new(DFSchema::new_with_metadata(fields.chain(results).collect(), metadata)?);
        Ok(Self { input, calls, schema })
    }

    /// The node, if `plan` is one.
    pub(super) fn of(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// Whether `name` is a result of this node rather than a column of its input.
    pub(super) fn computes(&self, name: &str) -> bool {
        self.calls.iter().any(|call| call.column == name)
    }
}

fn field(call: &ModelCall) -> Field {
    Field::new(&call.column, call.operation.function().output_type(), true)
}

impl UserDefinedLogicalNodeCore for ModelNode {
    fn name(&self) -> &str {
        "Model"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.calls.iter().flat_map(|call| call.args.iter().cloned()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Model: ")?;
        for (i, call) in self.calls.iter().enumerate() {
            write!(f, "{}{call}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DataFusionResult<Self> {
        let wrong = || datafusion::error::DataFusionError::from(crate::Error::internal("Model", "wrong arity"));
        let mut exprs = exprs.into_iter();
        let mut calls = self.calls.clone();
        for arg in calls.iter_mut().flat_map(|call| &mut call.args) {
            *arg = exprs.next().ok_or_else(wrong)?;
        }
        let input = inputs.into_iter().next().ok_or_else(wrong)?;
        Self::try_new(input, calls)
    }

    /// A filter on a result stays above; one on input columns goes below and saves model time.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.calls.iter().map(|call| call.column.clone()).collect()
    }

    /// Input columns that nobody above reads are not carried along (the arguments' own are added by the caller).
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let inputs = self.input.schema().fields().len();
        Some(vec![output_columns.iter().copied().filter(|column| *column < inputs).collect()])
    }

    /// One row out per row in: the first n results need the first n rows only.
    fn supports_limit_pushdown(&self) -> bool {
        true
    }
}

// The schema follows from input and calls.
impl PartialEq for ModelNode {
    fn eq(&self, other: &Self) -> bool {
        self.calls == other.calls && self.input == other.input
    }
}

impl Eq for ModelNode {}

impl Hash for ModelNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.calls.hash(state);
    }
}

impl PartialOrd for ModelNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}
