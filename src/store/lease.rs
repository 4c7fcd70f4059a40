//! Leases: who works on what, so that two runners on one store do not do the same work.
//!
//! In: the name of a piece of work. Out: a [`Lease`] for one of those who ask, and for the others who holds it.
//!
//! ```text
//! leases/<work>/00001.json    holder, beat 0, 1, 2, ...     the highest number holds
//!               00002.json    whoever found 00001 at rest for its `seconds`
//! ```
//! The next number is created with a conditional put, so one of many gets it; the holder overwrites its own object
//! every few seconds with a higher beat. Whoever waits compares what it reads with what it read before, by its own
//! monotonic clock: no two clocks are ever compared. A holder that is a dead process of this very machine is
//! followed at once. The end of the work deletes the object.
//!
//! A lease saves work; nothing is right because of it. Versions are content-addressed and commit with a conditional
//! put, so two holders at once (after a network that was away, a machine that slept) write the same bytes twice. A
//! holder that finds a higher number, or its own object gone, has lost and stops at its next commit.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::history::now;
use super::manifest::FORMAT;
use super::{Holder, Store};
use crate::{Error, Result};

/// The folder of all leases.
pub(super) const FOLDER: &str = "leases";
/// How long an object at rest still holds, in seconds; `SALMON_LEASE_SECONDS` sets it for this process.
const SECONDS: f64 = 30.0;
/// Beats within that time: some may come late or fail.
const BEATS: f64 = 6.0;
/// How long the end of a lease may take on a store that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an object below `leases/` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Object {
    format: u64,
    work: String,
    holder: Holder,
    /// UTC, for people.
    began: String,
    /// How long it holds after its last beat.
    seconds: f64,
    beat: u64,
    /// Versions that the work needs or makes, which nobody may remove meanwhile.
    #[serde(default)]
    keeps: Vec<String>,
}

/// Who asks for a lease, and what it saw so far.
#[derive(Debug)]
pub struct Claim {
    store: Store,
    work: String,
    holder: Holder,
    keeps: Vec<String>,
    /// The highest number, its bytes, and since when they are at rest.
    seen: Option<(u64, Bytes, Instant)>,
}

impl Claim {
    /// A claim to `work`, a stage's name and a fingerprint for example.
    pub fn new(store: &Store, work: impl Into<String>) -> Self {
        Claim { store: store.clone(), work: work.into(), holder: Holder::this(), keeps: Vec::new(), seen: None }
    }

    /// A claim that no other process has: a run says with it which versions it needs.
    pub fn own(store: &Store, prefix: &str, keeps: Vec<String>) -> Self {
        let claim = Claim::new(store, "");
        Claim { work: format!("{prefix}-{}", claim.holder.nonce), keeps, ..claim }
    }

    /// Takes the lease, or says who holds it. Ask again after a while.
    ///
    /// # Errors
    /// A store error.
    pub async fn take(&mut self) -> Result<std::result::Result<Lease, String>> {
        let number = match self.next().await? {
            Ok(number) => number,
            Err(holder) => return Ok(Err(holder)),
        };
        let object = Object {
            format: FORMAT,
            work: self.work.clone(),
            holder: self.holder.clone(),
            began: now(),
            seconds: seconds(),
            beat: 0,
            keeps: self.keeps.clone(),
        };
        if !self.store.put_if_absent(&self.key(number), text(&object)?).await? && !self.is_mine(number).await? {
            return Ok(Err("another process".into()));
        }
        for older in numbers(&self.store, &self.work).await?.into_iter().filter(|&older| older < number) {
            self.store.delete(&self.key(older)).await?;
        }
        self.seen = None;
        Ok(Ok(Lease::begin(&self.store, self.key(number), number, object)))
    }

    /// Who holds the lease, without taking it.
    ///
    /// # Errors
    /// A store error.
    pub async fn holder(&mut self) -> Result<Option<String>> {
        Ok(self.next().await?.err())
    }

    /// The number to take, or who holds the one below it.
    async fn next(&mut self) -> Result<std::result::Result<u64, String>> {
        let Some(number) = numbers(&self.store, &self.work).await?.last().copied() else { return Ok(Ok(1)) };
        let Some(bytes) = self.store.get(&self.key(number)).await? else {
            // It ended between both requests.
            return Ok(Ok(number + 1));
        };
        let object: Option<Object> = serde_json::from_slice(&bytes).ok();
        if object.as_ref().is_some_and(|object| object.holder.is_dead()) {
            return Ok(Ok(number + 1));
        }
        let lasts = object.as_ref().map_or_else(seconds, |object| sane(object.seconds));
        match &self.seen {
            Some((at, before, since)) if *at == number && *before == bytes => {
                if since.elapsed().as_secs_f64() >= lasts {
                    return Ok(Ok(number + 1));
                }
            }
            _ => self.seen = Some((number, bytes, Instant::now())),
        }
        Ok(Err(object.map_or_else(|| "another process".into(), |object| object.holder.to_string())))
    }

    /// Whether a put that seemed to come too late was this claim's own, whose answer was lost.
    async fn is_mine(&self, number: u64) -> Result<bool> {
        is_of(&self.store, &self.key(number), &self.holder.nonce).await
    }

    fn key(&self, number: u64) -> String {
        key(&self.work, number)
    }
}

/// A lease that is held: it beats until it is released or dropped.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    key: String,
    lost: watch::Sender<bool>,
    end: watch::Sender<bool>,
    beating: Option<JoinHandle<()>>,
    nonce: String,
}

