//! Builds the next generation of a read model beside the live one, swaps, and drops the old.
//!
//! **Who is authoritative.** The projection's row: `generation` is what readers see,
//! `next_generation` what is being built, with the hash of the definition it is built with.
//!
//! **States.** none ──prepare──▶ filling ──fill──▶ caught up ──swap──▶ none. A rebuild that ends in
//! between resumes where it was, if the definition is still the same; else it starts again.
//!
//! **The swap.** One transaction locks the projection and its live checkpoints, which lets a batch
//! in flight finish and holds the next one back; the next generation is brought to exactly the
//! position of the live one; both schemas are renamed, grants are copied, the rows change. Readers
//! never block: renaming a schema locks none of its tables, and prepared statements follow.
//!
//! **Consequences.** A live runner finds its row gone, reads again and continues with the new
//! generation, if it has the same definition.
//!
//! **Failures.** A crash before the swap's commit leaves the live generation as it was; a crash
//! after it leaves the schema `NAME__old`, which the next rebuild drops. A next generation that can
//! never be complete, because events that it has not read were removed, is dropped.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::read_model::{
    check_dependents, create_schema, drop_schema, fill_schema, next_schema, old_schema,
    schema_exists, show_batch, swap_schemas,
};
use super::runner::Build;
use super::state::SharedProgress;
use super::transaction::{begin, end, lock_live, warn_if_blocked};
use super::{Engine, Monitor, Outcome, Settings, Until};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::key_hash;
use crate::name::ProjectionName;
use crate::pg::action::{self, OperatorAction};
use crate::pg::database::Database;
use crate::pg::projection::{self, StoredProjection};
use crate::position::Position;
use crate::projection::DynProjection;
use crate::source::Source;

mod next;

/// A rebuild of one projection.
pub struct Rebuild {
    target: Database,
    source: Arc<dyn Source>,
    projection: Arc<dyn DynProjection>,
    settings: Settings,
    progress: SharedProgress,
}

/// How a rebuild ended.
#[derive(Debug)]
pub enum Rebuilt {
    /// Readers see the new generation, which is at this position.
    Swapped {
        /// The number of the new generation.
        generation: i32,
        /// Its position.
        position: Position,
    },
    /// It was asked to stop before the swap, and resumes from here when called again.
    Interrupted {
        /// How far the next generation is.
        position: Position,
    },
}

impl Rebuild {
    /// A rebuild of `projection` in `target` from `source`.
    pub fn new(
        target: Database,
        source: Arc<dyn Source>,
        projection: Arc<dyn DynProjection>,
        settings: Settings,
    ) -> Rebuild {
        let progress = SharedProgress::new(projection.definition().name.clone());
        Rebuild {
            target,
            source,
            projection,
            settings,
            progress,
        }
    }

    /// Watches it while it runs.
    pub fn monitor(&self) -> Monitor {
        Monitor::new(vec![self.progress.clone()], CancellationToken::new())
    }

    /// Fills the next generation, swaps and drops the old one.
    ///
    /// # Errors
    /// If the projection has no read model yet, something outside depends on it, or the next
    /// generation stopped at an event; the live generation is then as it was.
    pub async fn run(&self, stop: CancellationToken) -> Result<Rebuilt> {
        let name = &self.projection.definition().name;
        let client = self.target.connector().connect().await?;
        drop_schema(&client, &old_schema(name)).await?;
        check_dependents(&client, name).await?;
        self.check_complete(&client).await?;
        let generation = self.prepare(&client).await?;
        drop(client);
        let head = self.source.head().await?;
        if !self.fill_or_give_up(generation, head, &stop).await? {
            let position = self.progress.get().position;
            return Ok(Rebuilt::Interrupted { position });
        }
        failpoint!("rebuild.filled");
        let position = self.swap(generation, &stop).await?;
        failpoint!("swap.committed");
        let client = self.target.connector().connect().await?;
        drop_schema(&client, &old_schema(name)).await?;
        Ok(Rebuilt::Swapped {
            generation,
            position,
        })
    }

    /// Refuses to build from a log whose oldest events were removed, unless an earlier attempt has
    /// read them.
    async fn check_complete(&self, client: &Client) -> Result<()> {
        let name = &self.projection.definition().name;
        let stored = projection::stored(client, name).await?;
        let stored = stored.ok_or_else(|| projection::not_built(name))?;
        let through = self.source.removed_through().await?;
        let generation = match self.goes_on(client, &stored).await? {
            Some(next) if next::read_up_to(client, name, next).await? >= through => return Ok(()),
            Some(next) => next,
            None if through == Position::START => return Ok(()),
            None => return Err(incomplete(name, self.source.name(), through)),
        };
        next::give_up(client, name, generation).await?;
        Err(incomplete(name, self.source.name(), through))
    }

