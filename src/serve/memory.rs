//! The memory that queries share.
//!
//! In: what DataFusion's operators ask for. Out: bytes of one pool for the whole server, and of it no more than its
//! token's share for one query. Who gets no more spills to disk where that is possible, and fails otherwise: the query,
//! not the server.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{DataFusionError, Result as SqlResult};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// One query's view of the server's pool.
#[derive(Debug)]
pub(super) struct QueryPool {
    pub(super) server: Arc<dyn MemoryPool>,
    /// Most bytes for this query.
    pub(super) limit: usize,
    held: AtomicUsize,
}

impl QueryPool {
    pub(super) fn new(server: Arc<dyn MemoryPool>, limit: usize) -> Self {
        QueryPool { server, limit, held: AtomicUsize::new(0) }
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query(limit: {} MiB)", self.limit >> 20)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.server.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.server.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.held.fetch_add(additional, Ordering::Relaxed);
        self.server.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.held.fetch_sub(shrink, Ordering::Relaxed);
        self.server.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> SqlResult<()> {
        let fits = |held: usize| held.checked_add(additional).filter(|sum| *sum <= self.limit);
        if self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            let name = reservation.consumer().name();
            let problem =
                format!("{name} needs more than the {} MiB that a query of this token may hold", self.limit >> 20);
            return Err(DataFusionError::ResourcesExhausted(problem));
        }
        self.server.try_grow(reservation, additional).inspect_err(|_| {
            self.held.fetch_sub(additional, Ordering::Relaxed);
        })
    }

    fn reserved(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}
