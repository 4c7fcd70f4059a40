//! Cuts a stream of record batches into the micro-batches that go to a model.
//!
//! In: batches of any size. Out: batches of `first` rows, then twice as many each time up to `most`; the last one
//! may be shorter. Early rows come out early, later ones in pieces that keep the model busy.

use std::collections::VecDeque;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::stream::{self, Fuse, Stream, StreamExt};

/// The micro-batches of `input`; rows that wait here are counted in `memory`.
pub(super) fn micro_batches(
    input: SendableRecordBatchStream,
    first: usize,
    most: usize,
    memory: MemoryReservation,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let state = Waiting { input: input.fuse(), batches: VecDeque::new(), rows: 0, target: first, most, memory };
    stream::try_unfold(state, |mut state| async move { Ok(state.next().await?.map(|batch| (batch, state))) })
}

struct Waiting {
    input: Fuse<SendableRecordBatchStream>,
    /// What is left of each batch, and the bytes the whole batch was counted with.
    batches: VecDeque<(RecordBatch, usize)>,
    rows: usize,
    target: usize,
    most: usize,
    memory: MemoryReservation,
}

impl Waiting {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.rows < self.target {
            let Some(batch) = self.input.next().await else { break };
            let batch = batch?;
            if batch.num_rows() > 0 {
                let bytes = batch.get_array_memory_size();
                self.memory.try_grow(bytes)?;
                self.rows += batch.num_rows();
                self.batches.push_back((batch, bytes));
            }
        }
        let rows = self.target.min(self.rows);
        if rows == 0 {
            return Ok(None);
        }
        self.target = (self.target * 2).min(self.most);
        self.take(rows).map(Some)
    }

    fn take(&mut self, rows: usize) -> Result<RecordBatch> {
        self.rows -= rows;
        let mut parts: Vec<RecordBatch> = Vec::new();
        let mut missing = rows;
        while missing > 0 {
            let Some((batch, bytes)) = self.batches.pop_front() else { break };
            if batch.num_rows() <= missing {
                missing -= batch.num_rows();
                self.memory.shrink(bytes);
                parts.push(batch);
            } else {
                // Copied: a slice would keep the whole batch alive, and operators above would count all of it
                // for every micro-batch.
                parts.push(take_record_batch(&batch, &UInt32Array::from_iter_values(0..missing as u32))?);
                let rest = batch.slice(missing, batch.num_rows() - missing);
                self.batches.push_front((rest, bytes));
                missing = 0;
            }
        }
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            [first, ..] => Ok(concat_batches(&first.schema(), &parts)?),
            [] => Err(crate::Error::internal("micro-batch", "rows were lost").into()),
        }
    }
}
