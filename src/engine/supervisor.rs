//! One projection in this process: its read model is made or recognised, and a runner works for each
//! partition that is this instance's share.
//!
//! It acts on what the instance sees ([`super::instance::Seen`]), which may be old: a claim that
//! comes too late gets nothing, and a runner whose checkpoint went elsewhere is fenced.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::instance::{Fenced, Seen};
use super::progress::Following;
use super::runner::{self, Build, Ended, Runner};
use super::state::Board;
use super::{Outcome, Settings, apply, divergence, setup};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::pg::checkpoint;
use crate::pg::database::Database;
use crate::pg::instance::{self, Observed, ObservedCheckpoint};
use crate::position::Position;
use crate::projection::DynProjection;
use crate::retry::{Verdict, delays, verdict};
use crate::runner_state::RunnerState;
use crate::source::Source;

mod layout;

use layout::{Layout, is_drained};

/// How soon it is looked again for a checkpoint that could not be had.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// What a supervisor is made of.
pub(super) struct Parts {
    pub(super) target: Database,
    pub(super) source: Arc<dyn Source>,
    pub(super) projection: Arc<dyn DynProjection>,
    pub(super) following: Following,
    /// The head that ends this run once every partition has passed it.
    pub(super) until: Option<Position>,
    pub(super) instance: Uuid,
    pub(super) seen: watch::Receiver<Seen>,
    /// Makes the instance look again.
    pub(super) nudge: Arc<Notify>,
    pub(super) settings: Settings,
    pub(super) board: Board,
    pub(super) fenced: Fenced,
    pub(super) turns: Arc<Semaphore>,
}

pub(super) struct Supervisor {
    parts: Parts,
    runners: JoinSet<(Place, Ended)>,
    layout: Layout,
    /// It was told that a pause is waited for.
    says_paused: bool,
}

/// Of which layout a runner is, and of which partition.
#[derive(Clone, Copy, Debug)]
struct Place {
    generation: i32,
    layout: i32,
    partition: i32,
}

impl Supervisor {
    pub(super) fn new(parts: Parts) -> Supervisor {
        Supervisor {
            runners: JoinSet::new(),
            layout: Layout::default(),
            parts,
            says_paused: false,
        }
    }

