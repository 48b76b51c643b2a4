//! THE loop: wait, read, apply, repeat. One runner is one partition of one projection.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Settings;
use super::apply::{InFlight, Limits};
use super::batch_size::BatchSize;
use super::divergence;
use super::instance::{Fenced, Seen};
use super::isolate::Isolation;
use super::progress::{Following, Progress};
use super::state::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::metrics;
use crate::pg::checkpoint::{Epoch, Key};
use crate::pg::connect::PooledClient;
use crate::pg::database::Database;
use crate::position::{Position, Range};
use crate::projection::{Definition, DynProjection};
use crate::retry::delays;
use crate::runner_state::RunnerState;
use crate::source::Source;

mod claim;
mod failure;
mod limit;
mod park;
mod reading;
mod redrive;

use claim::Claim;
use redrive::Retries;

pub(super) use failure::REPORT_LIMIT;

/// How often a range without wanted events moves the stored checkpoint, at most.
const FLUSH_PAUSE: Duration = Duration::from_secs(1);
/// A live runner that is no further behind than this stays `live`.
const LIVE_WITHIN: u64 = 1_000;
/// Which build of a read model a runner writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Build {
    /// The one that readers see, shared out among the instances.
    Live,
    /// The one that a rebuild fills beside it, alone.
    Next(i32),
}

/// How a runner ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It passed the head that was fixed at the start.
    CaughtUp,
    /// It was asked to end, and did after its batch.
    Drained,
    /// Its partition ends here: the number of partitions changes.
    Relaid,
    /// Another instance has its checkpoint, or a predecessor's batch is still in flight.
    Busy,
    /// Its checkpoint went to another instance, or another generation.
    Lost(Error),
    /// It was stopped by this error, which is stored with its checkpoint.
    Stopped(Error),
}

/// What a runner is made of.
pub(super) struct Parts {
    pub(super) target: Database,
    pub(super) source: Arc<dyn Source>,
    pub(super) projection: Arc<dyn DynProjection>,
    pub(super) build: Build,
    pub(super) generation: i32,
    pub(super) partition: i32,
    pub(super) following: Following,
    /// The head that ends this run once it is passed.
    pub(super) until: Option<Position>,
    pub(super) instance: Uuid,
    pub(super) seen: watch::Receiver<Seen>,
    pub(super) settings: Settings,
    pub(super) shared: Shared,
    pub(super) fenced: Fenced,
    /// One for each session that batches may take.
    pub(super) turns: Arc<Semaphore>,
}

pub(super) struct Runner {
    parts: Parts,
    claim: Option<Claim>,
    /// The checkpoint that is this runner's to give back, even if nothing came of the claim.
    held: Option<(Key, Epoch)>,
    size: BatchSize,
    isolation: Isolation,
    retries: Retries,
    in_flight: InFlight,
    attempts: u32,
    /// Whether the run is to end.
    stop: CancellationToken,
}

/// What a turn came to.
enum Turn {
    /// Something was done; go on.
    Again,
    /// There is nothing to do until the source moves, or until then.
    Wait(Option<Instant>),
    /// The runner is done.
    Ended(Ended),
}

/// What the loop does next.
enum Next {
    /// Something was done; go on.
    Done,
    /// Go on, though nothing was done.
    AtOnce,
    /// Wait until the source moves, or until then.
    Wait(Option<Instant>),
    /// Try again after a pause.
    Retry,
    /// The runner is done.
    Ended(Ended),
}

impl Runner {
    pub(super) fn new(parts: Parts) -> Runner {
        Runner {
            size: BatchSize::new(u64::from(parts.settings.batch_events_max)),
            parts,
            claim: None,
            held: None,
            isolation: Isolation::default(),
            retries: Retries::default(),
            in_flight: InFlight::default(),
            attempts: 0,
            stop: CancellationToken::new(),
        }
    }

