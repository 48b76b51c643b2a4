//! THE loop: claim, then wait, read, apply, repeat. One runner is one partition of one projection.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Settings;
use super::apply::InFlight;
use super::instance::{ClusterView, FencedPartitions};
use super::progress::Subscriber;
use super::state::SharedStatus;
use crate::error::{Error, Result};
use crate::metrics;
use crate::pg::checkpoint::{Epoch, Key};
use crate::pg::database::Database;
use crate::position::Position;
use crate::projection::{Definition, DynProjection};
use crate::retry::delays;
use crate::runner_state::RunnerState;
use crate::source::Source;

mod claim;
mod claimed;
mod decide;
mod failure;
mod limit;
mod park;
mod read_limits;
mod retries;

use claimed::Claimed;

pub(super) use failure::REPORT_LIMIT;

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
    /// It was asked to end, and ended after its batch.
    Drained,
    /// Its partition ends here: the number of partitions changes.
    Repartitioned,
    /// Another instance has its checkpoint, or a predecessor's batch is still in flight.
    Busy,
    /// Its checkpoint went to another instance, or another generation.
    Lost(Error),
    /// It was stopped by this error, which is stored with its checkpoint.
    Stopped(Error),
}

/// The outcome of one step of a runner.
enum StepOutcome {
    /// Something was done; take the next step.
    Done,
    /// There is nothing to do until something changes, or until this time.
    Wait(Option<Instant>),
    /// It failed and may succeed later.
    Retry,
    /// The runner has ended.
    End(Ended),
}

/// What a runner is made of.
pub(super) struct RunnerParts {
    pub(super) target: Database,
    pub(super) source: Arc<dyn Source>,
    pub(super) projection: Arc<dyn DynProjection>,
    pub(super) build: Build,
    pub(super) generation: i32,
    pub(super) partition: i32,
    pub(super) subscriber: Subscriber,
    /// The head that ends this run once it is passed.
    pub(super) until: Option<Position>,
    pub(super) instance: Uuid,
    pub(super) cluster: watch::Receiver<ClusterView>,
    /// Makes the instance report its runners.
    pub(super) wake: Arc<Notify>,
    pub(super) settings: Settings,
    pub(super) shared: SharedStatus,
    pub(super) fenced: FencedPartitions,
    /// Permits for sessions: a task holds one while it applies something.
    pub(super) permits: Arc<Semaphore>,
}

/// A runner. What needs a checkpoint is in [`Claimed`], which is there once the claim succeeded.
pub(super) struct Runner {
    parts: Arc<RunnerParts>,
    /// The channels that wake it; they remember what it has seen.
    subscriber: Subscriber,
    cluster: watch::Receiver<ClusterView>,
    claimed: Option<Claimed>,
    /// The checkpoint to release at the end, even if the claim failed.
    owned: Option<(Key, Epoch)>,
    in_flight: InFlight,
    attempts: u32,
    stop: CancellationToken,
}

impl Runner {
    pub(super) fn new(parts: RunnerParts) -> Runner {
        Runner {
            subscriber: parts.subscriber.clone(),
            cluster: parts.cluster.clone(),
            parts: Arc::new(parts),
            claimed: None,
            owned: None,
            in_flight: InFlight::default(),
            attempts: 0,
            stop: CancellationToken::new(),
        }
    }

    /// Runs until the end of the run, a stop, or a permanent error. The checkpoint is released,
    /// unless it was lost.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Ended {
        self.stop = stop;
        let ended = self.steps().await;
        if let Some(claimed) = self.claimed.take() {
            claimed.end().await;
        }
        if !matches!(ended, Ended::Lost(_)) {
            self.release().await;
        }
        ended
    }

    /// THE loop.
    async fn steps(&mut self) -> Ended {
        let mut pauses = self.parts.pauses();
        while !self.stop.is_cancelled() {
            let grace_is_over = self.grace_is_over();
            let step = tokio::select! {
                step = self.step() => step,
                () = grace_is_over => break,
            };
            match step {
                StepOutcome::Done => pauses = self.parts.pauses(),
                StepOutcome::Wait(until) => self.wait(until).await,
                StepOutcome::Retry => self.pause(pauses.next()).await,
                StepOutcome::End(ended) => return ended,
            }
        }
        self.drain().await
    }

    /// One step and its consequences, an error included.
    async fn step(&mut self) -> StepOutcome {
        match self.next().await {
            Ok(step) => {
                if matches!(step, StepOutcome::Done) {
                    self.attempts = 0;
                }
                step
            }
            Err(error) => self.failed(error).await,
        }
    }

    async fn next(&mut self) -> Result<StepOutcome> {
        if !self.cluster.borrow_and_update().is_trusted() {
            // Another instance might have taken over: do nothing.
            self.waits_for_the_lease();
            return Ok(StepOutcome::Wait(None));
        }
        let Some(claimed) = &mut self.claimed else {
            return self.claim().await;
        };
        let progress = self.subscriber.progress.borrow_and_update().clone();
        self.subscriber.check_reader()?;
        if let Some(trouble) = &progress.trouble {
            self.parts.waits_for_the_source(trouble);
            return Ok(StepOutcome::Wait(None));
        }
        if progress.session == 0 {
            return Ok(StepOutcome::Wait(None));
        }
        claimed.step(&progress).await
    }

    /// Waits for a change that a step depends on.
    async fn wait(&mut self, until: Option<Instant>) {
        let _awaiting = self.subscriber.awaiting();
        let claimed = &mut self.claimed;
        let retries = async move {
            match claimed {
                Some(claimed) => claimed.retries.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            Ok(()) = self.subscriber.progress.changed() => {}
            () = self.parts.fenced.changed() => {}
            Ok(()) = self.cluster.changed() => {}
            () = retries => {}
            () = at(until) => {}
        }
    }

    /// Waits after an error, at most until the source answers again.
    async fn pause(&self, pause: Option<Duration>) {
        let pause = pause.unwrap_or(self.parts.settings.retry_delay_max);
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.subscriber.begun_again() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Resolves when a stop was requested and the grace of the batch in flight is over: the batch
    /// is cancelled in the server, and the caller drops it.
    fn grace_is_over(&self) -> impl Future<Output = ()> + use<> {
        let (stop, grace) = (self.stop.clone(), self.parts.settings.stop_grace);
        let (in_flight, database) = (self.in_flight.clone(), self.parts.target.clone());
        async move { limit::stopped(&stop, grace, &in_flight, &database).await }
    }

    /// Stores the position, and ends.
    async fn drain(&mut self) -> Ended {
        self.parts.set_state(RunnerState::Draining);
        if let Some(claimed) = &mut self.claimed {
            claimed.flush_before_the_end().await;
        }
        Ended::Drained
    }
}

impl RunnerParts {
    fn definition(&self) -> &Definition {
        self.projection.definition()
    }

    fn set_state(&self, state: RunnerState) {
        if self.shared.set_state(state) {
            let name = &self.definition().name;
            metrics::state(name, state);
            tracing::debug!(projection = %name, state = %state, "state");
        }
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        delays(self.settings.retry_delay_max)
    }

    /// A permit for a session. Without it the pool alone would make runners wait.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.permits.clone().acquire_owned().await.ok()
    }
}

/// Resolves at this time, or never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}
