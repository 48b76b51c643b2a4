//! Retries of dead letters: a task parallel to the batches of a claim, with a fence of its own.
//!
//! **The fence.** A dead letter is read in one statement with the `parking` of its checkpoint,
//! under the epoch of the claim. Its transaction checks both against the row of the checkpoint, as
//! a batch does (`highwater.begin_dead_letter`), so a dead letter is applied only while it is the first
//! of its key.
//!
//! **Fairness.** Batches and retries lock the same row, so one waits for the other anyway. They
//! take turns here, not in the server: retries get as long as the last batch took, at least one
//! dead letter. A key with a transient failure, such as a lock, is retried after all others, and
//! batches get as long as that took.
//!
//! **The end of a run.** A run that ends by itself waits until every requested retry was tried, and
//! until those with a transient failure are done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::claimed::observed;
use super::decide::{Retried, retried};
use super::park::{cause, parked};
use super::{RunnerParts, limit};
use crate::engine::apply::{Applier, InFlight};
use crate::engine::instance::ClusterView;
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::failpoint::failpoint;
use crate::metrics;
use crate::pg::checkpoint::Key;
use crate::pg::dead_letter::{self, Requested};
use crate::source::EventKey;

/// The longest time for retries in a row; otherwise they get as long as the last batch took.
const IN_A_ROW_MAX: Duration = Duration::from_secs(1);

/// Serialises batches and retries; holds the duration of the last batch.
type BatchLock = Mutex<Duration>;

/// The retries of a claim, as its runner sees them.
pub(super) struct Retries {
    status: watch::Receiver<Status>,
    cluster: watch::Receiver<ClusterView>,
    key: Key,
    row: Arc<BatchLock>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// How far the retries are.
#[derive(Clone, Debug, Default)]
struct Status {
    /// Rises with each dead letter that was tried.
    tried: u64,
    /// Revision of the cluster view up to which all requested retries are finished.
    finished: u64,
    /// Some keys of that revision had a transient failure.
    some_wait: bool,
    /// A permanent error; the task has ended.
    failed: Option<Arc<Error>>,
}

impl Status {
    /// Whether retries that this revision of the cluster view requests are unfinished.
    fn is_pending(&self, requested: Option<u64>) -> bool {
        requested.is_some_and(|revision| revision > self.finished || self.some_wait)
    }
}

impl Retries {
    pub(super) fn start(
        parts: Arc<RunnerParts>,
        applier: &Applier,
        stop: &CancellationToken,
    ) -> Retries {
        let (sender, status) = watch::channel(Status::default());
        let row = Arc::new(BatchLock::default());
        let stop = stop.child_token();
        let (cluster, key) = (parts.cluster.clone(), applier.key.clone());
        let task = Task {
            applier: Applier {
                in_flight: InFlight::default(),
                ..applier.clone()
            },
            cluster: cluster.clone(),
            parts,
            row: row.clone(),
            status: sender,
            put_off: Vec::new(),
            stop: stop.clone(),
        };
        Retries {
            status,
            cluster,
            key,
            row,
            stop,
            task: AbortOnDropHandle::new(tokio::spawn(task.run())),
        }
    }

    /// The right to lock the checkpoint's row, which holds the time of the last batch.
    pub(super) async fn row(&self) -> OwnedMutexGuard<Duration> {
        self.row.clone().lock_owned().await
    }

    /// Whether dead letters were tried since the last call: keys may have been released.
    pub(super) fn news(&mut self) -> Result<bool> {
        let has_changed = self.status.has_changed();
        let status = self.status.borrow_and_update();
        if let Some(error) = &status.failed {
            return Err(Error::clone(error));
        }
        // A token is cancelled after its children: the runner may not know of the stop yet.
        if self.stop.is_cancelled() {
            return Ok(false);
        }
        has_changed.map_err(|_| {
            let what = "the retries of dead letters ended unexpectedly";
            Error::new(ErrorKind::Internal, what).with_hint("check the log, and run again")
        })
    }

