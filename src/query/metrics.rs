//! What `EXPLAIN ANALYZE` shows of a model operator.
//!
//! In: events while it runs. Out: metrics per partition, summed by DataFusion.

use std::sync::Arc;

use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, Time};

/// The metrics of one partition.
#[derive(Debug, Clone)]
pub(super) struct ModelMetrics {
    /// `output_rows`, and `elapsed_compute`: encoding prompts and building arrays, without the model.
    pub(super) baseline: Arc<BaselineMetrics>,
    /// Requests sent to models.
    pub(super) requests: Count,
    /// Tokens of the prompts sent (of the responses too, for `logprobs`).
    pub(super) prompt_tokens: Count,
    /// Tokens sampled.
    pub(super) sampled_tokens: Count,
    /// Rows whose prompt does not fit the model's context.
    pub(super) too_long: Count,
    /// From sending a micro-batch to its answer, summed over the micro-batches (several are under way at once).
    pub(super) model_time: Time,
    /// Loading models.
    pub(super) load_time: Time,
}

impl ModelMetrics {
    pub(super) fn new(set: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let count = |name: &'static str| MetricBuilder::new(set).counter(name, partition);
        let time = |name: &'static str| MetricBuilder::new(set).subset_time(name, partition);
        Self {
            baseline: Arc::new(BaselineMetrics::new(set, partition)),
            requests: count("requests"),
            prompt_tokens: count("prompt_tokens"),
            sampled_tokens: count("sampled_tokens"),
            too_long: count("too_long"),
            model_time: time("model_time"),
            load_time: time("load_time"),
        }
    }
}
