//! Several runners on one run: each stage is made by whoever holds its lease.
//!
//! In: stages with their fingerprints and states. Out: the same, all done, by this runner or by another one. A stage
//! that another live runner works on is put aside while a wanted stage whose inputs are there can run; when none
//! can, the runner waits for the other's commit, or for its lease to end.
//!
//! Two configurations have different fingerprints and so different versions, which never meet. What they share are
//! the pointers of `current/`: while both run, those are of both; at its end each run sets all of its own again, so
//! that they belong to one configuration, the one that finished last.

use std::sync::Arc;
use std::time::Duration;

use super::runner::{Resolved, changes, copy, execute, missing};
use super::{Graph, Options, Planned, Progress, State, Stop};
use crate::error::Kind;
use crate::store::{self, Claim, Current, Lease, Store, Version};
use crate::{Error, Result};

/// How long the first pause between two looks is; later ones are longer.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest one.
const LONGEST: Duration = Duration::from_secs(2);

/// One run among others.
pub(super) struct Turns<'a> {
    pub(super) graph: &'a Graph,
    pub(super) store: &'a Store,
    pub(super) options: &'a Options,
    pub(super) progress: &'a Arc<dyn Progress>,
    pub(super) stop: &'a Stop,
}

/// A stage that is not done, and the claim to it.
struct Open<'a> {
    resolved: Resolved<'a>,
    claim: Claim,
    /// Who holds it, once that was said.
    holder: Option<String>,
}