    /// Whether requested retries are unfinished.
    pub(super) fn are_pending(&self) -> bool {
        let requested = requested(&self.cluster.borrow(), &self.key);
        self.status.borrow().is_pending(requested)
    }

    /// Whether keys may be released, or were since [`Retries::news`].
    pub(super) fn may_make_room(&self) -> bool {
        self.are_pending() || self.status.has_changed().unwrap_or(false)
    }

    /// Resolves when a dead letter was tried, or all were.
    pub(super) async fn changed(&mut self) {
        // An error means that the task is gone; the next step reports it.
        let _ = self.status.changed().await;
    }

    /// Lets the dead letter that is being tried end, within the grace of a stop.
    pub(super) async fn end(self) {
        self.stop.cancel();
        // A panic was reported where it happened.
        let _ = self.task.await;
    }
}

/// The revision of the cluster view, if it shows retries that were requested of a checkpoint.
fn requested(cluster: &ClusterView, key: &Key) -> Option<u64> {
    let mine = observed(cluster, key)?;
    mine.retries.then_some(cluster.revision)
}

struct Task {
    parts: Arc<RunnerParts>,
    applier: Applier,
    cluster: watch::Receiver<ClusterView>,
    row: Arc<BatchLock>,
    status: watch::Sender<Status>,
    /// The keys with a transient failure; they come after all others.
    put_off: Vec<EventKey>,
    stop: CancellationToken,
}

/// What the task does next.
enum Next {
    /// Continue, after the batch that waits.
    Continue,
    /// Leave the row to batches for this time.
    Pause(Duration),
    /// Wait until more retries may have been requested.
    Wait,
}

impl Task {
    async fn run(mut self) {
        let (stop, grace) = (self.stop.clone(), self.parts.settings.stop_grace);
        let in_flight = self.applier.in_flight.clone();
        let database = self.parts.target.clone();
        tokio::select! {
            () = self.rounds() => {}
            () = limit::stopped(&stop, grace, &in_flight, &database) => {}
        }
    }

    async fn rounds(&mut self) {
        let stop = self.stop.clone();
        let mut pauses = self.parts.pauses();
        while !stop.is_cancelled() {
            let next = match self.round().await {
                Ok(next) => {
                    pauses = self.parts.pauses();
                    next
                }
                Err(error) if is_permanent(error.kind()) => {
                    let error = Some(Arc::new(error));
                    self.status.send_modify(|status| status.failed = error);
                    return;
                }
                Err(error) => {
                    tracing::debug!(projection = %self.applier.key.projection, error = %error, "dead letters are retried later");
                    Next::Pause(pauses.next().unwrap_or(IN_A_ROW_MAX))
                }
            };
            match next {
                Next::Continue => {}
                Next::Pause(pause) => tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                },
                Next::Wait => tokio::select! {
                    () = stop.cancelled() => {}
                    changed = self.cluster.changed() => if changed.is_err() { return },
                },
            }
        }
    }

    /// Tries dead letters for the time that the last batch took, at least one.
    async fn round(&mut self) -> Result<Next> {
        let Some(revision) = self.unfinished() else {
            return Ok(Next::Wait);
        };
        let row = self.row.clone().lock_owned().await;
        let (began, limit) = (Instant::now(), row.min(IN_A_ROW_MAX));
        let _permit = self.parts.permit().await;
        loop {
            let Some(next) = self.next().await? else {
                self.finished(revision);
                return Ok(Next::Wait);
            };
            let tried = Instant::now();
            if !self.try_again(next).await? {
                return Ok(Next::Pause(tried.elapsed()));
            }
            if began.elapsed() >= limit || self.stop.is_cancelled() {
                return Ok(Next::Continue);
            }
        }
    }

    /// The revision of the cluster view, if retries that it shows are unfinished.
    fn unfinished(&mut self) -> Option<u64> {
        let cluster = self.cluster.borrow_and_update();
        let requested = requested(&cluster, &self.applier.key).filter(|_| cluster.is_trusted());
        let finished = self.status.borrow().finished;
        requested.filter(|revision| *revision > finished)
    }

