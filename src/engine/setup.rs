//! Before the first batch: the read model is created or recognised, and the checkpoint claimed.

use std::time::Duration;

use futures_util::future::try_join;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::config::format_duration;
use crate::engine::apply::batch::of_types;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::name::ProjectionName;
use crate::pg::checkpoint::{self, Checkpoint, Claiming, Key};
use crate::pg::database::Database;
use crate::pg::sql::{Sql, query, sql};
use crate::pg::transaction::{BEGIN, Tx};
use crate::pg::{self, Parameter, column};
use crate::projection::{Definition, Runnable};
use crate::source::{Keys, Source};

/// A projection's row: which build of its read model is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) generation: i32,
    pub(crate) hash: String,
    pub(crate) source: String,
    pub(crate) next_generation: Option<i32>,
    pub(crate) next_hash: Option<String>,
}

/// Reads a projection's row; `None` if it has no read model here.
pub(crate) async fn stored(client: &Client, name: &ProjectionName) -> Result<Option<Stored>> {
    let sql = include_str!("../../sql/queries/projection/stored.sql");
    let row = client
        .query_typed_opt(sql, &[(&name.as_str(), Type::TEXT)])
        .await
        .map_err(|e| pg::own_error("cannot read the projection's row", e))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Stored {
        generation: column(&row, 0)?,
        hash: column(&row, 1)?,
        source: column(&row, 2)?,
        next_generation: column(&row, 3)?,
        next_hash: column(&row, 4)?,
    }))
}

/// As [`stored`], on a session of the pool.
pub(crate) async fn stored_in(target: &Database, name: &ProjectionName) -> Result<Option<Stored>> {
    let client = target.short().await?;
    client.within(stored(&client, name)).await
}

/// Says how many partitions a projection is to have, and by which key; [`repartition`] brings it about.
pub(super) async fn set_partitions(
    client: &Client,
    name: &ProjectionName,
    partitions: i32,
    key: &str,
) -> Result<()> {
    let sql = include_str!("../../sql/queries/projection/set_partitions.sql");
    let parameters: [(&Parameter<'_>, Type); 3] = [
        (&name.as_str(), Type::TEXT),
        (&partitions, Type::INT4),
        (&key, Type::TEXT),
    ];
    let done = client.execute_typed(sql, &parameters).await;
    done.map(drop)
        .map_err(|e| pg::own_error("cannot set the number of partitions", e))
}

/// One step of a change of the number of partitions. Says whether anything was done.
pub(super) async fn repartition(client: &Client, name: &ProjectionName) -> Result<bool> {
    let sql = include_str!("../../sql/queries/projection/repartition.sql");
    let row = client
        .query_typed_one(sql, &[(&name.as_str(), Type::TEXT)])
        .await;
    let row = row.map_err(|e| pg::own_error("cannot change the number of partitions", e))?;
    column(&row, 0)
}

/// The projections that have a read model here.
pub(crate) async fn names(client: &Client) -> Result<Vec<String>> {
    let sql = include_str!("../../sql/queries/projection/names.sql");
    let rows = client.query_typed(sql, &[]).await;
    let rows = rows.map_err(|e| pg::error("cannot read the projections", e))?;
    rows.iter().map(|row| column(row, 0)).collect()
}

/// A read model that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Prepared {
    /// It was made just now: its checkpoints know nothing of the source yet.
    New,
    /// It was there before, in this generation.
    Recognised(i32),
}

impl Prepared {
    pub(crate) fn generation(self) -> i32 {
        match self {
            Prepared::New => FIRST_GENERATION,
            Prepared::Recognised(generation) => generation,
        }
    }
}

/// What `highwater.projection.generation` is by default.
const FIRST_GENERATION: i32 = 1;

