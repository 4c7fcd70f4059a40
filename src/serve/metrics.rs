//! What the server counts.
//!
//! In: connections, refused tokens and queries. Out: the text that Prometheus reads.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper ends of the buckets of durations, in seconds.
const BUCKETS: [f64; 9] = [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 25.0, 100.0, 300.0];

#[derive(Debug, Default)]
pub(super) struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    connections: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
    queries: BTreeMap<(&'static str, &'static str), u64>,
    rows: u64,
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
    ended: u64,
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Open {
    metrics: Arc<Metrics>,
    protocol: &'static str,
}

impl Drop for Open {
    fn drop(&mut self) {
        *self.metrics.counts().connections.entry(self.protocol).or_default() -= 1;
    }
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connected(self: &Arc<Self>, protocol: &'static str) -> Open {
        *self.counts().connections.entry(protocol).or_default() += 1;
        Open { metrics: Arc::clone(self), protocol }
    }

    pub(super) fn refused(&self, protocol: &'static str) {
        *self.counts().refused.entry(protocol).or_default() += 1;
    }

    pub(super) fn ended(&self, protocol: &'static str, status: &'static str, rows: u64, took: Duration) {
        let mut counts = self.counts();
        *counts.queries.entry((protocol, status)).or_default() += 1;
        counts.rows += rows;
        counts.ended += 1;
        counts.seconds += took.as_secs_f64();
        for (bucket, end) in counts.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(took.as_secs_f64() <= end);
        }
    }

    /// Everything counted, and what the caller knows of this moment.
    pub(super) fn text(&self, running: usize, memory: usize, limit: usize) -> String {
        let counts = self.counts();
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(text, "# HELP salmon_{name} {help}\n# TYPE salmon_{name} {kind}");
        };
        head(&mut text, "queries_total", "counter", "Queries that ended, by protocol and how.");
        for ((protocol, status), count) in &counts.queries {
            let _ = writeln!(text, "salmon_queries_total{{protocol=\"{protocol}\",status=\"{status}\"}} {count}");
        }
        head(&mut text, "query_seconds", "histogram", "How long queries took, from arrival to the last row.");
        for (bucket, end) in counts.buckets.iter().zip(BUCKETS) {
            let _ = writeln!(text, "salmon_query_seconds_bucket{{le=\"{end}\"}} {bucket}");
        }
        let _ = writeln!(text, "salmon_query_seconds_bucket{{le=\"+Inf\"}} {}", counts.ended);
        let _ = writeln!(text, "salmon_query_seconds_sum {}", counts.seconds);
        let _ = writeln!(text, "salmon_query_seconds_count {}", counts.ended);
        head(&mut text, "rows_total", "counter", "Rows that were sent.");
        let _ = writeln!(text, "salmon_rows_total {}", counts.rows);
        head(&mut text, "refused_total", "counter", "Requests and connections without a valid token.");
        for (protocol, count) in &counts.refused {
            let _ = writeln!(text, "salmon_refused_total{{protocol=\"{protocol}\"}} {count}");
        }
        head(&mut text, "connections", "gauge", "Connections that are open.");
        for (protocol, count) in &counts.connections {
            let _ = writeln!(text, "salmon_connections{{protocol=\"{protocol}\"}} {count}");
        }
        head(&mut text, "queries_running", "gauge", "Queries that run now.");
        let _ = writeln!(text, "salmon_queries_running {running}");
        head(&mut text, "memory_bytes", "gauge", "Bytes of the memory pool that queries hold.");
        let _ = writeln!(text, "salmon_memory_bytes {memory}");
        head(&mut text, "memory_limit_bytes", "gauge", "Bytes of the memory pool.");
        let _ = writeln!(text, "salmon_memory_limit_bytes {limit}");
        text
    }
}
