//! Builds the next generation of a read model beside the live one, swaps, and drops the old.
//!
//! **Who is authoritative.** The projection's row: `generation` is what readers see,
//! `next_generation` what is being built, with the hash of the definition it is built with.
//!
//! **States.** none ──prepare──▶ filling ──fill──▶ caught up ──swap──▶ none. A rebuild that ends
//! in between goes on where it was, if the definition is still the same; else it begins again.
//!
//! **The swap.** One transaction locks the projection and its live checkpoints, which lets a batch in flight finish
//! and holds the next one back; the next generation is brought to exactly where the live one
//! stands; both schemas are renamed, grants carried over, the rows changed. Readers never block:
//! renaming a schema locks none of its tables, and prepared statements follow.
//!
//! **Consequences.** A live runner finds its row gone, reads again and goes on with the new
//! generation, if it has the same definition.
//!
//! **Failures.** A crash before the swap's commit leaves the live generation as it was; a crash
//! after it leaves the schema `NAME__old`, which the next rebuild drops. A next generation that can
//! never be complete, for events that it has not read were removed, is given up with all it made.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use super::runner::Build;
use super::state::Board;
use super::{Engine, Handle, Outcome, Settings, Until, divergence, setup};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::name::ProjectionName;
use crate::pg::action::{self, Action};
use crate::pg::database::Database;
use crate::pg::sql::{Sql, sql};
use crate::pg::{self, Parameter, column, dead_letter};
use crate::position::Position;
use crate::projection::{Definition, Runnable};
use crate::source::Source;

/// A rebuild of one projection.
pub struct Rebuild {
    target: Database,
    source: Arc<dyn Source>,
    projection: Arc<dyn Runnable>,
    settings: Settings,
    board: Board,
}

/// How a rebuild ended.
#[derive(Debug)]
pub enum Rebuilt {
    /// Readers see the new generation, which stands at this position.
    Swapped {
        /// The number of the new generation.
        generation: i32,
        /// Where it stands.
        position: Position,
    },
    /// It was asked to stop before the swap, and goes on from here when called again.
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
        projection: Arc<dyn Runnable>,
        settings: Settings,
    ) -> Rebuild {
        let board = Board::new(projection.definition().name.clone());
        Rebuild {
            target,
            source,
            projection,
            settings,
            board,
        }
    }

    /// A handle to watch it with.
    pub fn handle(&self) -> Handle {
        Handle(vec![self.board.clone()])
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
            let position = self.board.get().position;
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

    /// Refuses to build from a log whose oldest events were removed, unless an earlier try has read
    /// them.
    async fn check_complete(&self, client: &Client) -> Result<()> {
        let name = &self.projection.definition().name;
        let stored = setup::stored(client, name).await?;
        let stored = stored.ok_or_else(|| not_built(name))?;
        let through = self.source.removed_through().await?;
        let generation = match self.goes_on(client, &stored).await? {
            Some(next) if read_up_to(client, name, next).await? >= through => return Ok(()),
            Some(next) => next,
            None if through == Position::START => return Ok(()),
            None => return Err(incomplete(name, self.source.name(), through)),
        };
        give_up(client, name, generation).await?;
        Err(incomplete(name, self.source.name(), through))
    }

    /// The next generation of an earlier try, if it is of the same definition.
    async fn goes_on(&self, client: &Client, stored: &setup::Stored) -> Result<Option<i32>> {
        let definition = self.projection.definition();
        let is_same = stored.next_hash.as_deref() == Some(&definition.hash);
        match stored.next_generation {
            Some(next) if is_same => {
                let is_there = schema_exists(client, &next_schema(&definition.name)).await?;
                Ok(is_there.then_some(next))
            }
            _ => Ok(None),
        }
    }

    /// Fills; if events are removed meanwhile that it has not read, nothing of it is left.
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
                give_up(&client, name, generation).await?;
                let through = self.source.removed_through().await?;
                Err(incomplete(name, self.source.name(), through).source(error))
            }
            filled => filled,
        }
    }

    /// Makes the rows and the schema of the next generation, or recognises those of an earlier
    /// try. Returns its number.
    async fn prepare(&self, client: &Client) -> Result<i32> {
        let definition = self.projection.definition();
        let name = &definition.name;
        let stored = setup::stored(client, name)
            .await?
            .ok_or_else(|| not_built(name))?;
        if let Some(next) = self.goes_on(client, &stored).await? {
            return Ok(next);
        }
        let identity = self.source.identity().await?;
        setup::begin(client).await?;
        let done = async {
            setup::told(name, setup::lock(client, name)).await?;
            let sql = include_str!("../../sql/queries/rebuild/begin.sql");
            let parameters: [(&Parameter<'_>, Type); 5] = [
                (&name.as_str(), Type::TEXT),
                (&definition.hash, Type::TEXT),
                (&identity, Type::TEXT),
                (&definition.source, Type::TEXT),
                (&definition.text, Type::TEXT),
            ];
            // One row for each partition.
            let rows = client.query_typed(sql, &parameters).await;
            let rows = rows.map_err(|e| pg::error("cannot begin the rebuild", e))?;
            let first = rows.first().ok_or_else(|| not_built(name))?;
            let next = column::<i32>(first, 0)?;
            let schema = next_schema(name);
            // Whoever filled it is fenced by now.
            drop_schema(client, &schema).await?;
            setup::create_schema(client, &schema).await?;
            setup::fill_schema(client, &*self.projection, &schema).await?;
            setup::create_positions(client, &schema, name, next).await?;
            setup::show_batch(client, &*self.projection, &*self.source, &schema).await?;
            action::record(client, Action::RebuildBegun(name, next)).await?;
            failpoint!("rebuild.begun");
            Ok(next)
        };
        let next = setup::end(client, done.await).await?;
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
                self.board.clone(),
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
        // Of its own: dropped in the middle, the connection ends and takes its transaction along.
        let client = self.target.connector().connect().await?;
        setup::begin(&client).await?;
        let done = async {
            // A log that went back has no event where the live generation stands.
            let live = lock_live(&client, name)
                .await?
                .min(self.source.head().await?);
            if self.board.get().position < live && !self.fill(generation, live, stop).await? {
                let what = "the rebuild was stopped right before the swap";
                return Err(Error::new(ErrorKind::TimedOut, what).hint("run it again to go on"));
            }
            swap(&client, name, generation).await?;
            action::record(&client, Action::RebuildSwapped(name, generation)).await?;
            failpoint!("swap.renamed");
            Ok(live.max(self.board.get().position))
        };
        setup::end(&client, done.await).await
    }
}

