//! What a supervisor knows of its own runners: which are running, and how the others ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use super::plan::is_drained;
use crate::engine::Outcome;
use crate::engine::runner::Ended;
use crate::error::{Error, ErrorKind, StoredError};
use crate::pg::instance::{ObservedCheckpoint, ObservedProjection};
use crate::position::Position;

#[cfg(test)]
mod tests;

/// How long to wait before the next claim of a checkpoint whose row is locked by a batch in flight.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// A partition of one generation, under one number of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionId {
    pub(super) generation: i32,
    pub(super) partitioning: i32,
    pub(super) partition: i32,
}

/// What is known about the partitions of one generation, under one number of partitions.
#[derive(Debug, Default)]
pub(super) struct Local {
    pub(super) me: Uuid,
    /// The hash of this process's definition.
    pub(super) hash: String,
    /// The head that ends the run once every partition has passed it.
    pub(super) until: Option<Position>,
    /// The first view of the cluster that is sure to show the projection.
    pub(super) visible_from: u64,
    pub(super) generation: i32,
    /// Rises with each change of the number of partitions.
    pub(super) partitioning: i32,
    /// The partitions that have a runner here.
    pub(super) running: BTreeSet<i32>,
    /// Those of `running` whose runner was asked to end.
    pub(super) ending: BTreeSet<i32>,
    /// The view of the cluster at which the last runner of a partition ended: the next runner needs
    /// a newer one.
    pub(super) ended_at: BTreeMap<i32, u64>,
    pub(super) caught_up: BTreeSet<i32>,
    pub(super) stopped: BTreeMap<i32, Error>,
}

/// What follows from the end of a runner.
#[derive(Debug)]
pub(super) struct AfterEnd {
    /// When to poll the cluster again.
    pub(super) poll_after: Duration,
    /// Whether the run of the projection is over.
    pub(super) is_final: bool,
}

impl Local {
    /// Takes over what is observed: forgets what was true of another generation or another number
    /// of partitions, and stops that another instance has overcome.
    pub(super) fn observe(&mut self, projection: &ObservedProjection) {
        let first = projection.checkpoints.first();
        let partitioning = first.map_or(0, |first| first.partitioning);
        if (self.generation, self.partitioning) != (projection.generation, partitioning) {
            // Earlier runners find out by themselves.
            self.generation = projection.generation;
            self.partitioning = partitioning;
            self.ended_at.clear();
            self.caught_up.clear();
            self.stopped.clear();
        }
        for checkpoint in &projection.checkpoints {
            // Only an instance that began after the stop can own it.
            if checkpoint.owner.is_some_and(|owner| owner != self.me) {
                self.stopped.remove(&checkpoint.partition);
            }
        }
    }

    pub(super) fn id(&self, partition: i32) -> PartitionId {
        PartitionId {
            generation: self.generation,
            partitioning: self.partitioning,
            partition,
        }
    }

    /// The partitions whose runners were not asked to end.
    pub(super) fn unended(&self) -> impl Iterator<Item = i32> {
        self.running.difference(&self.ending).copied()
    }

    /// Whether an error ended its runner and no other runs here.
    pub(super) fn is_stopped(&self, checkpoint: &ObservedCheckpoint) -> bool {
        let partition = &checkpoint.partition;
        let is_stopped = checkpoint.stopped || self.stopped.contains_key(partition);
        is_stopped && !self.running.contains(partition)
    }

    /// Whether it has passed the head that ends the run.
    pub(super) fn is_caught_up(&self, checkpoint: &ObservedCheckpoint) -> bool {
        // A stopped partition is claimed first: the cause may still be there.
        let is_sound = !checkpoint.retries && !checkpoint.stopped_before;
        let has_passed = self.until.is_some_and(|head| checkpoint.position >= head);
        has_passed && is_sound || self.caught_up.contains(&checkpoint.partition)
    }

    /// Whether a runner may try to claim it here.
    pub(super) fn may_claim(&self, checkpoint: &ObservedCheckpoint, revision: u64) -> bool {
        let partition = &checkpoint.partition;
        let is_free = checkpoint.owner.is_none_or(|owner| owner == self.me);
        let is_news = self.ended_at.get(partition).is_none_or(|at| *at < revision);
        is_free
            && !is_drained(checkpoint)
            && is_news
            && !checkpoint.stopped
            && !self.stopped.contains_key(partition)
            && !self.caught_up.contains(partition)
            && !self.running.contains(partition)
    }

    /// Whether its runner ended here without releasing the checkpoint. No other instance can claim
    /// it while this one lives, so it is claimed again and handed over once more.
    pub(super) fn was_not_released(&self, checkpoint: &ObservedCheckpoint, revision: u64) -> bool {
        // The first view after the end may have been read before it.
        let ended_at = self.ended_at.get(&checkpoint.partition);
        checkpoint.owner == Some(self.me) && ended_at.is_some_and(|at| at + 1 < revision)
    }

    /// A runner has ended, at this view of the cluster.
    pub(super) fn ended(&mut self, id: PartitionId, ended: Ended, revision: u64) -> AfterEnd {
        let partition = id.partition;
        self.running.remove(&partition);
        self.ending.remove(&partition);
        self.ended_at.insert(partition, revision);
        let poll_after = poll_after(&ended);
        let mut is_final = false;
        match ended {
            // Its result says nothing about the partitions there are now.
            _ if id != self.id(partition) => {}
            Ended::CaughtUp => {
                self.caught_up.insert(partition);
            }
            Ended::Stopped(error) => {
                // These stop every other partition too.
                is_final = matches!(error.kind(), ErrorKind::Changed | ErrorKind::NotFound);
                self.stopped.insert(partition, error);
            }
            Ended::Drained | Ended::Repartitioned | Ended::Busy | Ended::Lost(_) => {}
        }
        AfterEnd {
            poll_after,
            is_final,
        }
    }

    /// Why a partition has stopped, as its runner here reported it or as it is stored.
    pub(super) fn error_of(&self, partition: i32, stored: Option<&StoredError>) -> Error {
        match self.stopped.get(&partition) {
            Some(error) => error.clone(),
            None => stored.map_or_else(
                || Error::new(ErrorKind::Apply, "it was stopped, and no error is stored"),
                StoredError::to_error,
            ),
        }
    }
}

/// When to poll the cluster again after the end of a runner.
fn poll_after(ended: &Ended) -> Duration {
    match ended {
        Ended::Busy => BUSY_PAUSE,
        Ended::CaughtUp
        | Ended::Drained
        | Ended::Repartitioned
        | Ended::Lost(_)
        | Ended::Stopped(_) => Duration::ZERO,
    }
}

/// How a build without other instances ends after one more of its runners has ended: the first
/// error counts.
pub(super) fn worse(outcome: Outcome, ended: Ended) -> Outcome {
    match (outcome, ended) {
        (Outcome::Stopped(error), _) => Outcome::Stopped(error),
        (_, Ended::Stopped(error) | Ended::Lost(error)) => Outcome::Stopped(error),
        (outcome, Ended::CaughtUp) => outcome,
        (_, Ended::Drained | Ended::Repartitioned | Ended::Busy) => Outcome::Drained,
    }
}
