//! Kills, restarts and comparisons on one kind of store.
//!
//! In: an uninterrupted run, a kind of store, a number of kills. Out: as many runs as it takes, each killed at moments
//! spread over all of it, looked at as a reader would after every kill, and compared at its end.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use salmon::draw::Key;
use salmon::store::Store;

use crate::Failure;
use crate::attempt::{Attempt, Ended, Reached, Trail};
use crate::check::{self, Committed};
use crate::clock::Clock;
use crate::place::{Configuration, Place};
use crate::plan::{Target, Timeline};
use crate::tally::Tally;
use crate::work::Work;

/// Kills in one run at most; then another one begins.
const PER_RUN: usize = 16;
/// Attempts in a row that faults may end before that is called a failure.
const PATIENCE: usize = 20;
/// A stop has so many seconds.
const STOP: f64 = 10.0;

/// What all campaigns of one configuration share.
pub struct World {
    /// The real program.
    pub salmon: PathBuf,
    /// Everything that chaos writes.
    pub scratch: PathBuf,
    /// For the checks.
    pub runtime: tokio::runtime::Handle,
    /// The configuration.
    pub configuration: Configuration,
    /// What the uninterrupted run took.
    pub timeline: Timeline,
    /// What it committed.
    pub wanted: Committed,
    /// Its rows that are there twice.
    pub repeated: BTreeMap<String, i64>,
    /// A wall clock that jumps, where one can be had.
    pub clock: Option<Clock>,
    /// Draws.
    pub key: Key,
}

/// A kind of store and what happens to it.
pub struct Kind<'a> {
    /// Its name.
    pub name: &'a str,
    /// Makes the place of run `n`.
    pub place: &'a dyn Fn(usize) -> Result<Place, Failure>,
    /// Every second run has a wall clock that jumps by so many seconds at most.
    pub jumps: u64,
    /// Whether an attempt may give up with an error of the store.
    pub faults: bool,
}

impl World {
    /// Makes the uninterrupted run on disk.
    pub fn new(
        name: &str,
        salmon: PathBuf,
        scratch: PathBuf,
        runtime: tokio::runtime::Handle,
        configuration: Configuration,
        key: Key,
    ) -> Result<World, Failure> {
        let place = Place::disk(name, scratch.join(name), &configuration)?;
        let mut attempt = Attempt::start(place.command(&salmon), place.log()?)?;
        let began = attempt.began;
        attempt.follow(None, |_| false)?;
        let ended = attempt.end(0)?;
        if !ended.status.success() {
            return Err(format!("the uninterrupted run fails: {} {:?}", ended.status, ended.trail.errors).into());
        }
        let timeline = Timeline::of(&ended.trail, began, Instant::now());
        let store = Store::open(&place.url)?;
        let (wanted, repeated) = runtime
            .block_on(async { Ok::<_, Failure>((check::committed(&store).await?, check::repeated(&store).await?)) })?;
        eprintln!(
            "chaos: {name}: {} stages, {} objects, {:.1} s",
            timeline.spans.len(),
            wanted.len(),
            timeline.before + timeline.seconds()
        );
        Ok(World { salmon, scratch, runtime, configuration, timeline, wanted, repeated, clock: None, key })
    }

    /// Starts runs and kills them until `kills` are used up.
    pub fn campaign(&self, kind: &Kind<'_>, kills: u64, tally: &mut Tally) -> Result<Work, Failure> {
        let (mut left, mut work, began) = (kills, Work::default(), Instant::now());
        let mut round = 0;
        while left > 0 {
            round += 1;
            let place = (kind.place)(round)?;
            let key = self.key.with(round as u64);
            let count = (left as usize).min(PER_RUN);
            let mut course =
                Course { world: self, kind, place: &place, key, round, attempts: 0, work: Work::default() };
            let before = tally.kills;
            for target in self.timeline.targets(key, count) {
                if course.kill(target, tally)? {
                    break;
                }
            }
            course.finish(tally)?;
            left -= tally.kills - before;
            work.add(course.work);
            tally.runs += 1;
            self.compare(&place, tally)?;
            eprintln!(
                "chaos: {}: {} of {kills} kills, {} runs, {} attempts given up, {:.0} s",
                kind.name,
                kills - left,
                round,
                tally.given_up,
                began.elapsed().as_secs_f64()
            );
        }
        Ok(work)
    }

    /// Looks at a run as a reader.
    pub fn look(&self, place: &Place, when: &str, tally: &mut Tally) -> Result<(), Failure> {
        let store = Store::open(&place.url)?;
        for line in self.runtime.block_on(check::half_visible(&store))? {
            eprintln!("chaos: HALF-VISIBLE in {}, {when}: {line}", place.name);
            tally.half_visible += 1;
        }
        Ok(())
    }

