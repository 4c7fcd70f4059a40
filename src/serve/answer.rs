//! The rows of one query on their way to a client.
//!
//! In: what its thread sends. Out: a stream of batches. A query whose thread is gone without a last word has failed: a
//! short answer never looks like a whole one.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;
use tokio::sync::mpsc::Receiver;

use super::failure::{Failure, Why};

/// What a query's thread sends.
#[derive(Debug)]
pub(super) enum Message {
    Rows(RecordBatch),
    Failed(Failure),
    End,
}

/// Batches of one query. Dropping it ends the query.
#[derive(Debug)]
pub(super) struct Answer {
    /// The number of the query in the log, to cancel it by.
    pub(super) id: u64,
    pub(super) schema: SchemaRef,
    first: Option<RecordBatch>,
    receiver: Receiver<Message>,
    ended: bool,
}

impl Answer {
    /// Waits for the first batch, or the end.
    pub(super) async fn begin(id: u64, schema: SchemaRef, mut receiver: Receiver<Message>) -> Result<Self, Failure> {
        let (first, ended) = match receiver.recv().await {
            Some(Message::Rows(batch)) => (Some(batch), false),
            Some(Message::End) => (None, true),
            Some(Message::Failed(failure)) => return Err(failure),
            None => return Err(unexpected()),
        };
        // The plan's own idea of the columns may lack what the batches carry (metadata).
        let schema = first.as_ref().map_or(schema, RecordBatch::schema);
        Ok(Answer { id, schema, first, receiver, ended })
    }
}

fn unexpected() -> Failure {
    Failure::new(Why::Internal, "the query ended unexpectedly")
}

impl Stream for Answer {
    type Item = Result<RecordBatch, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(batch) = self.first.take() {
            return Poll::Ready(Some(Ok(batch)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let message = std::task::ready!(self.receiver.poll_recv(context));
        let item = match message {
            Some(Message::Rows(batch)) => return Poll::Ready(Some(Ok(batch))),
            Some(Message::End) => None,
            Some(Message::Failed(failure)) => Some(Err(failure)),
            None => Some(Err(unexpected())),
        };
        self.ended = true;
        Poll::Ready(item)
    }
}
