//! A runner that has its checkpoint: what it does step by step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::decide::{self, RunnerAction, StepInput};
use super::retries::Retries;
use super::{Build, Ended, RunnerParts, StepOutcome, park};
use crate::engine::apply::{Applier, Limits};
use crate::engine::batch_size::BatchSize;
use crate::engine::divergence;
use crate::engine::instance::ClusterView;
use crate::engine::isolate::Isolation;
use crate::engine::progress::Progress;
use crate::error::{ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::metrics;
use crate::pg::checkpoint::{self, Key};
use crate::pg::connect::PooledClient;
use crate::pg::instance::ObservedCheckpoint;
use crate::pg::projection;
use crate::position::{Position, Range};
use crate::projection::Definition;

/// Storing the position before the end may take this long, at least.
const LAST_FLUSH_LIMIT: Duration = Duration::from_millis(100);

pub(super) struct Claimed {
    pub(super) parts: Arc<RunnerParts>,
    pub(super) applier: Applier,
    /// The reader's session whose mark is used; 0 if the checkpoint has to be read again first.
    pub(super) session: u64,
    /// Where the stored checkpoint is.
    pub(super) stored: Position,
    /// How far the runner is: there is no wanted event between `stored` and this.
    pub(super) position: Position,
    /// Where the partition ends, if their number is being changed.
    pub(super) drain_at: Option<Position>,
    pub(super) stored_at: Instant,
    /// It has been at its target since the claim.
    pub(super) has_arrived: bool,
    pub(super) size: BatchSize,
    pub(super) isolation: Isolation,
    pub(super) retries: Retries,
    /// Whether the run is to end.
    pub(super) stop: CancellationToken,
}

impl Claimed {
    /// What to do first.
    pub(super) async fn step(&mut self, progress: &Progress) -> Result<StepOutcome> {
        let (name, partition) = (&self.applier.key.projection, self.applier.key.partition);
        if self.parts.fenced.take(name, partition) || self.is_to_drain() {
            return self.read_again().await;
        }
        if progress.session != self.session {
            let step = self.read_again().await?;
            // Only now: what the runner knew in the session before is void until it is read again.
            self.session = progress.session;
            return Ok(step);
        }
        if self.retries.news()? {
            self.read_parked_keys().await?;
        }
        self.advance(progress).await
    }

    /// Applies, passes over or stores what lies between the checkpoint and the mark.
    async fn advance(&mut self, progress: &Progress) -> Result<StepOutcome> {
        let input = self.step_input(progress);
        let shared = &self.parts.shared;
        shared.set_target(self.parts.until.unwrap_or(progress.mark));
        match input.next() {
            RunnerAction::Apply(target) => {
                self.set_state_behind(target.since(self.position));
                return self.apply_next(target, progress).await;
            }
            RunnerAction::PassOver(target) => self.move_to(target),
            RunnerAction::Flush => self.flush(progress).await?,
            RunnerAction::CaughtUp => return Ok(StepOutcome::End(Ended::CaughtUp)),
            RunnerAction::PartitionEnds => return Ok(StepOutcome::End(Ended::Repartitioned)),
            RunnerAction::Wait(flush_in) => {
                self.set_state_behind(0);
                self.report_first_arrival();
                self.size.at_head();
                let lag = progress.head.since(input.target());
                metrics::lag(&self.definition().name, lag);
                return Ok(StepOutcome::Wait(
                    flush_in.map(|pause| Instant::now() + pause),
                ));
            }
        }
        Ok(StepOutcome::Done)
    }

    fn step_input(&self, progress: &Progress) -> StepInput {
        let types = self.definition().events.as_deref();
        StepInput {
            stored: self.stored,
            position: self.position,
            mark: progress.mark,
            until: self.parts.until,
            drain_at: self.drain_at,
            may_hold: progress.may_hold(self.position, types),
            state: self.parts.shared.get().state,
            stored_for: self.stored_at.elapsed(),
            retries: self.retries.are_pending(),
        }
    }

    /// Others see a claim as catching up: if it is not, or no longer, that is reported at once.
    fn report_first_arrival(&mut self) {
        if !std::mem::replace(&mut self.has_arrived, true) {
            self.parts.wake.notify_one();
        }
    }

    fn set_state_behind(&self, distance: u64) {
        let before = self.parts.shared.get().state;
        let ends_by_itself = self.parts.until.is_some();
        self.parts
            .set_state(decide::state(before, distance, ends_by_itself));
    }

    /// One batch towards `target`.
    async fn apply_next(&mut self, target: Position, progress: &Progress) -> Result<StepOutcome> {
        let Some(range) = self.next_range(target).await? else {
            self.move_to(target);
            return Ok(StepOutcome::Done);
        };
        let mut row = self.retries.row().await;
        let permit = self.parts.permit().await;
        let reading = self.reading_permit(range);
        let began = Instant::now();
        let limits = Limits {
            last: progress.last_in(range),
            ..self.limits(reading.is_some())
        };
        let leap = self.size.limit(self.tried(range, &limits));
        let limit = self.parts.settings.batch_timeout;
        let limit = leap.map_or(limit, |leap| leap.min(limit));
        let applied = self.parts.in_time(
            &self.applier.in_flight,
            limit,
            self.apply_range(range, limits),
        );
        let applied = applied.await;
        *row = began.elapsed();
        // Parking takes one of its own: runners that hold one and wait for a second could wait for
        // each other.
        drop((row, permit, reading));
        match applied {
            Ok(through) => self.applied(range, through, began.elapsed()).await?,
            Err(error) if leap.is_some() && error.kind() == ErrorKind::TimedOut => {
                self.size.leapt_too_far();
                return self.read_again().await;
            }
            Err(error) => self.batch_failed(error, range).await?,
        }
        Ok(StepOutcome::Done)
    }

    async fn apply_range(&self, range: Range, limits: Limits<'_>) -> Result<Position> {
        let work = self.applier.prepare(range, limits).await?;
        let client = self.covered_session().await?;
        self.applier.apply(client, work).await
    }

    async fn applied(&mut self, range: Range, through: Position, took: Duration) -> Result<()> {
        let width = Range::new(range.after(), through).width();
        self.size.took(width, took);
        if through < range.through() && !self.is_read() {
            self.size.cut(width);
        }
        metrics::batch(&self.definition().name, width, took);
        self.store(through);
        self.narrow_down(through).await
    }

    /// From the stored checkpoint through the next batch's end; `None` if nothing lies before
    /// `target`.
    async fn next_range(&self, target: Position) -> Result<Option<Range>> {
        let mut from = self.position;
        if from.forward(self.span()) < target {
            // Wide holes are skipped, so that the span of a batch reflects its events.
            let source = &*self.parts.source;
            match source.first(Range::new(from, target)).await? {
                None => {
                    divergence::check_unread(&self.applier.key, self.position, source).await?;
                    return Ok(None);
                }
                Some(first) => from = first.previous(),
            }
        }
        let through = from.forward(self.span()).min(target);
        let range = Range::new(self.stored, self.isolation.bound(through));
        Ok(Some(range))
    }

    /// A session on which the mark of the current reader session holds.
    pub(super) async fn covered_session(&self) -> Result<PooledClient> {
        let mut subscriber = self.parts.subscriber.clone();
        loop {
            let (client, opened) = self.applier.session().await?;
            if subscriber.covers(self.session, opened) {
                return Ok(client);
            }
            drop(client);
            // The reader confirms at each of its steps, at most `poll_slowest` apart.
            subscriber.confirmed(self.session).await?;
        }
    }

    /// Stores the position where nothing was applied.
    async fn flush(&mut self, progress: &Progress) -> Result<()> {
        let _row = self.retries.row().await;
        let range = Range::new(self.stored, self.position);
        failpoint!("flush.begun");
        let last = progress.last_in(range);
        let last = self.applier.last_event(range, last).await?;
        let client = self.covered_session().await?;
        self.applier.skip(client, range, last).await?;
        failpoint!("flush.committed");
        self.store(range.through());
        Ok(())
    }

    /// Stores the position, if that can be done soon.
    pub(super) async fn flush_before_the_end(&mut self) {
        if self.stored >= self.position {
            return;
        }
        let limit = self.parts.settings.stop_grace.max(LAST_FLUSH_LIMIT);
        let progress = self.parts.subscriber.progress.borrow().clone();
        if let Ok(Err(error)) = tokio::time::timeout(limit, self.flush(&progress)).await {
            tracing::debug!(error = %error, "the position was not stored; the next run finds it again");
        }
    }

    /// The checkpoint was moved here.
    pub(super) fn store(&mut self, position: Position) {
        self.stored = position;
        self.stored_at = Instant::now();
        self.move_to(position);
    }

    fn move_to(&mut self, position: Position) {
        self.position = self.position.max(position);
        self.parts.shared.moved(self.position);
    }

    /// Whether the partition is to end at a position that this runner does not know yet.
    fn is_to_drain(&self) -> bool {
        if self.drain_at.is_some() || self.parts.build != Build::Live {
            return false;
        }
        let cluster = self.parts.cluster.borrow();
        observed(&cluster, &self.applier.key).is_some_and(|c| c.drain_at.is_some())
    }

    /// Reads the checkpoint again, after a fence failed or the connection was lost: it is still
    /// ours, moved to another generation, or owned by another instance.
    pub(super) async fn read_again(&mut self) -> Result<StepOutcome> {
        let key = &self.applier.key;
        let (stored, checkpoint) = {
            let client = self.parts.target.short().await?;
            let stored = projection::stored(&client, &key.projection);
            let stored = client.within(stored).await?;
            (stored, client.within(checkpoint::read(&client, key)).await?)
        };
        let Some(stored) = stored else {
            return Err(projection::dropped(&key.projection));
        };
        if self.parts.build == Build::Live {
            if stored.generation != key.generation {
                return Ok(StepOutcome::End(Ended::Lost(checkpoint::swapped(key))));
            }
            let hash = &self.definition().hash;
            projection::check_hash(&key.projection, hash, &stored.hash)
                .map_err(|e| e.with_hint("this process has the old definition: restart it"))?;
        }
        let Some(checkpoint) = checkpoint else {
            // Swapped or dropped just now.
            return Ok(StepOutcome::End(Ended::Lost(checkpoint::swapped(key))));
        };
        if checkpoint.epoch != self.applier.epoch {
            return Err(checkpoint::superseded(key, checkpoint.epoch));
        }
        divergence::check(key, &checkpoint, &*self.parts.source).await?;
        self.applier.partition_filter =
            park::partition_filter(&self.parts.target, key, &checkpoint).await?;
        self.stored = checkpoint.position;
        self.position = checkpoint.position;
        self.drain_at = checkpoint.drain_at;
        self.parts.shared.moved(checkpoint.position);
        Ok(StepOutcome::Done)
    }

    /// Ends the task beside the batches.
    pub(super) async fn end(self) {
        self.retries.end().await;
    }

    pub(super) fn definition(&self) -> &Definition {
        self.parts.definition()
    }
}

/// A checkpoint as it was in the last view of the cluster.
pub(super) fn observed<'a>(cluster: &'a ClusterView, key: &Key) -> Option<&'a ObservedCheckpoint> {
    let projection = cluster.projection(&key.projection)?;
    let mut checkpoints = projection.checkpoints.iter();
    let mine = checkpoints.find(|c| c.partition == key.partition);
    mine.filter(|_| projection.generation == key.generation)
}