    /// Holds a finished run against the uninterrupted one; removes its folder when they are equal.
    pub fn compare(&self, place: &Place, tally: &mut Tally) -> Result<(), Failure> {
        let before = (tally.losses, tally.duplicates, tally.half_visible, tally.unexpected);
        self.look(place, "at its end", tally)?;
        let store = Store::open(&place.url)?;
        let found = self.runtime.block_on(check::committed(&store))?;
        for line in check::losses(&found, &self.wanted) {
            eprintln!("chaos: LOSS in {}: {line}", place.name);
            tally.losses += 1;
        }
        for (table, repeated) in self.runtime.block_on(check::repeated(&store))? {
            let more = repeated - self.repeated.get(&table).copied().unwrap_or(0);
            if more != 0 {
                eprintln!("chaos: DUPLICATES in {}: {more} rows of {table} are there twice", place.name);
                tally.duplicates += more.unsigned_abs();
            }
        }
        if before == (tally.losses, tally.duplicates, tally.half_visible, tally.unexpected) {
            std::fs::remove_dir_all(&place.folder)?;
            self.runtime.block_on(store.delete_below(""))?;
        }
        Ok(())
    }
}

/// One run from its first attempt to its end.
struct Course<'a> {
    world: &'a World,
    kind: &'a Kind<'a>,
    place: &'a Place,
    key: Key,
    round: usize,
    attempts: u64,
    work: Work,
}

impl Course<'_> {
    fn start(&mut self) -> Result<Attempt, Failure> {
        self.attempts += 1;
        let mut command = self.place.command(&self.world.salmon);
        if let (Some(clock), 0, true) = (&self.world.clock, self.round % 2, self.kind.jumps > 0) {
            command.envs(clock.variables(self.key.draw(self.attempts), self.kind.jumps));
        }
        Attempt::start(command, self.place.log()?)
    }

    /// Kills the run at one moment; true when it came to its end before.
    fn kill(&mut self, target: Target, tally: &mut Tally) -> Result<bool, Failure> {
        for _ in 0..PATIENCE {
            let mut attempt = self.start()?;
            let late = Duration::from_millis(self.key.with(self.attempts).below(0, 30));
            if self.wait(&mut attempt, target)? != Reached::Moment {
                // The stage is over: right behind its commit is a moment, too.
                attempt.follow(Some(Instant::now() + late), |_| false)?;
            }
            let ended = attempt.end(if target.ask { libc::SIGTERM } else { libc::SIGKILL })?;
            self.work.resumed(&ended.trail, &self.world.timeline);
            let when = format!("attempt {}", self.attempts);
            let stage = ended.trail.last().map(|stage| stage.name.as_str());
            if ended.killed() {
                tally.killed(stage);
                self.work.killed(&ended.trail);
                self.world.look(self.place, &when, tally)?;
                return Ok(false);
            }
            match ended.status.code() {
                Some(0) => return Ok(true),
                Some(75) if target.ask => {
                    tally.killed(stage);
                    tally.stops += 1;
                    tally.slowest = tally.slowest.max(ended.seconds);
                    if ended.seconds > STOP {
                        self.unexpected(&format!("a stop took {:.1} s", ended.seconds), tally);
                    }
                    self.world.look(self.place, &when, tally)?;
                    return Ok(false);
                }
                _ => self.gave_up(&ended, tally)?,
            }
        }
        Err(format!("{}: {PATIENCE} attempts in a row gave up", self.place.name).into())
    }

    /// Waits for the moment in its stage, or the stage's end.
    fn wait(&self, attempt: &mut Attempt, target: Target) -> Result<Reached, Failure> {
        let timeline = &self.world.timeline;
        let Some(stage) = target.stage else {
            let moment = attempt.began + Duration::from_secs_f64(timeline.before * target.part);
            return attempt.follow(Some(moment), |_| false);
        };
        let at = |trail: &Trail| trail.last().and_then(|stage| timeline.index(&stage.name));
        let reached = attempt.follow(None, |trail| at(trail).is_some_and(|index| index >= stage))?;
        if reached == Reached::End || at(&attempt.trail) != Some(stage) {
            return Ok(reached);
        }
        let began = attempt.trail.last().map_or(attempt.began, |stage| stage.began);
        let moment = began + Duration::from_secs_f64(timeline.spans[stage].seconds * target.part);
        attempt.follow(Some(moment), |trail| {
            at(trail) != Some(stage) || trail.last().is_some_and(|stage| stage.ended.is_some())
        })
    }

    /// Lets the run come to its end.
    fn finish(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        for _ in 0..PATIENCE {
            let ended = self.start()?.end(0)?;
            self.work.resumed(&ended.trail, &self.world.timeline);
            if ended.status.success() {
                return Ok(());
            }
            self.gave_up(&ended, tally)?;
        }
        Err(format!("{}: {PATIENCE} attempts in a row gave up", self.place.name).into())
    }

    /// An attempt that ended with an error of its own accord. With faults around it may, with one clear line.
    fn gave_up(&mut self, ended: &Ended, tally: &mut Tally) -> Result<(), Failure> {
        let what = format!("attempt {} ended with {}: {:?}", self.attempts, ended.status, ended.trail.errors);
        let store = ended.status.code() == Some(5) && ended.trail.errors.len() == 1;
        if !(self.kind.faults && store) {
            self.unexpected(&what, tally);
            if ended.status.signal().is_none() {
                // The same error would come again and again.
                return Err(format!("{}: {what}", self.place.name).into());
            }
        }
        tally.given_up += 1;
        eprintln!("chaos: {}: {what}", self.place.name);
        self.world.look(self.place, &format!("attempt {}", self.attempts), tally)
    }

    fn unexpected(&self, what: &str, tally: &mut Tally) {
        eprintln!("chaos: UNEXPECTED in {}: {what}", self.place.name);
        tally.unexpected += 1;
    }
}
