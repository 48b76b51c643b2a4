//! One projection in this process. The supervisor prepares its read model, and then for each view of the
//! cluster makes a [`plan`](mod@plan), carries it out and reports.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::instance::{ClusterView, FencedPartitions};
use super::progress::Subscriber;
use super::runner::{self, Build, Ended, Runner};
use super::state::SharedProgress;
use super::{Outcome, Settings, apply};
use crate::error::{Error, ErrorKind};
use crate::failpoint::failpoint;
use crate::pg::database::Database;
use crate::pg::instance::{self, ObservedProjection};
use crate::pg::projection;
use crate::position::Position;
use crate::projection::{Definition, DynProjection};
use crate::runner_state::RunnerState;
use crate::source::Source;

mod local;
mod plan;
mod prepare;

use local::{Local, PartitionId};
use plan::{Finish, PlannedAction, View, plan};

/// What a supervisor is made of.
pub(super) struct SupervisorParts {
    pub(super) target: Database,
    pub(super) source: Arc<dyn Source>,
    pub(super) projection: Arc<dyn DynProjection>,
    pub(super) subscriber: Subscriber,
    /// The head that ends this run once every partition has passed it.
    pub(super) until: Option<Position>,
    pub(super) instance: Uuid,
    pub(super) cluster: watch::Receiver<ClusterView>,
    /// Makes the instance poll the cluster.
    pub(super) wake: Arc<Notify>,
    pub(super) settings: Settings,
    pub(super) progress: SharedProgress,
    pub(super) fenced: FencedPartitions,
    /// One for each session that batches may take.
    pub(super) permits: Arc<Semaphore>,
}

pub(super) struct Supervisor {
    parts: SupervisorParts,
    local: Local,
    runners: JoinSet<(PartitionId, Ended)>,
    /// What ends each running runner.
    stops: BTreeMap<i32, CancellationToken>,
    /// The log has said that a pause holds the run.
    warned_of_pause: bool,
}

impl Supervisor {
    pub(super) fn new(parts: SupervisorParts) -> Supervisor {
        Supervisor {
            local: Local {
                me: parts.instance,
                hash: parts.projection.definition().hash.clone(),
                until: parts.until,
                ..Local::default()
            },
            runners: JoinSet::new(),
            stops: BTreeMap::new(),
            parts,
            warned_of_pause: false,
        }
    }