/// Takes a changed definition as one that builds the same read model, and a log that differs from
/// what the checkpoints know of it as the same log: the projection goes on where it is. False if
/// nothing had changed.
///
/// # Errors
/// If the projection has no read model yet, the log is behind a checkpoint, or the database refuses.
pub async fn accept(
    target: &Database,
    projection: &dyn Runnable,
    source: &dyn Source,
) -> Result<bool> {
    let definition = projection.definition();
    let client = target.connector().connect().await?;
    setup::begin(&client).await?;
    let done = async {
        // Waits for a batch in flight: the view changes between two batches.
        lock_live(&client, &definition.name).await?;
        check_cut(&client, definition).await?;
        let sql = include_str!("../../sql/queries/projection/accept.sql");
        let parameters: [(&Parameter<'_>, Type); 5] = [
            (&definition.name.as_str(), Type::TEXT),
            (&definition.hash, Type::TEXT),
            (&definition.source, Type::TEXT),
            (&definition.key, Type::TEXT),
            (&definition.text, Type::TEXT),
        ];
        let changed = client.execute_typed(sql, &parameters).await;
        let changed = changed.map_err(|e| pg::own_error("cannot accept the change", e))?;
        dead_letter::rekey(&client, &definition.name, &definition.key).await?;
        setup::show_batch(&client, projection, source, definition.name.as_str()).await?;
        let differed = divergence::accept(&client, &definition.name, source).await?;
        setup::set_positions(&client, &definition.name).await?;
        let accepted = Action::Accepted {
            projection: &definition.name,
            hash: &definition.hash,
            definition_changed: changed > 0,
            log_differed: differed,
        };
        if changed > 0 || differed {
            action::record(&client, accepted).await?;
        }
        failpoint!("accept.changed");
        Ok(changed > 0 || differed)
    };
    let accepted = setup::end(&client, done.await).await?;
    failpoint!("accept.committed");
    Ok(accepted)
}

/// Refuses another key where it would move keys between partitions that stand at different
/// positions: events would be lost or applied twice.
async fn check_cut(client: &Client, definition: &Definition) -> Result<()> {
    let name = &definition.name;
    let sql = include_str!("../../sql/queries/projection/is_cut.sql");
    let parameters: [(&Parameter<'_>, Type); 2] =
        [(&name.as_str(), Type::TEXT), (&definition.key, Type::TEXT)];
    let row = client.query_typed_opt(sql, &parameters).await;
    let row = row.map_err(|e| pg::own_error("cannot compare the keys", e))?;
    if !row.map(|row| column(&row, 0)).transpose()?.unwrap_or(false) {
        return Ok(());
    }
    let what = format!(
        "the key of \"{name}\" cannot change now: its partitions stand at different positions"
    );
    Err(Error::new(ErrorKind::Config, what).hint(format!(
        "highwater rebuild {name}; or put the key back, let highwater run {name} --until-caught-up \
         bring them to one position, and accept it then"
    )))
}

/// Drops a projection: its schemas with the read model, and its checkpoints.
///
/// # Errors
/// If there is no such projection, or something outside depends on its read model.
pub async fn drop_projection(target: &Database, name: &ProjectionName) -> Result<()> {
    let client = target.connector().connect().await?;
    check_dependents(&client, name).await?;
    setup::begin(&client).await?;
    let done = async {
        lock_live(&client, name).await?;
        let sql = include_str!("../../sql/queries/projection/delete.sql");
        let deleted = client
            .execute_typed(sql, &[(&name.as_str(), Type::TEXT)])
            .await;
        deleted.map_err(|e| pg::own_error("cannot delete the projection's rows", e))?;
        for schema in [
            name.as_str().to_owned(),
            next_schema(name),
            old_schema(name),
        ] {
            drop_schema(&client, &schema).await?;
        }
        action::record(&client, Action::Dropped(name)).await?;
        failpoint!("drop.deleted");
        Ok(())
    };
    setup::end(&client, done.await).await?;
    failpoint!("drop.committed");
    Ok(())
}

/// The schema that a rebuild fills.
pub(super) fn next_schema(name: &ProjectionName) -> String {
    format!("{name}__next")
}

fn old_schema(name: &ProjectionName) -> String {
    format!("{name}__old")
}

fn not_built(name: &ProjectionName) -> Error {
    let what = format!("projection \"{name}\" has no read model here");
    Error::new(ErrorKind::NotFound, what).hint(format!("highwater run {name} builds it"))
}

fn incomplete(name: &ProjectionName, source: &str, through: Position) -> Error {
    let what = format!(
        "\"{name}\" cannot be built anew: events of source \"{source}\" up to {through} were removed, \
         and a new read model would lack them; the one there is stays as it is"
    );
    Error::new(ErrorKind::Stranded, what).hint(format!(
        "highwater accept {name} keeps the read model; to build one from the events that are left: \
         highwater drop {name}, highwater run {name}, which stops as stranded, and then highwater \
         accept {name}"
    ))
}

/// Up to where a generation has read: its partition that is furthest behind.
async fn read_up_to(client: &Client, name: &ProjectionName, generation: i32) -> Result<Position> {
    let sql = include_str!("../../sql/queries/rebuild/read_up_to.sql");
    let parameters: [(&Parameter<'_>, Type); 2] =
        [(&name.as_str(), Type::TEXT), (&generation, Type::INT4)];
    let row = client.query_typed_one(sql, &parameters).await;
    let row = row.map_err(|e| pg::own_error("cannot read the next checkpoint", e))?;
    Ok(Position::new(column(&row, 0)?))
}

/// Takes away what was made of the next generation, unless it is another one by now.
async fn give_up(client: &Client, name: &ProjectionName, generation: i32) -> Result<()> {
    setup::begin(client).await?;
    let done = async {
        setup::told(name, setup::lock(client, name)).await?;
        let sql = include_str!("../../sql/queries/rebuild/give_up.sql");
        let parameters: [(&Parameter<'_>, Type); 2] =
            [(&name.as_str(), Type::TEXT), (&generation, Type::INT4)];
        let given_up = client.execute_typed(sql, &parameters).await;
        let given_up = given_up.map_err(|e| pg::own_error("cannot give the rebuild up", e))?;
        if given_up == 0 {
            return Ok(());
        }
        drop_schema(client, &next_schema(name)).await?;
        action::record(client, Action::RebuildGivenUp(name, generation)).await
    };
    setup::end(client, done.await).await
}

/// Locks the projection, then the checkpoints of its live generation, and returns the highest.
async fn lock_live(client: &Client, name: &ProjectionName) -> Result<Position> {
    let sql = include_str!("../../sql/queries/rebuild/lock_live.sql");
    let parameters: [(&Parameter<'_>, Type); 1] = [(&name.as_str(), Type::TEXT)];
    let locking = async {
        setup::lock(client, name).await?;
        let rows = client.query_typed(sql, &parameters).await;
        rows.map_err(|e| pg::own_error("cannot lock the live checkpoint", e))
    };
    let rows = setup::told(name, locking).await?;
    let mut highest = None;
    for row in &rows {
        highest = highest.max(Some(Position::new(column(row, 0)?)));
    }
    highest.ok_or_else(|| not_built(name))
}

/// Swaps rows and schemas, unless another rebuild has begun: the schema is that one's then.
async fn swap(client: &Client, name: &ProjectionName, generation: i32) -> Result<()> {
    let sql = include_str!("../../sql/queries/rebuild/swap.sql");
    let parameters: [(&Parameter<'_>, Type); 2] =
        [(&name.as_str(), Type::TEXT), (&generation, Type::INT4)];
    let swapped = client.query_typed_opt(sql, &parameters).await;
    let swapped = swapped.map_err(|e| pg::error("cannot swap the generations", e))?;
    if swapped.is_none() {
        let what = format!("another rebuild of \"{name}\" has begun since");
        return Err(Error::new(ErrorKind::Fenced, what).hint("let one of the two end"));
    }
    let (next, old) = (next_schema(name), old_schema(name));
    let renames = sql!(
        "alter schema {live} rename to {old}; alter schema {next} rename to {live}",
        live = Sql::identifier(name.as_str()),
        old = Sql::identifier(&old),
        next = Sql::identifier(&next),
    );
    let renamed = client.batch_execute(&renames).await;
    renamed.map_err(|e| pg::error("cannot rename the schemas", e))?;
    let sql = include_str!("../../sql/queries/rebuild/carry_grants.sql");
    let parameters: [(&Parameter<'_>, Type); 2] =
        [(&old, Type::TEXT), (&name.as_str(), Type::TEXT)];
    let carried = client.execute_typed(sql, &parameters).await;
    carried
        .map(drop)
        .map_err(|e| pg::own_error("cannot carry the grants over", e))
}

async fn schema_exists(client: &Client, schema: &str) -> Result<bool> {
    let sql = include_str!("../../sql/queries/rebuild/schema_exists.sql");
    let row = client.query_typed_one(sql, &[(&schema, Type::TEXT)]).await;
    column(
        &row.map_err(|e| pg::error("cannot look for a schema", e))?,
        0,
    )
}

/// Drops a schema of ours with all that is in it, if it is there.
async fn drop_schema(client: &Client, schema: &str) -> Result<()> {
    let sql = sql!(
        "drop schema if exists {schema} cascade",
        schema = Sql::identifier(schema)
    );
    let dropped = client.batch_execute(&sql).await;
    dropped.map_err(|e| pg::error(&format!("cannot drop the schema \"{schema}\""), e))
}

/// What depends on the read model from outside would go with the old generation.
async fn check_dependents(client: &Client, name: &ProjectionName) -> Result<()> {
    let sql = include_str!("../../sql/queries/rebuild/dependents.sql");
    let rows = client
        .query_typed(sql, &[(&name.as_str(), Type::TEXT)])
        .await;
    let rows = rows.map_err(|e| pg::error("cannot see what depends on the read model", e))?;
    let names: Result<Vec<String>> = rows.iter().map(|row| column(row, 0)).collect();
    let names = names?;
    if names.is_empty() {
        return Ok(());
    }
    let what = format!(
        "the read model of \"{name}\" is used from outside its schema, by {}",
        names.join(", ")
    );
    Err(Error::new(ErrorKind::Config, what)
        .hint("drop these first and create them again afterwards"))
}
