//! A handle that stops, pauses and watches the projections of a program.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::{Changes, Monitor, ProjectionProgress};
use crate::error::Result;
use crate::pause::{self, Paused};
use crate::pg::database::Database;
use crate::projection::Definition;
use crate::source::Source;
use crate::status::{self, Status};
use crate::wait::{self, Target, Waited};

/// Stops, pauses and watches projections while they run. Clones are handles of the same run.
#[derive(Clone)]
pub struct Handle(Arc<Parts>);

/// What a handle is made of.
pub(super) struct Parts {
    pub(super) target: Database,
    pub(super) sources: Vec<Arc<dyn Source>>,
    pub(super) definitions: Vec<Definition>,
    pub(super) monitor: Monitor,
    pub(super) stop: CancellationToken,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.definitions.iter().map(|definition| &definition.name);
        f.debug_list().entries(names).finish()
    }
}

impl Handle {
    pub(super) fn new(parts: Parts) -> Handle {
        Handle(Arc::new(parts))
    }

    /// Lets the run end: batches in flight are finished, then [`Highwater::run`](super::Highwater::run)
    /// returns.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Pauses a projection on all instances, and waits up to `limit` until none works on it. It stays
    /// paused, also when the program ends, until [`Handle::resume`].
    ///
    /// # Errors
    /// If there is no such projection, or the database refuses.
    pub async fn pause(&self, projection: &str, limit: Duration) -> Result<Paused> {
        pause::pause(&self.0.target, &projection.parse()?, limit).await
    }

    /// Resumes a paused projection. False if it was not paused.
    ///
    /// # Errors
    /// As [`Handle::pause`].
    pub async fn resume(&self, projection: &str) -> Result<bool> {
        pause::resume(&self.0.target, &projection.parse()?).await
    }

    /// Waits until a read model includes a position: one that an append returned, or the head.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use highwater::{Handle, Position, Waited};
    /// # async fn example(handle: Handle, appended: Position) -> highwater::Result<()> {
    /// match handle.wait("balances", appended, Duration::from_secs(5)).await? {
    ///     Waited::Visible { .. } => println!("the read model has it"),
    ///     other => println!("not yet: {other}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown projection, and those of the
    /// database.
    pub async fn wait(
        &self,
        projection: &str,
        target: impl Into<Target>,
        timeout: Duration,
    ) -> Result<Waited> {
        let Parts {
            target: database,
            sources,
            definitions,
            ..
        } = &*self.0;
        let target = target.into();
        wait::until_visible(database, sources, definitions, projection, target, timeout).await
    }

    /// The progress of each projection in this process now.
    pub fn projections(&self) -> Vec<ProjectionProgress> {
        self.0.monitor.projections()
    }

    /// The progress of the projections in this process as it changes, until the run ends.
    pub fn subscribe(&self) -> Changes {
        self.0.monitor.subscribe()
    }

    /// The status of all projections in the database, also of other instances, as `highwater
    /// status` shows it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn status(&self) -> Result<Status> {
        status::read(&self.0.target, &self.0.sources, &self.0.definitions).await
    }
}