    /// Every key was tried.
    fn finished(&mut self, revision: u64) {
        let some_wait = !self.put_off.is_empty();
        self.put_off.clear();
        self.status.send_modify(|status| {
            status.finished = revision;
            status.some_wait = some_wait;
        });
    }

    async fn next(&self) -> Result<Option<Requested>> {
        let client = self.parts.target.short().await?;
        let (key, epoch) = (&self.applier.key, self.applier.epoch);
        let asking = dead_letter::requested(&client, key, epoch, &self.put_off);
        client.within(asking).await
    }

    /// Tries to apply a dead letter. False if its key was put off.
    async fn try_again(&mut self, requested: Requested) -> Result<bool> {
        let event = requested.event;
        self.applier.partition_filter.parking = requested.parking;
        let (client, _) = self.applier.session().await?;
        let applying = self.applier.apply_dead_letter(client, event.clone());
        let (in_flight, limit) = (&self.applier.in_flight, self.parts.settings.batch_timeout);
        let applied = self.parts.in_time(in_flight, limit, applying).await;
        match applied {
            Ok(()) => {
                failpoint!("retry.committed");
                tracing::info!(projection = %self.applier.key.projection, position = %event.position, "a dead letter was applied");
            }
            Err(error) => match retried(error.kind()) {
                Retried::StaysParked => self.failed_again(error, &event).await?,
                Retried::PutOff => {
                    self.put_off(requested.key, &error, &event);
                    return Ok(false);
                }
                Retried::Later | Retried::Stop => return Err(error),
            },
        }
        self.status.send_modify(|status| status.tried += 1);
        Ok(true)
    }

    /// The failure may pass by itself, and no other key has to wait for that.
    fn put_off(&mut self, key: EventKey, error: &Error, event: &RecordedEvent) {
        let name = &self.applier.key.projection;
        self.parts.shared.failed(error);
        metrics::failure(name, error.kind());
        tracing::warn!(projection = %name, position = %event.position, error = %error, "a dead letter is retried later");
        self.put_off.push(key);
        self.status.send_modify(|status| status.some_wait = true);
    }

    async fn failed_again(&self, error: Error, event: &RecordedEvent) -> Result<()> {
        let name = &self.applier.key.projection;
        let error = parked(error, name, event);
        let cause = cause(&error, event);
        let (key, epoch) = (&self.applier.key, self.applier.epoch);
        let client = self.parts.target.short().await?;
        let telling = dead_letter::failed_again(&client, key, epoch, event.position, &cause);
        client.within(telling).await?;
        failpoint!("retry.refused");
        metrics::failure(name, error.kind());
        tracing::warn!(projection = %name, error = %error, "a dead letter failed again and stays parked");
        Ok(())
    }
}

/// Whether a round that ended with it is the last. A poison cannot come from a dead letter here: a
/// statement of our own failed.
fn is_permanent(kind: ErrorKind) -> bool {
    matches!(retried(kind), Retried::Stop | Retried::StaysParked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_pending_until_a_later_view_shows_none_or_all_were_tried() {
        let status = |finished, some_wait| Status {
            finished,
            some_wait,
            ..Status::default()
        };
        for (status, requested, expected) in [
            (status(0, false), None, false),
            (status(0, false), Some(1), true),
            (status(1, false), Some(1), false),
            (status(1, true), Some(1), true),
            (status(1, true), None, false),
            (status(1, false), Some(2), true),
        ] {
            assert_eq!(status.is_pending(requested), expected, "{status:?}");
        }
    }

    #[test]
    fn a_fence_or_something_transient_stops_no_projection() {
        assert!(!is_permanent(ErrorKind::Fenced));
        assert!(!is_permanent(ErrorKind::Locked));
        assert!(is_permanent(ErrorKind::Config));
    }
}
