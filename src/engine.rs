//! The engine: all runners of a process, one reader per source, and the instance they belong to.
//!
//! It knows [`Source`] and [`DynProjection`] and no table, file or protocol behind them. Dropping the
//! future of [`Engine::run`] is like a crash and as safe; cancelling its token drains.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::name::ProjectionName;
use crate::pg;
use crate::pg::database::Database;
use crate::position::Position;
use crate::projection::{DynProjection, check_names};
use crate::source::Source;

mod apply;
mod batch_size;
pub(crate) mod divergence;
mod instance;
mod isolate;
mod monitor;
pub mod operate;
mod prepare;
mod progress;
pub(crate) mod read_model;
mod reader;
pub mod rebuild;
mod recent;
pub(crate) mod recorder;
mod runner;
mod share;
mod state;
mod supervisor;
pub(crate) mod transaction;

pub use crate::config::Engine as Settings;
pub use crate::runner_state::RunnerState;
pub use monitor::{Changes, Monitor};
pub use state::{ProjectionProgress, RunnerStatus};

use reader::Reader;
use recorder::{Recorder, SharedBlocks};
use runner::Build;
use state::SharedProgress;
use supervisor::Supervisor;

/// How long a run lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Until {
    /// Until it is stopped.
    Stopped,
    /// Until every projection has passed the head that was there at the start, or has stopped.
    CaughtUp,
    /// Until every projection has passed this position, or has stopped.
    Passed(Position),
}

/// How a runner ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It passed the head that was fixed at the start.
    CaughtUp,
    /// It was asked to stop, and stopped after its batch.
    Drained,
    /// It was stopped by this error, which is stored with its checkpoint.
    Stopped(Error),
}

impl Outcome {
    /// The error, if it ended by one.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Outcome::CaughtUp | Outcome::Drained => None,
            Outcome::Stopped(error) => Some(error),
        }
    }
}

/// How a run ended, for each projection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The projections and their outcomes, by name.
    pub outcomes: Vec<(ProjectionName, Outcome)>,
}

/// Runs projections against one target database.
pub struct Engine {
    target: Database,
    sources: HashMap<String, Arc<dyn Source>>,
    settings: Settings,
    runs: Vec<Run>,
    ended: CancellationToken,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .runs
            .iter()
            .map(|run| &run.projection.definition().name);
        let projections: Vec<&ProjectionName> = names.collect();
        f.debug_struct("Engine")
            .field("target", &self.target)
            .field("projections", &projections)
            .finish_non_exhaustive()
    }
}

/// One projection to be run.
struct Run {
    projection: Arc<dyn DynProjection>,
    build: Build,
    progress: SharedProgress,
}

