//! One streaming write.
//!
//! In: chunks of bytes. Out: one object that appears all at once, with its size and checksum. Small objects are
//! one request; larger ones go up in equal parts of 8 MiB, at most four of them in flight. An upload that fails or
//! is dropped is aborted, so that no multipart orphan stays behind (a process that is killed cannot do that: give
//! the bucket a lifecycle rule that removes incomplete uploads).

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::task::JoinSet;

use super::{Digest, fault};
use crate::{Error, Result};

/// Size of one part; S3 allows 10,000 of them, so an object may have 80 GB.
const PART: usize = 8 << 20;
/// Parts in flight.
const CONCURRENT: usize = 4;

/// A write in progress; [`Upload::finish`] makes it an object.
#[derive(Debug)]
pub struct Upload {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    name: String,
    hasher: blake3::Hasher,
    /// The part being filled, less than [`PART`] bytes.
    filling: Vec<Bytes>,
    filled: usize,
    /// Started with the first full part.
    multipart: Option<Box<dyn MultipartUpload>>,
    sending: JoinSet<object_store::Result<()>>,
}

impl Upload {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, path: Path, name: String) -> Self {
        Upload {
            objects,
            path,
            name,
            hasher: blake3::Hasher::new(),
            filling: Vec::new(),
            filled: 0,
            multipart: None,
            sending: JoinSet::new(),
        }
    }

    /// Adds bytes; waits while too many parts are in flight.
    ///
    /// # Errors
    /// A store error; the upload is aborted then.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.hasher.update(&bytes);
        while self.filled + bytes.len() >= PART {
            self.filling.push(bytes.split_to(PART - self.filled));
            self.send().await?;
        }
        self.filled += bytes.len();
        self.filling.push(bytes);
        Ok(())
    }

    /// Sends the part that was being filled.
    async fn send(&mut self) -> Result<()> {
        self.filled = 0;
        let part = PutPayload::from_iter(std::mem::take(&mut self.filling));
        self.wait(CONCURRENT).await?;
        if self.multipart.is_none() {
            let started = self.objects.put_multipart(&self.path).await;
            self.multipart = Some(started.map_err(|e| fault::object(&self.name, "writing", &e))?);
        }
        if let Some(multipart) = &mut self.multipart {
            self.sending.spawn(multipart.put_part(part));
        }
        Ok(())
    }

    /// Waits until fewer than `limit` parts are in flight.
    async fn wait(&mut self, limit: usize) -> Result<()> {
        while self.sending.len() >= limit {
            match self.sending.join_next().await {
                None | Some(Ok(Ok(()))) => {}
                Some(Ok(Err(e))) => return Err(self.abort(&e).await),
                Some(Err(e)) => return Err(self.abort(&e.into()).await),
            }
        }
        Ok(())
    }

    /// Publishes the object and says what it holds.
    ///
    /// # Errors
    /// A store error; nothing is visible then.
    pub async fn finish(mut self) -> Result<Digest> {
        if self.multipart.is_none() {
            let whole = PutPayload::from_iter(std::mem::take(&mut self.filling));
            let put = self.objects.put(&self.path, whole).await;
            put.map_err(|e| fault::object(&self.name, "writing", &e))?;
            return Ok(Digest::of(&self.hasher));
        }
        if self.filled > 0 {
            self.send().await?;
        }
        self.wait(1).await?;
        let Some(multipart) = &mut self.multipart else {
            return Err(Error::internal(&self.name, "this upload has ended"));
        };
        match multipart.complete().await {
            Ok(_) => self.multipart = None,
            Err(e) => return Err(self.abort(&e).await),
        }
        Ok(Digest::of(&self.hasher))
    }

    async fn abort(&mut self, error: &object_store::Error) -> Error {
        self.sending.shutdown().await;
        if let Some(mut multipart) = self.multipart.take() {
            // The first failure is the one to report.
            let _ = multipart.abort().await;
        }
        fault::object(&self.name, "writing", error)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(mut multipart), Ok(runtime)) = (self.multipart.take(), tokio::runtime::Handle::try_current()) {
            let mut sending = std::mem::take(&mut self.sending);
            runtime.spawn(async move {
                sending.shutdown().await;
                let _ = multipart.abort().await;
            });
        }
    }
}