impl Lease {
    fn begin(store: &Store, key: String, number: u64, object: Object) -> Self {
        let (lost, end) = (watch::Sender::new(false), watch::Sender::new(false));
        let nonce = object.holder.nonce.clone();
        let beating = tokio::spawn(beat(store.clone(), number, object, lost.clone(), end.subscribe()));
        Lease { store: store.clone(), key, lost, end, beating: Some(beating), nonce }
    }

    /// Whether somebody else took the work over.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Turns true when somebody else takes the work over.
    pub fn lost(&self) -> watch::Sender<bool> {
        self.lost.clone()
    }

    /// Ends the lease. A store that does not answer is not waited for: the lease expires then.
    pub async fn release(mut self) {
        self.end.send_replace(true);
        let (store, key, nonce) = (self.store.clone(), self.key.clone(), self.nonce.clone());
        let beating = self.beating.take();
        let end = async move {
            // A beat under way must not come after the end.
            if let Some(beating) = beating {
                let _ = beating.await;
            }
            // One that was lost is somebody else's by now, or gone.
            if is_of(&store, &key, &nonce).await? { remove(&store, &key).await } else { Ok(()) }
        };
        match tokio::time::timeout(PATIENCE, end).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!("a lease was not ended and will expire: {e}"),
            Err(_) => {
                tracing::warn!("{}: the store does not answer; the lease will expire", self.store.name_of(&self.key))
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(beating) = &self.beating {
            beating.abort();
        }
    }
}

async fn beat(
    store: Store,
    number: u64,
    mut object: Object,
    lost: watch::Sender<bool>,
    mut end: watch::Receiver<bool>,
) {
    let every = Duration::from_secs_f64(object.seconds / BEATS);
    let key = key(&object.work, number);
    loop {
        tokio::select! {
            _ = end.wait_for(|end| *end) => return,
            () = tokio::time::sleep(every) => {}
        }
        let beaten = async {
            let higher = numbers(&store, &object.work).await?.into_iter().any(|other| other > number);
            if higher || !is_of(&store, &key, &object.holder.nonce).await? {
                return Ok(false);
            }
            object.beat += 1;
            store.put(&key, text(&object)?).await.map(|()| true)
        };
        match beaten.await {
            Ok(true) => {}
            Ok(false) => {
                lost.send_replace(true);
                return;
            }
            Err::<_, Error>(e) => tracing::warn!("a lease was not renewed: {e}"),
        }
    }
}

/// A lease as somebody finds it who only looks.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// What is worked on.
    pub work: String,
    /// Who holds it, when the object can be read.
    pub holder: Option<Holder>,
    /// Versions that must stay, as their prefixes.
    pub keeps: Vec<String>,
    /// When it was last renewed, by the store's clock.
    pub modified: SystemTime,
}

/// All leases of a run.
///
/// # Errors
/// A store error when they cannot be read.
pub async fn leases(store: &Store) -> Result<Vec<Found>> {
    let read = |entry: super::Entry| async move {
        let Some(bytes) = store.get(&entry.key).await? else { return Ok(None) };
        let object: Option<Object> = serde_json::from_slice(&bytes).ok();
        let work = entry.key.split('/').nth(1).unwrap_or_default().to_string();
        let (holder, keeps) = object.map_or((None, Vec::new()), |object| (Some(object.holder), object.keeps));
        Ok(Some(Found { key: entry.key, size: entry.size, work, holder, keeps, modified: entry.modified }))
    };
    Ok(Store::each(store.list(FOLDER).await?, read).await?.into_iter().flatten().collect())
}

/// Removes the leases of this machine's dead processes.
///
/// # Errors
/// A store error.
pub async fn bury_dead(store: &Store) -> Result<()> {
    for found in leases(store).await? {
        if found.holder.is_some_and(|holder| holder.is_dead()) {
            remove(store, &found.key).await?;
        }
    }
    Ok(())
}

/// Deletes an object and, on a disk, the folder it leaves empty.
pub(super) async fn remove(store: &Store, key: &str) -> Result<()> {
    store.delete(key).await?;
    // Fails where it is not empty, which is as well.
    let mut folder = store.file(key);
    for _ in 0..2 {
        folder = folder.and_then(|path| path.parent().map(|parent| parent.to_path_buf()));
        if let Some(path) = &folder {
            let _ = std::fs::remove_dir(path);
        }
    }
    Ok(())
}

async fn is_of(store: &Store, key: &str, nonce: &str) -> Result<bool> {
    let bytes = store.get(key).await?.unwrap_or_default();
    Ok(serde_json::from_slice::<Object>(&bytes).is_ok_and(|object| object.holder.nonce == nonce))
}

/// The numbers of a work's leases, ascending.
async fn numbers(store: &Store, work: &str) -> Result<Vec<u64>> {
    let listed = store.list(&format!("{FOLDER}/{work}")).await?;
    let number = |key: &str| key.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
    let mut numbers: Vec<u64> = listed.iter().filter_map(|entry| number(&entry.key)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn key(work: &str, number: u64) -> String {
    format!("{FOLDER}/{work}/{number:05}.json")
}

fn text(object: &Object) -> Result<String> {
    serde_json::to_string_pretty(object).map_err(|e| Error::internal("store", "a lease").because(e))
}

/// This process's expiry time.
fn seconds() -> f64 {
    let set = std::env::var("SALMON_LEASE_SECONDS").ok().and_then(|text| text.parse().ok());
    set.map_or(SECONDS, sane)
}

/// An expiry time of somebody else must neither be missed nor keep everybody waiting.
fn sane(seconds: f64) -> f64 {
    if seconds.is_finite() { seconds.clamp(0.5, 3600.0) } else { SECONDS }
}