/// Creates the read model of `projection` if it has none, or refuses one that was built with
/// another definition. It is given up after `limit`: what `up` does takes as long as it takes, and a
/// connection may be silent for ever.
pub(crate) async fn prepare(
    target: &Database,
    projection: &dyn Runnable,
    source: &dyn Source,
    limit: Duration,
) -> Result<Prepared> {
    let preparing = recognise_or_create(target, projection, source);
    let Ok(prepared) = tokio::time::timeout(limit, preparing).await else {
        let limit = format_duration(limit);
        let what = format!("the read model was not there after {limit}");
        return Err(Error::new(ErrorKind::TimedOut, what).hint(
            "the server does not answer, somebody holds a lock on a table of highwater's, or up takes longer: \
             then raise engine.batch_timeout",
        ));
    };
    prepared
}

async fn recognise_or_create(
    target: &Database,
    projection: &dyn Runnable,
    source: &dyn Source,
) -> Result<Prepared> {
    let definition = projection.definition();
    let before = stored_in(target, &definition.name).await?;
    let stored = match before {
        Some(stored) => stored,
        None => {
            if create(target, projection, source).await? {
                return Ok(Prepared::New);
            }
            // Another instance was first, maybe with another definition.
            let made = stored_in(target, &definition.name).await?;
            made.ok_or_else(|| dropped(&definition.name))?
        }
    };
    check_unchanged(definition, &stored)?;
    Ok(Prepared::Recognised(stored.generation))
}

/// Locks a projection's row: before its checkpoints, and in a statement of its own.
pub(crate) async fn lock(client: &Client, name: &ProjectionName) -> Result<()> {
    let sql = include_str!("../../sql/queries/projection/lock.sql");
    let locked = client
        .execute_typed(sql, &[(&name.as_str(), Type::TEXT)])
        .await;
    locked
        .map(drop)
        .map_err(|e| pg::own_error("cannot lock the projection", e))
}

/// The error of a projection whose rows went while it ran.
pub(crate) fn dropped(name: &ProjectionName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("projection \"{name}\" was dropped"),
    )
    .hint("run again to build it anew")
}

/// The error of a projection whose row is there without a checkpoint: nothing says what its read
/// model holds.
pub(crate) fn no_checkpoint(name: &ProjectionName) -> Error {
    Error::new(
        ErrorKind::Database,
        format!("projection \"{name}\" has lost its checkpoint"),
    )
    .hint(
        "restore its row of highwater.checkpoint from a backup, or drop its schema, delete its row \
         of highwater.projection and run again",
    )
}

/// Refuses a definition other than the one the live read model was built with.
pub(crate) fn check_unchanged(definition: &Definition, stored: &Stored) -> Result<()> {
    check_hash(definition, &stored.hash)
}

/// As [`check_unchanged`], by the hash alone.
pub(crate) fn check_hash(definition: &Definition, hash: &str) -> Result<()> {
    if hash == definition.hash {
        return Ok(());
    }
    let name = &definition.name;
    Err(Error::new(
        ErrorKind::Changed,
        format!("projection \"{name}\" was changed since its read model was built"),
    )
    .hint(format!(
        "highwater rebuild {name} builds it anew beside the old one; highwater accept {name} keeps \
         the read model if the change needs none; or put the file back"
    )))
}

/// Creates projection row, checkpoint row, schema and tables in one transaction. False if another
/// instance has done so.
async fn create(target: &Database, projection: &dyn Runnable, source: &dyn Source) -> Result<bool> {
    let definition = projection.definition();
    // Of its own: dropped in the middle, the connection ends and takes its transaction along.
    let connecting = target.connector().connect();
    let (identity, client) = try_join(source.identity(), connecting).await?;
    begin(&client).await?;
    let done = async {
        if !insert_rows(&client, definition, &identity).await? {
            return Ok(false);
        }
        create_schema(&client, definition.name.as_str()).await?;
        fill_schema(&client, projection, definition.name.as_str()).await?;
        let name = &definition.name;
        create_positions(&client, name.as_str(), name, FIRST_GENERATION).await?;
        show_batch(&client, projection, source, definition.name.as_str()).await?;
        failpoint!("create.filled");
        Ok(true)
    };
    let is_ours = end(&client, done.await).await?;
    failpoint!("create.committed");
    Ok(is_ours)
}