    /// Runs until the end of the run, a stop, or an error that no retry mends. The checkpoint is
    /// given back, unless an error has stopped it.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Ended {
        self.stop = stop.clone();
        let ended = self.turns(&stop).await;
        if !matches!(ended, Ended::Lost(_)) {
            self.release().await;
        }
        ended
    }

    async fn turns(&mut self, stop: &CancellationToken) -> Ended {
        let mut pauses = self.pauses();
        loop {
            if stop.is_cancelled() {
                return self.drain().await;
            }
            let next = {
                let (in_flight, database) = (self.in_flight.clone(), self.parts.target.clone());
                let grace = self.parts.settings.stop_grace;
                tokio::select! {
                    next = self.attempt() => next,
                    () = rolled_back(stop, grace, &in_flight, &database) => return self.drain().await,
                }
            };
            match next {
                Next::Done => pauses = self.pauses(),
                Next::AtOnce => {}
                Next::Wait(until) => self.wait(until, stop).await,
                Next::Retry => {
                    let pause = pauses.next().unwrap_or(self.parts.settings.retry_delay_max);
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = self.parts.following.begun_again() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
                Next::Ended(ended) => return ended,
            }
        }
    }

    /// One turn, and what follows from it, an error included.
    async fn attempt(&mut self) -> Next {
        match self.turn().await {
            Ok(Turn::Again) => {
                self.attempts = 0;
                Next::Done
            }
            Ok(Turn::Wait(until)) => Next::Wait(until),
            Ok(Turn::Ended(ended)) => Next::Ended(ended),
            Err(error) => self.failed(error).await,
        }
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        delays(self.parts.settings.retry_delay_max)
    }

    /// One step of the loop: whatever is to be done first.
    async fn turn(&mut self) -> Result<Turn> {
        if !self.parts.seen.borrow_and_update().is_trusted() {
            // Whatever it did now, another instance might be doing too.
            self.waits_for_the_lease();
            return Ok(Turn::Wait(None));
        }
        if self.claim.is_none() {
            self.set_state(RunnerState::Starting);
            return self.start().await;
        }
        let progress = self.parts.following.progress.borrow_and_update().clone();
        self.parts.following.check_reader()?;
        if let Some(trouble) = &progress.trouble {
            self.waits_for_the_source(trouble);
            return Ok(Turn::Wait(None));
        }
        if progress.session == 0 {
            return Ok(Turn::Wait(None));
        }
        let is_fenced = self
            .parts
            .fenced
            .take(&self.definition().name, self.parts.partition);
        if is_fenced || self.is_to_drain() {
            return self.read_again().await;
        }
        let Some(claim) = &self.claim else {
            return Ok(Turn::Again);
        };
        if progress.session != claim.session {
            let turn = self.read_again().await?;
            // Only now: what the runner believed in the session before is void until it is read.
            if let Some(claim) = &mut self.claim {
                claim.session = progress.session;
            }
            return Ok(turn);
        }
        self.redrive_or_advance(&progress).await
    }

    /// Applies, passes over or flushes what lies between the checkpoint and the mark.
    async fn advance(&mut self, progress: &Progress) -> Result<Turn> {
        let Some(claim) = &self.claim else {
            return Ok(Turn::Again);
        };
        let target = self
            .parts
            .until
            .map_or(progress.mark, |head| progress.mark.min(head));
        let target = claim.drain_at.map_or(target, |end| target.min(end));
        let position = claim.position;
        self.parts
            .shared
            .set_target(self.parts.until.unwrap_or(progress.mark));
        if position < target {
            self.behind(target.since(position));
            let types = self.definition().events.as_deref();
            if progress.may_hold(position, types) {
                return self.apply_next(target, progress).await;
            }
            self.move_to(target);
        }
        self.at_target(target, progress).await
    }

    /// Nothing is left below the target.
    async fn at_target(&mut self, target: Position, progress: &Progress) -> Result<Turn> {
        let Some(claim) = &self.claim else {
            return Ok(Turn::Again);
        };
        let caught_up = self.parts.until.is_some_and(|head| claim.position >= head);
        let arrived =
            self.parts.until.is_none() && self.parts.shared.get().state != RunnerState::Live;
        let layout_ends = claim.drain_at.is_some_and(|end| claim.position >= end);
        let pending = claim.stored < claim.position;
        if pending
            && (caught_up || layout_ends || arrived || claim.flushed.elapsed() >= FLUSH_PAUSE)
        {
            self.flush(progress).await?;
        }
        if caught_up {
            return Ok(Turn::Ended(Ended::CaughtUp));
        }
        if layout_ends {
            return Ok(Turn::Ended(Ended::Relaid));
        }
        // A held mark is not the head: a run that is to end there says that it is still behind.
        self.set_state(match self.parts.until {
            None => RunnerState::Live,
            Some(_) => RunnerState::CatchingUp,
        });
        self.size.at_head();
        metrics::lag(&self.definition().name, progress.head.since(target));
        let Some(claim) = &self.claim else {
            return Ok(Turn::Again);
        };
        let flush_at = claim.flushed + FLUSH_PAUSE;
        Ok(Turn::Wait(
            (claim.stored < claim.position).then_some(flush_at),
        ))
    }

    fn behind(&self, distance: u64) {
        let live = self.parts.shared.get().state == RunnerState::Live;
        if !live || distance > LIVE_WITHIN {
            self.set_state(RunnerState::CatchingUp);
        }
    }

    /// One batch towards `target`.
    async fn apply_next(&mut self, target: Position, progress: &Progress) -> Result<Turn> {
        let Some(range) = self.next_range(target).await? else {
            self.move_to(target);
            return Ok(Turn::Again);
        };
        let Some(claim) = &self.claim else {
            return Ok(Turn::Again);
        };
        // Closed by nobody; without it the pool alone would make runners wait.
        let session_turn = self.parts.turns.clone().acquire_owned().await.ok();
        let reading_turn = self.reading_turn(range);
        let began = Instant::now();
        let limits = Limits {
            last: progress.last_in(range),
            ..self.limits(claim.position, reading_turn.is_some())
        };
        let leap = self.size.limit(self.tried(range, &limits));
        let applied = async {
            let work = claim.applier.read(range, limits).await?;
            let client = self.covered_session(claim).await?;
            claim.applier.apply(client, range, work).await
        };
        let limit = self.parts.settings.batch_timeout;
        let limit = leap.map_or(limit, |leap| leap.min(limit));
        let through = match self.in_time(limit, applied).await {
            Ok(through) => through,
            Err(error) if leap.is_some() && error.kind() == ErrorKind::TimedOut => {
                self.size.leapt_too_far();
                return self.read_again().await;
            }
            Err(error) => {
                // Parking takes one of its own: a runner that held two could wait for its like.
                drop((session_turn, reading_turn));
                return self.batch_failed(error, range).await;
            }
        };
        let done = Range::new(range.after(), through);
        self.size.took(done.width(), began.elapsed());
        if through < range.through() && !self.is_read() {
            self.size.cut(done.width());
        }
        metrics::batch(&self.definition().name, done.width(), began.elapsed());
        self.stored_at(through);
        self.narrow_down(through).await?;
        Ok(Turn::Again)
    }

    /// From the stored checkpoint through the next batch's end; `None` if nothing lies before
    /// `target`.
    async fn next_range(&self, target: Position) -> Result<Option<Range>> {
        let Some(claim) = &self.claim else {
            return Ok(None);
        };
        let mut from = claim.position;
        if from.forward(self.span()) < target {
            // Wide holes are stepped over, so that a batch's span is about its events.
            match self.parts.source.first(Range::new(from, target)).await? {
                None => {
                    let (key, source) = (&claim.applier.key, &*self.parts.source);
                    divergence::check_unread(key, claim.position, source).await?;
                    return Ok(None);
                }
                Some(first) => from = first.previous(),
            }
        }
        let through = from.forward(self.span()).min(target);
        let range = Range::new(claim.stored, self.isolation.bound(through));
        Ok(Some(range))
    }

    /// A session on which the mark of the current reader session holds.
    async fn covered_session(&self, claim: &Claim) -> Result<PooledClient> {
        let mut following = self.parts.following.clone();
        loop {
            let (client, opened) = claim.applier.session().await?;
            if following.covers(claim.session, opened) {
                return Ok(client);
            }
            drop(client);
            // The reader confirms at each of its steps, at most `poll_slowest` apart.
            following.confirmed(claim.session).await?;
        }
    }

    /// Writes the position down where nothing was applied.
    async fn flush(&mut self, progress: &Progress) -> Result<()> {
        let Some(claim) = &self.claim else {
            return Ok(());
        };
        let range = Range::new(claim.stored, claim.position);
        failpoint!("flush.begun");
        let last = claim
            .applier
            .last_event(range, progress.last_in(range))
            .await?;
        let client = self.covered_session(claim).await?;
        claim.applier.skip(client, range, last).await?;
        failpoint!("flush.committed");
        self.stored_at(range.through());
        Ok(())
    }

    fn stored_at(&mut self, position: Position) {
        if let Some(claim) = &mut self.claim {
            claim.stored = position;
            claim.flushed = Instant::now();
        }
        self.move_to(position);
    }

    fn move_to(&mut self, position: Position) {
        if let Some(claim) = &mut self.claim {
            claim.position = claim.position.max(position);
            self.parts.shared.moved(claim.position);
        }
    }

    async fn wait(&mut self, until: Option<Instant>, stop: &CancellationToken) {
        let flush = async {
            match until {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => poll_fn(|_| std::task::Poll::Pending).await,
            }
        };
        let _awaiting = self.parts.following.awaiting();
        tokio::select! {
            () = stop.cancelled() => {}
            Ok(()) = self.parts.following.progress.changed() => {}
            () = self.parts.fenced.changed() => {}
            Ok(()) = self.parts.seen.changed() => {}
            () = flush => {}
        }
    }

    /// Writes down what was passed over, and ends.
    async fn drain(&mut self) -> Ended {
        self.set_state(RunnerState::Draining);
        let grace = self
            .parts
            .settings
            .stop_grace
            .max(Duration::from_millis(100));
        let pending = self
            .claim
            .as_ref()
            .is_some_and(|claim| claim.stored < claim.position);
        let progress = self.parts.following.progress.borrow().clone();
        let flushed = async { self.flush(&progress).await };
        if pending && let Ok(Err(error)) = tokio::time::timeout(grace, flushed).await {
            tracing::debug!(error = %error, "the position was not written down; it is found again");
        }
        Ended::Drained
    }

    fn definition(&self) -> &Definition {
        self.parts.projection.definition()
    }

    fn set_state(&self, state: RunnerState) {
        if self.parts.shared.set_state(state) {
            let name = &self.definition().name;
            metrics::state(name, state);
            tracing::debug!(projection = %name, state = %state, "state");
        }
    }
}

/// Resolves when a stop was asked for and the batch in flight had its grace: it is cancelled in
/// the server, and the caller drops it.
async fn rolled_back(
    stop: &CancellationToken,
    grace: Duration,
    in_flight: &InFlight,
    database: &Database,
) {
    stop.cancelled().await;
    tokio::time::sleep(grace).await;
    limit::cancel(in_flight, database, Duration::from_secs(1)).await;
}