impl Turns<'_> {
    /// Says in the store which versions this run needs, so that nobody removes them; waits for whoever is removing.
    pub(super) async fn begin(&self, resolved: &[Resolved<'_>]) -> Result<Lease> {
        store::bury_dead(self.store).await?;
        let inputs = resolved.iter().flat_map(|r| r.inputs.values().flatten());
        let mut keeps: Vec<String> =
            inputs.chain(resolved.iter().flat_map(|r| r.outputs.values())).map(Version::prefix).collect();
        keeps.sort();
        keeps.dedup();
        let mut claim = Claim::own(self.store, "run", keeps);
        let lease = claim.take().await?.map_err(|_| Error::internal("store", "a lease of its own is held"))?;
        let mut removing = Claim::new(self.store, store::GC);
        let mut pause = SHORTEST;
        let mut said = false;
        while let Some(holder) = removing.holder().await? {
            if !std::mem::replace(&mut said, true) {
                self.progress.waiting("run", &format!("salmon gc, {holder}"));
            }
            if let Err(e) = self.rest("run", &mut pause).await {
                lease.release().await;
                return Err(e);
            }
        }
        Ok(lease)
    }

    /// Brings every stage up to date, then the pointers.
    pub(super) async fn all(&self, resolved: Vec<Resolved<'_>>, mut current: Current) -> Result<Vec<Planned>> {
        let mut open: Vec<Open<'_>> = Vec::with_capacity(resolved.len());
        for resolved in resolved {
            let work = format!("{}-{}", resolved.stage.name, resolved.fingerprint);
            open.push(Open { claim: Claim::new(self.store, work), resolved, holder: None });
        }
        let (mut done, mut pause) = (Vec::with_capacity(open.len()), SHORTEST);
        while !open.is_empty() {
            let Some((at, state)) = self.next(&mut open).await? else {
                let name = open.first().map_or("run", |first| first.resolved.stage.name.as_str());
                self.rest(&format!("stage {name}"), &mut pause).await?;
                continue;
            };
            pause = SHORTEST;
            let resolved = Resolved { state, ..open.remove(at).resolved };
            for artifact in resolved.outputs.keys() {
                current.set(self.store, artifact, &resolved.stage.name, &resolved.fingerprint).await?;
            }
            done.push(resolved);
        }
        self.settle(&done).await?;
        // A stage that was put aside comes where the graph has it.
        let place = |r: &Resolved<'_>| self.graph.stages().iter().position(|stage| stage.name == r.stage.name);
        done.sort_by_key(place);
        Ok(done.into_iter().map(Planned::from).collect())
    }

    /// Does the first stage that can be done now; `None` when others hold all that could be.
    async fn next(&self, open: &mut [Open<'_>]) -> Result<Option<(usize, State)>> {
        for at in 0..open.len() {
            if self.is_ready(open, at)
                && let Some(one) = open.get_mut(at)
                && let Some(state) = self.turn(one).await?
            {
                return Ok(Some((at, state)));
            }
        }
        Ok(None)
    }

    /// Whether no open stage makes an input of this one.
    fn is_ready(&self, open: &[Open<'_>], at: usize) -> bool {
        let Some(one) = open.get(at) else { return false };
        let makers = one.resolved.stage.inputs.iter().flat_map(|input| self.graph.makers(input));
        let names: Vec<&str> = makers.map(|&maker| self.graph.stages()[maker].name.as_str()).collect();
        !open.iter().any(|other| names.contains(&other.resolved.stage.name.as_str()))
    }

    /// Finds or makes one stage's versions; `None` when another runner is at it.
    async fn turn(&self, open: &mut Open<'_>) -> Result<Option<State>> {
        let (resolved, name) = (&open.resolved, &open.resolved.stage.name);
        if resolved.state == State::Cached {
            self.progress.cached(name);
            return Ok(Some(State::Cached));
        }
        self.stop.check(format!("stage {name}"))?;
        let lease = match open.claim.take().await? {
            Ok(lease) => lease,
            Err(holder) => {
                if open.holder.as_ref() != Some(&holder) {
                    self.progress.waiting(name, &holder);
                    open.holder = Some(holder);
                }
                return Ok(None);
            }
        };
        let made = self.make(resolved, &lease).await;
        let lost = lease.is_lost();
        lease.release().await;
        match made {
            // Its place was taken while it worked; the other one's work counts.
            Err(e) if e.kind() == Kind::Interrupted && lost && !self.stop.asked() => {
                self.progress.ended(name);
                tracing::warn!("stage {name}: another runner took it over, for this one did not renew its lease");
                Ok(None)
            }
            made => made.map(Some),
        }
    }

    /// Makes a stage's versions under its lease, unless another runner did meanwhile.
    async fn make(&self, resolved: &Resolved<'_>, lease: &Lease) -> Result<State> {
        let name = &resolved.stage.name;
        if !self.options.force.contains(name) && missing(self.store, &resolved.outputs).await? == 0 {
            self.progress.made_elsewhere(name);
            return Ok(State::Cached);
        }
        store::gc::sweep(self.store, resolved.outputs.values());
        let executed = match &resolved.state {
            State::Copy(from) => copy(resolved, from, self.store, self.options, self.progress).await,
            State::Run(why) => {
                self.progress.started(name, why);
                let stop = self.stop.or(lease.lost());
                execute(resolved, self.store, self.options, self.progress, &stop).await
            }
            State::Cached => Ok(()),
        };
        if !lease.is_lost() {
            executed.as_ref().inspect_err(|_| self.progress.ended(name)).ok();
        }
        executed.map(|()| resolved.state.clone())
    }

    /// Sets the pointers of all that was wanted again, one run at a time.
    async fn settle(&self, done: &[Resolved<'_>]) -> Result<()> {
        let current = Current::load(self.store).await?;
        if changes(self.graph, self.options, &current, done).is_empty() {
            return Ok(());
        }
        let (mut claim, mut pause) = (Claim::new(self.store, "current"), SHORTEST);
        let lease = loop {
            match claim.take().await? {
                Ok(lease) => break lease,
                Err(_) => self.rest("run", &mut pause).await?,
            }
        };
        let set = async {
            let mut current = Current::load(self.store).await?;
            for (artifact, stage, print) in changes(self.graph, self.options, &current, done) {
                match print {
                    Some(print) => current.set(self.store, &artifact, &stage, &print).await?,
                    None => current.remove(self.store, &artifact, &stage).await?,
                }
            }
            Ok(())
        };
        let set = set.await;
        lease.release().await;
        set
    }

    /// Waits a while, a longer one the next time.
    async fn rest(&self, place: &str, pause: &mut Duration) -> Result<()> {
        tokio::select! {
            () = self.stop.wait() => {}
            () = tokio::time::sleep(*pause) => {}
        }
        *pause = (*pause * 2).min(LONGEST);
        self.stop.check(place)
    }
}