/// When a wait for a batch in flight is told.
const WAIT_NOTE: Duration = Duration::from_secs(1);

/// Waits for what needs the lock on a checkpoint, and says so if a batch in flight keeps it.
pub(crate) async fn told<T>(name: &ProjectionName, locking: impl Future<Output = T>) -> T {
    tokio::pin!(locking);
    tokio::select! {
        locked = &mut locking => return locked,
        () = tokio::time::sleep(WAIT_NOTE) => {}
    }
    tracing::warn!(projection = %name, "waiting for a batch in flight to end; highwater status shows whose it is");
    locking.await
}

/// Opens a transaction.
pub(crate) async fn begin(client: &Client) -> Result<()> {
    let begun = client.batch_execute(BEGIN).await;
    begun.map_err(|e| pg::error("cannot begin a transaction", e))
}

/// Commits, or rolls back and keeps the error.
pub(crate) async fn end<T>(client: &Client, done: Result<T>) -> Result<T> {
    if done.is_err() {
        // If this fails too the connection is gone, and with it the transaction.
        let _ = client.batch_execute("rollback").await;
        return done;
    }
    // The select fails in an aborted transaction, where COMMIT would roll back without an error.
    let committed = client.batch_execute("select 1; commit").await;
    committed.map_err(|e| pg::error("cannot commit", e))?;
    done
}