impl Engine {
    /// An engine for read models in `target`.
    pub fn new(target: Database, settings: Settings) -> Engine {
        Engine {
            target: target.with_answer_timeout(settings.answer_timeout),
            sources: HashMap::new(),
            settings,
            runs: Vec::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Adds a source, under its own name.
    #[must_use]
    pub fn source(mut self, source: Arc<dyn Source>) -> Engine {
        self.sources.insert(source.name().to_owned(), source);
        self
    }

    /// Adds a projection.
    #[must_use]
    pub fn projection(self, projection: Arc<dyn DynProjection>) -> Engine {
        let progress = SharedProgress::new(projection.definition().name.clone());
        self.build(projection, Build::Live, progress)
    }

    fn build(
        mut self,
        projection: Arc<dyn DynProjection>,
        build: Build,
        progress: SharedProgress,
    ) -> Engine {
        self.runs.push(Run {
            projection,
            build,
            progress,
        });
        self
    }

    /// Watches it while it runs.
    pub fn monitor(&self) -> Monitor {
        Monitor::new(self.progress(), self.ended.clone())
    }

    fn progress(&self) -> Vec<SharedProgress> {
        self.runs.iter().map(|run| run.progress.clone()).collect()
    }

    /// Runs until `stop` is cancelled, `until` is reached, or every projection has stopped.
    ///
    /// # Errors
    /// If nothing could be started: two projections of one name, a projection whose source is not
    /// known, or a database that does not answer. The failure of one projection is in the report.
    pub async fn run(self, until: Until, stop: CancellationToken) -> Result<Report> {
        let _ended = self.ended.clone().drop_guard();
        check_names(self.runs.iter().map(|run| &*run.projection))?;
        self.check_sources()?;
        let heads = self.heads(until).await?;
        let (readers, blocks) = self.start_readers(until);
        let instance = Uuid::new_v4();
        let fenced = instance::FencedPartitions::default();
        let permits = self.permits();
        let (sender, cluster) = watch::channel(instance::ClusterView::default());
        let wake = Arc::new(Notify::new());
        let mut supervisors = JoinSet::new();
        let mut names = HashMap::new();
        for run in &self.runs {
            let definition = run.projection.definition();
            let source = self.sources[&definition.source].clone();
            let supervisor = Supervisor::new(supervisor::SupervisorParts {
                target: self.target.clone(),
                subscriber: readers[source.name()].clone(),
                until: heads.get(source.name()).copied(),
                source,
                projection: run.projection.clone(),
                instance,
                cluster: cluster.clone(),
                wake: wake.clone(),
                settings: self.settings.clone(),
                progress: run.progress.clone(),
                fenced: fenced.clone(),
                permits: permits.clone(),
            });
            let stop = stop.clone();
            let task = match run.build {
                Build::Live => supervisors.spawn(supervisor.run(stop)),
                Build::Next(next) => supervisors.spawn(supervisor.run_next(next, stop)),
            };
            names.insert(task.id(), definition.name.clone());
        }
        let recorders = self.start_recorders(until, instance, &readers, blocks, &cluster);
        let heartbeat = instance::Heartbeat {
            instance,
            target: self.target.clone(),
            lease: self.settings.lease,
            listen: self.settings.listen,
            progress: self.progress(),
            readers: readers.into_iter().collect(),
            fenced,
            view: sender,
            wake,
        };
        let ended = CancellationToken::new();
        let beating = AbortOnDropHandle::new(tokio::spawn(heartbeat.run(ended.clone())));
        let outcomes = collect(supervisors, &names).await;
        recorders.end(self.settings.stop_grace).await;
        // A renewal that is under way would record the instance again after its sign-off.
        ended.cancel();
        let _ = tokio::time::timeout(self.settings.stop_grace, beating).await;
        self.sign_off(instance).await;
        Ok(Report { outcomes })
    }

    fn check_sources(&self) -> Result<()> {
        for run in &self.runs {
            let definition = run.projection.definition();
            if !self.sources.contains_key(&definition.source) {
                let what = format!(
                    "projection \"{}\" reads the source \"{}\", which is not configured",
                    definition.name, definition.source
                );
                return Err(Error::new(ErrorKind::Config, what).with_hint(
                    "name a configured source; \"default\" is highwater's own event table",
                ));
            }
        }
        Ok(())
    }

    /// Batches leave one session of the pool to the short statements of all others: the heartbeat
    /// must not wait for a batch.
    fn permits(&self) -> Arc<Semaphore> {
        let sessions = self.target.pool().status().max_size;
        Arc::new(Semaphore::new(sessions.saturating_sub(1).max(1)))
    }

    async fn heads(&self, until: Until) -> Result<HashMap<String, Position>> {
        let mut heads = HashMap::new();
        for (name, source) in &self.sources {
            let head = match until {
                Until::Stopped => continue,
                Until::CaughtUp => source.head().await?,
                Until::Passed(position) => position,
            };
            heads.insert(name.clone(), head);
        }
        Ok(heads)
    }

    /// One for each source: it records what the reader read.
    fn start_recorders(
        &self,
        until: Until,
        instance: Uuid,
        readers: &HashMap<String, progress::Subscriber>,
        blocks: HashMap<String, SharedBlocks>,
        cluster: &watch::Receiver<instance::ClusterView>,
    ) -> Recorders {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (name, blocks) in blocks {
            let recorder = Recorder {
                source: self.sources[&name].clone(),
                target: self.target.clone(),
                blocks,
                subscriber: readers[&name].clone(),
                instance,
                cluster: cluster.clone(),
                counts_later: until == Until::Stopped,
                stop: stop.clone(),
            };
            tasks.spawn(recorder.run());
        }
        Recorders { tasks, stop }
    }

    fn start_readers(
        &self,
        until: Until,
    ) -> (
        HashMap<String, progress::Subscriber>,
        HashMap<String, SharedBlocks>,
    ) {
        // New events do not matter to a run whose end is fixed.
        let listen = self.settings.listen && until == Until::Stopped;
        let settings = Settings {
            listen,
            ..self.settings.clone()
        };
        let (mut subscribers, mut all_blocks) = (HashMap::new(), HashMap::new());
        for (name, source) in &self.sources {
            let unfollowed = CancellationToken::new();
            let (publisher, subscriber) = progress::channel(unfollowed.clone().drop_guard());
            let blocks = SharedBlocks::default();
            let reader = Reader {
                source: source.clone(),
                target: self.target.clone(),
                settings: settings.clone(),
                publisher,
                blocks: blocks.clone(),
                stop: unfollowed,
            };
            tokio::spawn(reader.run());
            subscribers.insert(name.clone(), subscriber);
            all_blocks.insert(name.clone(), blocks);
        }
        (subscribers, all_blocks)
    }

    /// Best effort: an instance that does not sign off is forgotten when its lease ends.
    async fn sign_off(&self, instance: Uuid) {
        let done = async {
            let client = self.target.short().await?;
            failpoint!("leave.begun");
            let leaving = pg::instance::leave(&client, instance);
            client.within(leaving).await?;
            pg::instance::wake(&client).await;
            Ok::<_, Error>(())
        };
        match tokio::time::timeout(self.settings.stop_grace, done).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = %error, "the instance did not sign off"),
            Err(_) => tracing::debug!("the instance did not sign off in time"),
        }
    }
}

/// The recorders of a run.
struct Recorders {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Recorders {
    /// Lets each record what it has. Best effort: what is not recorded is counted later.
    async fn end(mut self, grace: Duration) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::debug!("what the log holds was not recorded in time; it is counted later");
        }
    }
}

type Names = HashMap<tokio::task::Id, ProjectionName>;

async fn collect(
    mut supervisors: JoinSet<Outcome>,
    names: &Names,
) -> Vec<(ProjectionName, Outcome)> {
    let mut outcomes = Vec::new();
    while let Some(ended) = supervisors.join_next_with_id().await {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(ended) => {
                let id = ended.id();
                let error = match ended.try_into_panic() {
                    Ok(panic) => apply::panicked(&*panic),
                    Err(ended) => Error::new(ErrorKind::Internal, ended.to_string()),
                };
                (id, Outcome::Stopped(error))
            }
        };
        if let Some(name) = names.get(&id) {
            outcomes.push((name.clone(), outcome));
        }
    }
    outcomes.sort_by(|a, b| a.0.cmp(&b.0));
    outcomes
}