    /// The next generation of an earlier attempt, if it has the same definition.
    async fn goes_on(&self, client: &Client, stored: &StoredProjection) -> Result<Option<i32>> {
        let definition = self.projection.definition();
        let is_same = stored.next_hash.as_deref() == Some(&definition.hash)
            && stored.next_key_hash.as_deref() == Some(key_hash::NAME);
        match stored.next_generation {
            Some(next) if is_same => {
                let is_there = schema_exists(client, &next_schema(&definition.name)).await?;
                Ok(is_there.then_some(next))
            }
            _ => Ok(None),
        }
    }

    /// Fills it; if events that it has not read are removed meanwhile, drops it.
    async fn fill_or_give_up(
        &self,
        generation: i32,
        head: Position,
        stop: &CancellationToken,
    ) -> Result<bool> {
        match self.fill(generation, head, stop).await {
            Err(error) if error.kind() == ErrorKind::Stranded => {
                let name = &self.projection.definition().name;
                let client = self.target.connector().connect().await?;
                next::give_up(&client, name, generation).await?;
                let through = self.source.removed_through().await?;
                Err(incomplete(name, self.source.name(), through).with_source(error))
            }
            filled => filled,
        }
    }

    /// Creates the rows and the schema of the next generation, or recognises those of an earlier
    /// attempt. Returns its number.
    async fn prepare(&self, client: &Client) -> Result<i32> {
        let name = &self.projection.definition().name;
        let stored = projection::stored(client, name).await?;
        let stored = stored.ok_or_else(|| projection::not_built(name))?;
        if let Some(next) = self.goes_on(client, &stored).await? {
            return Ok(next);
        }
        let identity = self.source.identity().await?;
        begin(client).await?;
        let done = async {
            warn_if_blocked(name, projection::lock(client, name)).await?;
            let next = next::insert(client, self.projection.definition(), &identity).await?;
            let schema = next_schema(name);
            // Any earlier rebuild of it is fenced by now.
            drop_schema(client, &schema).await?;
            create_schema(client, &schema).await?;
            fill_schema(client, &*self.projection, &schema).await?;
            projection::create_positions(client, &schema, name, next).await?;
            show_batch(client, &*self.projection, &*self.source, &schema).await?;
            action::record(client, name, OperatorAction::RebuildBegun(next)).await?;
            failpoint!("rebuild.begun");
            Ok(next)
        };
        let next = end(client, done.await).await?;
        failpoint!("rebuild.committed");
        Ok(next)
    }

    /// Brings the next generation to `head`. False if it was asked to stop before.
    async fn fill(
        &self,
        generation: i32,
        head: Position,
        stop: &CancellationToken,
    ) -> Result<bool> {
        let engine = Engine::new(self.target.clone(), self.settings.clone())
            .source(self.source.clone())
            .build(
                self.projection.clone(),
                Build::Next(generation),
                self.progress.clone(),
            );
        let report = engine.run(Until::Passed(head), stop.clone()).await?;
        match report.outcomes.into_iter().next() {
            Some((_, Outcome::CaughtUp)) => Ok(true),
            Some((_, Outcome::Stopped(error))) => Err(error),
            Some((_, Outcome::Drained)) | None => Ok(false),
        }
    }

    /// Locks the live checkpoint, brings the next generation to the same position, and renames.
    async fn swap(&self, generation: i32, stop: &CancellationToken) -> Result<Position> {
        let name = &self.projection.definition().name;
        // Of its own: dropped in the middle, the connection ends and rolls its transaction back.
        let client = self.target.connector().connect().await?;
        begin(&client).await?;
        let done = async {
            // A log that went back has no event at the position of the live generation.
            let live = lock_live(&client, name)
                .await?
                .min(self.source.head().await?);
            if self.progress.get().position < live && !self.fill(generation, live, stop).await? {
                let what = "the rebuild was stopped right before the swap";
                return Err(
                    Error::new(ErrorKind::TimedOut, what).with_hint("run it again to continue")
                );
            }
            next::swap(&client, name, generation).await?;
            swap_schemas(&client, name).await?;
            action::record(&client, name, OperatorAction::RebuildSwapped(generation)).await?;
            failpoint!("swap.renamed");
            Ok(live.max(self.progress.get().position))
        };
        end(&client, done.await).await
    }
}

fn incomplete(name: &ProjectionName, source: &str, through: Position) -> Error {
    let what = format!(
        "\"{name}\" cannot be rebuilt: events of source \"{source}\" up to {through} were removed, \
         and a new read model would lack them; the present one stays as it is"
    );
    Error::new(ErrorKind::Stranded, what).with_hint(format!(
        "highwater accept {name} keeps the read model; to build one from the events that are left: \
         highwater drop {name}, highwater run {name}, which stops as stranded, and then highwater \
         accept {name}"
    ))
}
