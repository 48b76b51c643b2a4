//! THE plan of a supervisor: from observations to actions. Pure, without time and I/O.
//!
//! **Who is authoritative.** The database decides who gets a checkpoint (a claim) and who may
//! commit (the fence). The plan only decides what to try, so it may be made from an old view: a
//! claim that comes too late fails, and the next view leads to another plan.
//!
//! The supervisor carries the actions out in their order. After a repartition that took effect the
//! rest is void.

use super::local::Local;
use crate::pg::instance::{ObservedCheckpoint, ObservedProjection};

#[cfg(test)]
mod tests;

/// What a supervisor knows about its projection.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// Rises with each view of the cluster.
    pub(super) revision: u64,
    /// `None` if the projection has no rows.
    pub(super) projection: Option<&'a ObservedProjection>,
    /// The partitions that this instance is to run.
    pub(super) share: &'a [i32],
}

/// What a supervisor is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PlannedAction {
    /// Ends the run of the projection.
    Finish(Finish),
    /// Takes the next step of a change of the number of partitions.
    Repartition,
    /// Asks the runner of a partition to end after its batch.
    End(i32),
    /// Starts a runner, which tries to claim the checkpoint of a partition.
    Start(i32),
}

/// Why the run of a projection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// Every partition has passed the head that ends the run.
    CaughtUp,
    /// No partition has anything left to do, and an error stopped this one.
    Stopped(i32),
    /// The definition is not the one that the read model was built with.
    Changed,
    /// The projection was dropped.
    Dropped,
    /// Checkpoints are missing.
    NoCheckpoint,
}

/// What to do now.
pub(super) fn plan(view: View<'_>, local: &Local) -> Vec<PlannedAction> {
    let Some(projection) = view.projection else {
        let is_gone = view.revision >= local.visible_from;
        return Vec::from_iter(is_gone.then_some(PlannedAction::Finish(Finish::Dropped)));
    };
    if let Some(finish) = finish(projection, local) {
        return vec![PlannedAction::Finish(finish)];
    }
    if projection.paused {
        return local.unended().map(PlannedAction::End).collect();
    }
    let repartition = is_repartition_due(projection).then_some(PlannedAction::Repartition);
    let ends = ends(view, local).into_iter().map(PlannedAction::End);
    let starts = starts(view, projection, local);
    let starts = starts.into_iter().map(PlannedAction::Start);
    repartition.into_iter().chain(ends).chain(starts).collect()
}

/// Why the run is over, if it is.
fn finish(projection: &ObservedProjection, local: &Local) -> Option<Finish> {
    if projection.hash != local.hash {
        return Some(Finish::Changed);
    }
    let checkpoints = &projection.checkpoints;
    let expected = checkpoints.first().map(|first| first.partitions);
    if expected != i32::try_from(checkpoints.len()).ok() {
        return Some(Finish::NoCheckpoint);
    }
    let stopped = checkpoints.iter().find(|c| local.is_stopped(c));
    let is_done = |c: &ObservedCheckpoint| {
        // A stopped partition blocks the next partitioning: waiting for it would never end.
        let waits_in_vain = stopped.is_some() && is_drained(c);
        let is_running = local.running.contains(&c.partition);
        local.is_stopped(c) || (local.is_caught_up(c) || waits_in_vain) && !is_running
    };
    if !checkpoints.iter().all(is_done) {
        return None;
    }
    Some(stopped.map_or(Finish::CaughtUp, |c| Finish::Stopped(c.partition)))
}

/// A change of the number of partitions has two steps: set the position of the change, and replace the
/// partitions once all have reached it.
fn is_repartition_due(projection: &ObservedProjection) -> bool {
    let checkpoints = &projection.checkpoints;
    if checkpoints.iter().any(|c| c.drain_at.is_some()) {
        return checkpoints.iter().all(is_drained);
    }
    let wanted = projection.partitions;
    checkpoints.iter().any(|c| c.partitions != wanted)
}

/// The runners to end: as many as exceed the share, first those whose partitions go to others.
fn ends(view: View<'_>, local: &Local) -> Vec<i32> {
    let is_dealt_to_others = |partition: &i32| !view.share.contains(partition);
    let surplus = local.unended().count().saturating_sub(view.share.len());
    let others = local.unended().filter(is_dealt_to_others);
    others.take(surplus).collect()
}

/// The partitions to start a runner for: free ones up to the share, its own first, and those that
/// no other instance can run.
fn starts(view: View<'_>, projection: &ObservedProjection, local: &Local) -> Vec<i32> {
    let mut starts = Vec::new();
    let is_ours = |c: &&ObservedCheckpoint| view.share.contains(&c.partition);
    let (ours, others): (Vec<_>, Vec<_>) = projection.checkpoints.iter().partition(is_ours);
    for checkpoint in ours.into_iter().chain(others) {
        let is_within_share = local.running.len() + starts.len() < view.share.len();
        // An instance that already ran when it stopped may not claim it.
        let is_ours_alone =
            checkpoint.stopped_before || local.was_not_released(checkpoint, view.revision);
        if (is_within_share || is_ours_alone) && local.may_claim(checkpoint, view.revision) {
            starts.push(checkpoint.partition);
        }
    }
    starts
}

/// Whether it has reached the end of its partitioning.
pub(super) fn is_drained(checkpoint: &ObservedCheckpoint) -> bool {
    let end = checkpoint.drain_at;
    end.is_some_and(|end| checkpoint.position >= end)
}
