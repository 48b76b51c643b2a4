//! What a supervisor knows of the partitions of one layout.

use std::collections::{BTreeMap, BTreeSet};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::pg::instance::{Observed, ObservedCheckpoint};

/// What is known of the partitions of one generation with one number of partitions.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) generation: i32,
    /// Rises with each change of the number of partitions.
    pub(super) number: i32,
    /// The runners at work, each with what ends it.
    pub(super) held: BTreeMap<i32, CancellationToken>,
    /// The look on which a claim got nothing: the next try needs a newer one.
    pub(super) tried: BTreeMap<i32, u64>,
    pub(super) passed: BTreeSet<i32>,
    pub(super) stopped: BTreeMap<i32, Error>,
}

impl Layout {
    /// Forgets what was true of another generation or another number of partitions.
    pub(super) fn become_that_of(&mut self, projection: &Observed) {
        let number = projection
            .checkpoints
            .first()
            .map_or(0, |first| first.layout);
        if (self.generation, self.number) == (projection.generation, number) {
            return;
        }
        // Runners of the layout before find out by themselves.
        self.generation = projection.generation;
        self.number = number;
        self.tried.clear();
        self.passed.clear();
        self.stopped.clear();
    }

    /// Who began after an error has stopped a partition may have taken it up again.
    pub(super) fn forget_stops(&mut self, checkpoints: &[ObservedCheckpoint], me: Uuid) {
        let is_anothers = |c: &&ObservedCheckpoint| c.owner.is_some_and(|owner| owner != me);
        for checkpoint in checkpoints.iter().filter(is_anothers) {
            self.stopped.remove(&checkpoint.partition);
        }
    }

    /// Whether a runner may try to claim it here.
    pub(super) fn may_claim(&self, checkpoint: &ObservedCheckpoint, me: Uuid, look: u64) -> bool {
        let partition = &checkpoint.partition;
        let is_free = checkpoint.owner.is_none_or(|owner| owner == me);
        let is_new = self.tried.get(partition).is_none_or(|tried| *tried < look);
        is_free
            && !is_drained(checkpoint)
            && is_new
            && !checkpoint.stopped
            && !self.stopped.contains_key(partition)
            && !self.passed.contains(partition)
            && !self.held.contains_key(partition)
    }

    /// Whether its runner has ended here and could not say so. Nobody else can take it while this instance
    /// lives, so it is taken up again and handed over once more.
    pub(super) fn was_not_given_back(
        &self,
        checkpoint: &ObservedCheckpoint,
        me: Uuid,
        look: u64,
    ) -> bool {
        // The look after the end may have been under way before it.
        let ended = self.tried.get(&checkpoint.partition);
        checkpoint.owner == Some(me) && ended.is_some_and(|ended| ended + 1 < look)
    }

    pub(super) fn end_all(&self) {
        self.held.values().for_each(CancellationToken::cancel);
    }

    /// Ends runners until no more than `share` go on.
    pub(super) fn end_all_above(&self, share: usize) {
        let going = self.held.values().filter(|ends| !ends.is_cancelled());
        going.skip(share).for_each(CancellationToken::cancel);
    }

    /// Why a partition has stopped, as its runner here said it or as it is written down.
    pub(super) fn error_of(&self, checkpoint: &ObservedCheckpoint) -> Error {
        if let Some(error) = self.stopped.get(&checkpoint.partition) {
            return error.clone();
        }
        match &checkpoint.error {
            Some(error) => error.to_error(),
            None => Error::new(
                ErrorKind::Apply,
                "it was stopped, and no error is written down",
            ),
        }
    }
}

/// Whether it is where its layout ends.
pub(super) fn is_drained(checkpoint: &ObservedCheckpoint) -> bool {
    let end = checkpoint.drain_at;
    end.is_some_and(|end| checkpoint.position >= end)
}