/// Says whether the rows are ours to make; waits for another instance that makes them.
async fn insert_rows(client: &Client, definition: &Definition, identity: &str) -> Result<bool> {
    let sql = include_str!("../../sql/queries/projection/insert.sql");
    let parameters: [(&Parameter<'_>, Type); 7] = [
        (&definition.name.as_str(), Type::TEXT),
        (&definition.hash, Type::TEXT),
        (&definition.source, Type::TEXT),
        (&identity, Type::TEXT),
        (&i32::from(definition.partitions), Type::INT4),
        (&definition.key, Type::TEXT),
        (&definition.text, Type::TEXT),
    ];
    let inserted = client.execute_typed(sql, &parameters).await;
    let inserted = inserted.map_err(|e| pg::own_error("cannot create the projection's rows", e))?;
    Ok(inserted > 0)
}

/// Creates an empty schema, and refuses one that is there: it is not ours.
pub(crate) async fn create_schema(client: &Client, schema: &str) -> Result<()> {
    let sql = sql!("create schema {schema}", schema = Sql::identifier(schema));
    client.batch_execute(&sql).await.map_err(|e| {
        let code = e.code().map(|c| c.code().to_owned());
        let error = pg::error(&format!("cannot create the schema \"{schema}\""), e);
        match code.as_deref() {
            Some("42P06") => error.with_kind(ErrorKind::Config).hint(
                "a schema of that name is there and is not highwater's: rename the projection, or \
                 drop the schema if nothing needs it",
            ),
            Some("42501") => error
                .with_kind(ErrorKind::Database)
                .hint("grant create on the database to this role"),
            _ => error,
        }
    })
}

/// Runs `up` in a schema.
pub(crate) async fn fill_schema(
    client: &Client,
    projection: &dyn Runnable,
    schema: &str,
) -> Result<()> {
    let path = sql!(
        "set local search_path to {schema}, public",
        schema = Sql::identifier(schema)
    );
    let set = client.batch_execute(&path).await;
    set.map_err(|e| pg::error("cannot set the search path", e))?;
    projection
        .set_up(&Tx::new(client))
        .await
        .map_err(definition_fault)
}

/// Makes the table that says, beside a read model, how far it is.
pub(crate) async fn create_positions(
    client: &Client,
    schema: &str,
    name: &ProjectionName,
    generation: i32,
) -> Result<()> {
    let sql = include_str!("../../sql/queries/projection/create_positions.sql");
    let parameters: [(&Parameter<'_>, Type); 3] = [
        (&schema, Type::TEXT),
        (&name.as_str(), Type::TEXT),
        (&generation, Type::INT4),
    ];
    let created = client.execute_typed(sql, &parameters).await;
    created
        .map(drop)
        .map_err(|e| pg::own_error("cannot create highwater_position", e))
}

/// Brings `highwater_position` of the live read model to where its checkpoints stand.
pub(crate) async fn set_positions(client: &Client, name: &ProjectionName) -> Result<()> {
    let sql = include_str!("../../sql/queries/projection/set_positions.sql");
    let set = client
        .execute_typed(sql, &[(&name.as_str(), Type::TEXT)])
        .await;
    set.map(drop)
        .map_err(|e| pg::own_error("cannot move highwater_position", e))
}

/// Puts the view `batch` into a schema, if the projection reads it there.
pub(crate) async fn show_batch(
    client: &Client,
    projection: &dyn Runnable,
    source: &dyn Source,
    schema: &str,
) -> Result<()> {
    let definition = projection.definition();
    let Some(relation) = source.relation() else {
        return Ok(());
    };
    check_key(client, &definition.key, relation, schema).await?;
    if projection.statements().is_none() {
        return Ok(());
    }
    create_view(client, definition, relation, schema).await
}

/// Refuses a key that the server does not understand, or that would not stay the same for an event.
pub(crate) async fn check_key(
    client: &Client,
    key: &str,
    relation: &str,
    schema: &str,
) -> Result<()> {
    if key == Keys::STREAM {
        return Ok(());
    }
    let table = Sql::qualified(schema, "highwater_key");
    let index = query!("projection/index_key.sql")
        .fill(&[("table", &table), ("key", &Sql::expression(key)?)])?;
    let tried = sql!(
        "create table {table} as select position, stream, version, type, data, metadata, id, \
         recorded_at from {events} with no data;\n{index};\ndrop table {table}",
        table = table,
        events = Sql::relation(relation)?,
        index = index,
    );
    let tried = client.batch_execute(&tried).await;
    tried.map_err(|e| {
        let error = pg::error("the key is no expression over the columns of a batch", e);
        let hint = match error.code() {
            Some("42P17") => {
                "an event must keep its key for ever: use nothing that depends on the time or on \
                 settings, such as the text of recorded_at"
            }
            _ => "the columns are position, stream, version, type, data, metadata, id, recorded_at",
        };
        error.with_kind(ErrorKind::Config).hint(hint)
    })
}

/// `up` failed on its own account: the projection is wrong, not an event.
fn definition_fault(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Apply => error.with_kind(ErrorKind::Config),
        _ => error,
    }
}

/// Creates or replaces the view through which the statements of a projection see a batch.
pub(crate) async fn create_view(
    client: &Client,
    definition: &Definition,
    relation: &str,
    schema: &str,
) -> Result<()> {
    let view = query!("projection/create_view.sql").fill(&[
        ("schema", &Sql::identifier(schema)),
        ("events", &Sql::relation(relation)?),
        ("types", &of_types(definition.events.as_deref())),
        ("key", &Sql::expression(&definition.key)?),
    ])?;
    let both = sql!(
        "{view};\nselect highwater.restrict_view({schema})",
        view = view,
        schema = Sql::literal(schema)
    );
    client.batch_execute(&both).await.map_err(|e| {
        let error = pg::error("cannot create the view \"batch\"", e);
        match error.code() {
            Some("42P07" | "42809") => error
                .with_kind(ErrorKind::Config)
                .hint("\"batch\" is the name of the events in apply: give the table another one"),
            _ => error,
        }
    })
}

/// Claims a checkpoint.
pub(crate) async fn claim(
    target: &Database,
    key: &Key,
    instance: Uuid,
    claiming: Claiming,
) -> Result<Option<Checkpoint>> {
    let claimed = {
        let client = target.short().await?;
        let claiming = client.within(checkpoint::claim(&client, key, instance, claiming));
        told(&key.projection, claiming).await?
    };
    failpoint!("claim.done");
    Ok(claimed)
}