    /// Runs the live build until the end of the run, a stop, or an error that no retry mends.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Outcome {
        let outcome = match self.prepared(&stop).await {
            Ok(true) => self.supervise(&stop).await,
            Ok(false) => Outcome::Drained,
            Err(error) => Outcome::Stopped(error),
        };
        self.layout.end_all();
        while self.runners.join_next().await.is_some() {}
        self.parts.board.over();
        self.parts.nudge.notify_one();
        if let Outcome::Stopped(error) = &outcome {
            self.parts.board.failed(error);
            self.parts.board.set_state(RunnerState::Stopped);
        }
        outcome
    }

    /// Runs every partition of the generation that a rebuild fills. Nobody else does.
    pub(super) async fn run_next(mut self, generation: i32, stop: CancellationToken) -> Outcome {
        let partitions = match self.partitions_of(generation, &stop).await {
            Ok(Some(partitions)) => partitions,
            Ok(None) => return Outcome::Drained,
            Err(error) => return Outcome::Stopped(error),
        };
        for partition in 0..partitions {
            self.start(partition, Build::Next(generation), generation, &stop);
        }
        let mut outcome = Outcome::CaughtUp;
        while let Some(ended) = self.runners.join_next().await {
            match ended.map(|(_, ended)| ended) {
                Ok(Ended::CaughtUp) => {}
                Ok(Ended::Stopped(error) | Ended::Lost(error)) => {
                    self.layout.end_all();
                    outcome = Outcome::Stopped(error);
                }
                Ok(Ended::Drained | Ended::Relaid | Ended::Busy) | Err(_) => {
                    if !matches!(outcome, Outcome::Stopped(_)) {
                        outcome = Outcome::Drained;
                    }
                }
            }
        }
        outcome
    }

    async fn partitions_of(
        &self,
        generation: i32,
        stop: &CancellationToken,
    ) -> Result<Option<i32>> {
        let name = &self.parts.projection.definition().name;
        let asking = || async {
            let client = self.parts.target.short().await?;
            let reading = checkpoint::partitions(&client, name, generation);
            client.within(reading).await
        };
        self.persistently(stop, asking).await
    }

    /// Makes or recognises the read model. False if it was asked to stop before.
    async fn prepared(&mut self, stop: &CancellationToken) -> Result<bool> {
        let generation = match self.persistently(stop, || self.prepare()).await {
            Ok(Some(generation)) => generation,
            Ok(None) => return Ok(false),
            Err(error) => {
                tracing::error!(projection = %self.parts.projection.definition().name, error = %error, "stopped");
                self.report_unstarted(&error).await;
                return Err(error);
            }
        };
        self.layout.generation = generation;
        // A batch job takes what is free and is soon gone: nobody leaves it a share.
        if self.parts.until.is_none() {
            self.parts.board.able_to_run();
        }
        self.parts.nudge.notify_one();
        Ok(true)
    }

    async fn prepare(&self) -> Result<i32> {
        let parts = &self.parts;
        let definition = parts.projection.definition();
        let limit = parts.settings.batch_timeout;
        let prepared = setup::prepare(&parts.target, &*parts.projection, &*parts.source, limit);
        // Somebody's own code: it may panic.
        let prepared = AssertUnwindSafe(prepared).catch_unwind().await;
        let prepared = prepared.unwrap_or_else(|panic| Err(apply::panicked(&*panic)))?;
        // A new one is compared by who claims it; nobody does where there is nothing to be applied.
        let is_new = matches!(prepared, setup::Prepared::New);
        if !is_new || parts.until == Some(Position::START) {
            divergence::check_live(&parts.target, &definition.name, &*parts.source).await?;
        }
        if is_new {
            return Ok(prepared.generation());
        }
        let client = parts.target.short().await?;
        let partitions = i32::from(definition.partitions);
        let (name, key) = (&definition.name, &definition.key);
        let setting = setup::set_partitions(&client, name, partitions, key);
        client.within(setting).await?;
        Ok(prepared.generation())
    }

    /// Does something again and again until it succeeds or fails for good. `None` if it was asked to
    /// stop before.
    async fn persistently<T, F: Future<Output = Result<T>>>(
        &self,
        stop: &CancellationToken,
        something: impl Fn() -> F,
    ) -> Result<Option<T>> {
        let longest = self.parts.settings.retry_delay_max;
        let mut pauses = delays(longest);
        loop {
            let error = tokio::select! {
                () = stop.cancelled() => return Ok(None),
                done = something() => match done {
                    Ok(done) => return Ok(Some(done)),
                    Err(error) if verdict(error.kind()) == Verdict::Transient => error,
                    Err(error) => return Err(error),
                },
            };
            let name = &self.parts.projection.definition().name;
            tracing::warn!(projection = %name, error = %error, "trying again");
            self.parts.board.failed(&error);
            self.parts.board.set_state(RunnerState::Retrying);
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(pauses.next().unwrap_or(longest)) => {}
            }
        }
    }

    /// Best effort: the log and the exit code say it too.
    async fn report_unstarted(&self, error: &Error) {
        let name = &self.parts.projection.definition().name;
        let told = async {
            let client = self.parts.target.short().await?;
            let position = client.within(checkpoint::lowest(&client, name)).await?;
            self.parts.board.stands_at(position, position);
            let value = checkpoint::error_value(error, position, 1);
            let instance = self.parts.instance;
            let telling = checkpoint::report_unstarted(&client, name, instance, &value);
            client.within(telling).await
        };
        match tokio::time::timeout(runner::REPORT_LIMIT, told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = %error, "the stop was not written down"),
            Err(_) => tracing::debug!("the stop was not written down in time"),
        }
    }

    async fn supervise(&mut self, stop: &CancellationToken) -> Outcome {
        // A look that was under way while the read model was made may not have seen it.
        let sees_it = self.parts.seen.borrow().look + 2;
        loop {
            if stop.is_cancelled() {
                return Outcome::Drained;
            }
            let seen = self.parts.seen.borrow_and_update().clone();
            match seen.projection(&self.parts.projection.definition().name) {
                Some(projection) => {
                    if let Some(outcome) = self.look(&seen, projection, stop).await {
                        return outcome;
                    }
                }
                None if seen.look >= sees_it => {
                    return Outcome::Stopped(setup::dropped(
                        &self.parts.projection.definition().name,
                    ));
                }
                None => {}
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Some(ended) = self.runners.join_next() => {
                    if let Ok((place, ended)) = ended
                        && let Some(outcome) = self.ended(place, ended, seen.look)
                    {
                        return outcome;
                    }
                }
                changed = self.parts.seen.changed() => {
                    if changed.is_err() {
                        let what = "the instance's heartbeat has ended without a reason";
                        let error = Error::new(ErrorKind::Internal, what);
                        return Outcome::Stopped(error.hint("see the log, and run again"));
                    }
                }
            }
        }
    }

    /// Acts on what is seen of the projection. An outcome if the run is over.
    async fn look(
        &mut self,
        seen: &Seen,
        projection: &Observed,
        stop: &CancellationToken,
    ) -> Option<Outcome> {
        let definition = self.parts.projection.definition();
        if let Err(error) = setup::check_hash(definition, &projection.hash) {
            let error = error.hint("this process has the definition from before: start it again");
            return Some(Outcome::Stopped(error));
        }
        let checkpoints = &projection.checkpoints;
        let expected = checkpoints.first().map(|first| first.partitions);
        if expected != i32::try_from(checkpoints.len()).ok() {
            return Some(Outcome::Stopped(setup::no_checkpoint(&definition.name)));
        }
        self.layout.become_that_of(projection);
        self.layout.forget_stops(checkpoints, self.parts.instance);
        self.show(projection);
        if let Some(outcome) = self.over(projection) {
            return Some(outcome);
        }
        if projection.paused {
            self.layout.end_all();
            if self.parts.until.is_some() && !self.says_paused {
                tracing::warn!(projection = %definition.name, "is paused; highwater resume lets it go on");
            }
            self.says_paused = true;
            return None;
        }
        self.says_paused = false;
        if self.repartition(projection).await {
            return None;
        }
        let share = seen.share(self.parts.instance, projection);
        self.layout.end_all_above(share);
        for checkpoint in checkpoints {
            // Those who run already may not take up what had stopped before this instance began.
            let (layout, me) = (&self.layout, self.parts.instance);
            let is_due = layout.held.len() < share
                || checkpoint.stopped_before
                || layout.was_not_given_back(checkpoint, me, seen.look);
            if is_due && layout.may_claim(checkpoint, me, seen.look) {
                let generation = projection.generation;
                self.start(checkpoint.partition, Build::Live, generation, stop);
            }
        }
        None
    }

    /// What the projection does as long as none of its runners is here.
    fn show(&self, projection: &Observed) {
        let board = &self.parts.board;
        board.set_state(if projection.paused {
            RunnerState::Paused
        } else {
            RunnerState::Standby
        });
        let positions = projection.checkpoints.iter().map(|c| c.position);
        let lowest = positions.min().unwrap_or_default();
        let mark = self.parts.following.progress.borrow().mark;
        board.stands_at(lowest, self.parts.until.unwrap_or(mark));
    }

    /// Whether every partition is done, one way or the other.
    fn over(&self, projection: &Observed) -> Option<Outcome> {
        let layout = &self.layout;
        let is_stopped = |c: &ObservedCheckpoint| {
            let ours = layout.stopped.contains_key(&c.partition);
            (c.stopped || ours) && !layout.held.contains_key(&c.partition)
        };
        let has_passed = |c: &ObservedCheckpoint| {
            let until = self.parts.until;
            // One that had stopped is claimed first: what stopped it may still be so.
            let is_sound = !c.retries && !c.stopped_before;
            until.is_some_and(|head| c.position >= head && is_sound)
                || layout.passed.contains(&c.partition)
        };
        let checkpoints = &projection.checkpoints;
        let any_stopped = checkpoints.iter().any(is_stopped);
        // The next layout will not come before what has stopped goes on.
        let waits_in_vain = |c: &ObservedCheckpoint| any_stopped && is_drained(c);
        let is_done = |c: &ObservedCheckpoint| {
            let is_held = layout.held.contains_key(&c.partition);
            is_stopped(c) || (has_passed(c) || waits_in_vain(c)) && !is_held
        };
        if !checkpoints.iter().all(is_done) {
            return None;
        }
        match checkpoints.iter().find(|c| is_stopped(c)) {
            Some(first) => Some(Outcome::Stopped(layout.error_of(first))),
            None => Some(Outcome::CaughtUp),
        }
    }

    /// One step of a change of the number of partitions, if it is time for one. True if something
    /// was done.
    async fn repartition(&self, projection: &Observed) -> bool {
        let mut checkpoints = projection.checkpoints.iter();
        let is_begun = checkpoints.clone().any(|c| c.drain_at.is_some());
        let is_asked = checkpoints.any(|c| c.partitions != projection.partitions);
        let mut checkpoints = projection.checkpoints.iter();
        let is_time = match is_begun {
            true => checkpoints.all(|c| c.drain_at.is_some_and(|end| c.position >= end)),
            false => is_asked,
        };
        if !is_time {
            return false;
        }
        let name = &self.parts.projection.definition().name;
        let done = async {
            let client = self.parts.target.short().await?;
            failpoint!("layout.begun");
            let done = client.within(setup::repartition(&client, name)).await?;
            failpoint!("layout.committed");
            if done {
                tracing::info!(projection = %name, partitions = projection.partitions, "changing the number of partitions");
                instance::nudge(&client).await;
            }
            Ok::<_, Error>(done)
        };
        match done.await {
            Ok(done) => {
                if done {
                    self.parts.nudge.notify_one();
                }
                done
            }
            Err(error) => {
                tracing::warn!(projection = %name, error = %error, "the number of partitions was not changed yet");
                false
            }
        }
    }

    fn start(&mut self, partition: i32, build: Build, generation: i32, stop: &CancellationToken) {
        let parts = &self.parts;
        let runner = Runner::new(runner::Parts {
            target: parts.target.clone(),
            source: parts.source.clone(),
            projection: parts.projection.clone(),
            build,
            generation,
            partition,
            following: parts.following.clone(),
            until: parts.until,
            instance: parts.instance,
            seen: parts.seen.clone(),
            settings: parts.settings.clone(),
            shared: parts.board.add(partition),
            fenced: parts.fenced.clone(),
            turns: parts.turns.clone(),
        });
        let ends = stop.child_token();
        let place = Place {
            generation,
            layout: self.layout.number,
            partition,
        };
        self.layout.held.insert(partition, ends.clone());
        self.runners.spawn(async move {
            // Outside of a batch: one that panics in it is stopped by its runner.
            let ended = AssertUnwindSafe(runner.run(ends)).catch_unwind().await;
            let ended = ended.unwrap_or_else(|panic| Ended::Stopped(apply::panicked(&*panic)));
            (place, ended)
        });
    }

    /// A runner has ended. An outcome if that ends the run of the projection.
    fn ended(&mut self, place: Place, ended: Ended, look: u64) -> Option<Outcome> {
        let partition = place.partition;
        let is_of_now =
            (place.generation, place.layout) == (self.layout.generation, self.layout.number);
        self.layout.held.remove(&partition);
        self.layout.tried.insert(partition, look);
        let pause = match ended {
            // Whose batch is in flight will not be done at once.
            Ended::Busy => BUSY_PAUSE,
            _ => Duration::ZERO,
        };
        let nudge = self.parts.nudge.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            nudge.notify_one();
        });
        match ended {
            // What it came to says nothing of the partitions that there are now.
            _ if !is_of_now => {}
            Ended::CaughtUp => {
                self.layout.passed.insert(partition);
            }
            Ended::Stopped(error) => {
                if matches!(error.kind(), ErrorKind::Changed | ErrorKind::NotFound) {
                    return Some(Outcome::Stopped(error));
                }
                self.layout.stopped.insert(partition, error);
                return None;
            }
            Ended::Drained | Ended::Relaid | Ended::Busy | Ended::Lost(_) => {}
        }
        self.parts.board.remove(partition);
        None
    }
}