    /// Runs the live build until the end of the run, a stop, or an error that no retry overcomes.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Outcome {
        let outcome = match self.prepared(&stop).await {
            Ok(Some(generation)) => self.supervise(generation, &stop).await,
            Ok(None) => Outcome::Drained,
            Err(error) => Outcome::Stopped(error),
        };
        self.end_all();
        while self.runners.join_next().await.is_some() {}
        self.parts.progress.over();
        self.parts.wake.notify_one();
        self.ended_with(outcome)
    }

    fn ended_with(&self, outcome: Outcome) -> Outcome {
        if let Outcome::Stopped(error) = &outcome {
            self.parts.progress.stopped(error);
        }
        outcome
    }

    /// Runs every partition of the generation that a rebuild fills. Nobody else does.
    pub(super) async fn run_next(mut self, generation: i32, stop: CancellationToken) -> Outcome {
        let partitions = match self.partitions_of(generation, &stop).await {
            Ok(Some(partitions)) => partitions,
            Ok(None) => return Outcome::Drained,
            Err(error) => return self.ended_with(Outcome::Stopped(error)),
        };
        for partition in 0..partitions {
            self.start(partition, Build::Next(generation), generation, &stop);
        }
        let mut outcome = Outcome::CaughtUp;
        while let Some(ended) = self.runners.join_next().await {
            let ended = ended.map_or(Ended::Drained, |(_, ended)| ended);
            outcome = local::worse(outcome, ended);
            if matches!(outcome, Outcome::Stopped(_)) {
                self.end_all();
            }
        }
        self.ended_with(outcome)
    }

    /// Observes, plans and carries out, until the run is over.
    async fn supervise(&mut self, generation: i32, stop: &CancellationToken) -> Outcome {
        self.local.generation = generation;
        // A batch job takes free partitions and ends soon: no instance gives it a share.
        if self.parts.until.is_none() {
            self.parts.progress.able_to_run();
        }
        self.parts.wake.notify_one();
        // A view that was read while the read model was created may not show it.
        self.local.visible_from = self.parts.cluster.borrow().revision + 2;
        loop {
            if stop.is_cancelled() {
                return Outcome::Drained;
            }
            let cluster = self.parts.cluster.borrow_and_update().clone();
            if let Some(outcome) = self.follow(&cluster, stop).await {
                return outcome;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Some(ended) = self.runners.join_next() => {
                    if let Ok((id, ended)) = ended
                        && let Some(outcome) = self.ended(id, ended, cluster.revision)
                    {
                        return outcome;
                    }
                }
                changed = self.parts.cluster.changed() => {
                    if changed.is_err() {
                        let what = "the instance's heartbeat ended unexpectedly";
                        let error = Error::new(ErrorKind::Internal, what);
                        return Outcome::Stopped(error.with_hint("check the log, and run again"));
                    }
                }
            }
        }
    }

    /// Plans for a view of the cluster and carries the plan out. An outcome if the run is over.
    async fn follow(&mut self, cluster: &ClusterView, stop: &CancellationToken) -> Option<Outcome> {
        let observed = cluster.projection(&self.definition().name);
        if let Some(projection) = observed {
            self.local.observe(projection);
            self.show(projection);
            self.warn_if_paused(projection);
        }
        let share = observed.map(|p| cluster.share(self.parts.instance, p));
        let share = share.unwrap_or_default();
        let view = View {
            revision: cluster.revision,
            projection: observed,
            share: &share,
        };
        for action in plan(view, &self.local) {
            match action {
                PlannedAction::Finish(finish) => return Some(self.outcome(&finish, observed)),
                PlannedAction::Repartition => {
                    if self.repartition().await {
                        // The rest of the plan is about partitions that no longer exist.
                        return None;
                    }
                }
                PlannedAction::End(partition) => self.end(partition),
                PlannedAction::Start(partition) => {
                    self.start(partition, Build::Live, self.local.generation, stop);
                }
            }
        }
        None
    }

    fn outcome(&self, finish: &Finish, observed: Option<&ObservedProjection>) -> Outcome {
        let definition = self.definition();
        Outcome::Stopped(match finish {
            Finish::CaughtUp => return Outcome::CaughtUp,
            Finish::Dropped => projection::dropped(&definition.name),
            Finish::NoCheckpoint => projection::no_checkpoint(&definition.name),
            Finish::Changed => projection::changed(&definition.name)
                .with_hint("this process has the old definition: restart it"),
            Finish::Stopped(partition) => {
                let checkpoints = observed.map(|p| &p.checkpoints);
                let mut stopped = checkpoints.into_iter().flatten();
                let stopped = stopped.find(|c| c.partition == *partition);
                let stored = stopped.and_then(|c| c.error.as_ref());
                self.local.error_of(*partition, stored)
            }
        })
    }

    /// Shows what the projection does while none of its runners is here.
    fn show(&self, projection: &ObservedProjection) {
        let progress = &self.parts.progress;
        progress.set_state(match projection.paused {
            true => RunnerState::Paused,
            false => RunnerState::Standby,
        });
        let positions = projection.checkpoints.iter().map(|c| c.position);
        let lowest = positions.min().unwrap_or_default();
        let mark = self.parts.subscriber.progress.borrow().mark;
        progress.set_position(lowest, self.parts.until.unwrap_or(mark));
    }

    /// A run that is to end by itself waits for as long as the pause lasts.
    fn warn_if_paused(&mut self, projection: &ObservedProjection) {
        if projection.paused && self.parts.until.is_some() && !self.warned_of_pause {
            tracing::warn!(projection = %projection.name, "is paused; highwater resume resumes it");
        }
        self.warned_of_pause = projection.paused;
    }

    /// One step of a change of the number of partitions. True if it did anything.
    async fn repartition(&self) -> bool {
        let name = &self.definition().name;
        let done = async {
            let client = self.parts.target.short().await?;
            failpoint!("repartition.begun");
            let done = client
                .within(projection::repartition(&client, name))
                .await?;
            failpoint!("repartition.committed");
            if done {
                tracing::info!(projection = %name, "changing the number of partitions");
                instance::wake(&client).await;
                self.parts.wake.notify_one();
            }
            Ok::<_, Error>(done)
        };
        done.await.unwrap_or_else(|error| {
            tracing::warn!(projection = %name, error = %error, "the number of partitions was not changed yet");
            false
        })
    }

    fn start(&mut self, partition: i32, build: Build, generation: i32, stop: &CancellationToken) {
        let parts = &self.parts;
        let shared = parts.progress.add(partition);
        let runner = Runner::new(runner::RunnerParts {
            target: parts.target.clone(),
            source: parts.source.clone(),
            projection: parts.projection.clone(),
            build,
            generation,
            partition,
            subscriber: parts.subscriber.clone(),
            until: parts.until,
            instance: parts.instance,
            cluster: parts.cluster.clone(),
            settings: parts.settings.clone(),
            shared: shared.clone(),
            fenced: parts.fenced.clone(),
            wake: parts.wake.clone(),
            permits: parts.permits.clone(),
        });
        let stop = stop.child_token();
        self.local.running.insert(partition);
        self.stops.insert(partition, stop.clone());
        let id = self.local.id(partition);
        self.runners.spawn(async move {
            // Outside of a batch: after a panic inside one, the runner stops the projection.
            let ended = AssertUnwindSafe(runner.run(stop)).catch_unwind().await;
            let ended = ended.unwrap_or_else(|panic| {
                let error = apply::panicked(&*panic);
                shared.stopped(&error);
                Ended::Stopped(error)
            });
            (id, ended)
        });
    }

    fn end(&mut self, partition: i32) {
        if let Some(stop) = self.stops.get(&partition) {
            stop.cancel();
            self.local.ending.insert(partition);
        }
    }

    fn end_all(&self) {
        self.stops.values().for_each(CancellationToken::cancel);
    }

    /// A runner has ended. An outcome if that ends the run of the projection.
    fn ended(&mut self, id: PartitionId, ended: Ended, revision: u64) -> Option<Outcome> {
        let partition = id.partition;
        let after = self.local.ended(id, ended, revision);
        self.stops.remove(&partition);
        let wake = self.parts.wake.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after.poll_after).await;
            wake.notify_one();
        });
        if after.is_final {
            return Some(self.outcome(&Finish::Stopped(partition), None));
        }
        // A runner that stopped here shows why.
        if !self.local.stopped.contains_key(&partition) {
            self.parts.progress.remove(partition);
        }
        None
    }

    fn definition(&self) -> &Definition {
        self.parts.projection.definition()
    }
}
