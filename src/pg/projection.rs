//! The rows of projections: which build of a read model is live, and the definition that it was
//! built with.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::error::{Error, ErrorKind, Result};
use crate::key_hash;
use crate::name::ProjectionName;
use crate::pg::database::Database;
use crate::pg::{self, Parameter, column};
use crate::position::Position;

/// A projection's row: which build of its read model is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredProjection {
    pub(crate) generation: i32,
    pub(crate) hash: String,
    pub(crate) source: String,
    pub(crate) next_generation: Option<i32>,
    pub(crate) next_hash: Option<String>,
    /// The hash that deals keys to partitions, by name.
    pub(crate) key_hash: String,
    pub(crate) next_key_hash: Option<String>,
}

/// Reads a projection's row; `None` if it has no read model here.
pub(crate) async fn stored(
    client: &Client,
    name: &ProjectionName,
) -> Result<Option<StoredProjection>> {
    let sql = include_str!("../../sql/queries/projection/stored.sql");
    let row = client
        .query_typed_opt(sql, &[(&name.as_str(), Type::TEXT)])
        .await
        .map_err(|e| pg::own_error("cannot read the projection's row", e))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(StoredProjection {
        generation: column(&row, 0)?,
        hash: column(&row, 1)?,
        source: column(&row, 2)?,
        next_generation: column(&row, 3)?,
        next_hash: column(&row, 4)?,
        key_hash: column(&row, 5)?,
        next_key_hash: column(&row, 6)?,
    }))
}

/// As [`stored`], on a session of the pool.
pub(crate) async fn stored_in(
    target: &Database,
    name: &ProjectionName,
) -> Result<Option<StoredProjection>> {
    let client = target.short().await?;
    client.within(stored(&client, name)).await
}

/// The projections that have a read model here.
pub(crate) async fn names(client: &Client) -> Result<Vec<String>> {
    let sql = include_str!("../../sql/queries/projection/names.sql");
    let rows = client.query_typed(sql, &[]).await;
    let rows = rows.map_err(|e| pg::error("cannot read the projections", e))?;
    rows.iter().map(|row| column(row, 0)).collect()
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

/// Locks the checkpoints of the live generation in the order of partitions, after the projection's row, and
/// returns the highest position.
pub(crate) async fn lock_checkpoints(client: &Client, name: &ProjectionName) -> Result<Position> {
    let sql = include_str!("../../sql/queries/projection/lock_checkpoints.sql");
    let parameters: [(&Parameter<'_>, Type); 1] = [(&name.as_str(), Type::TEXT)];
    let rows = client.query_typed(sql, &parameters).await;
    let rows = rows.map_err(|e| pg::own_error("cannot lock the live checkpoint", e))?;
    let mut highest = None;
    for row in &rows {
        highest = highest.max(Some(Position::new(column(row, 0)?)));
    }
    highest.ok_or_else(|| not_built(name))
}

/// A projection that is to be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewProjection<'a> {
    pub(crate) name: &'a ProjectionName,
    pub(crate) hash: &'a str,
    pub(crate) source: &'a str,
    pub(crate) source_identity: &'a str,
    pub(crate) partitions: i32,
    pub(crate) key: &'a str,
    /// The text of its definition; `None` for one in Rust.
    pub(crate) text: Option<&'a str>,
}

/// Stores a projection with its checkpoints. False if another session did; it waits for a session
/// that is doing so.
pub(crate) async fn insert(client: &Client, new: NewProjection<'_>) -> Result<bool> {
    let sql = include_str!("../../sql/queries/projection/insert.sql");
    let parameters: [(&Parameter<'_>, Type); 8] = [
        (&new.name.as_str(), Type::TEXT),
        (&new.hash, Type::TEXT),
        (&new.source, Type::TEXT),
        (&new.source_identity, Type::TEXT),
        (&new.partitions, Type::INT4),
        (&new.key, Type::TEXT),
        (&new.text, Type::TEXT),
        (&key_hash::NAME, Type::TEXT),
    ];
    let inserted = client.execute_typed(sql, &parameters).await;
    let inserted = inserted.map_err(|e| pg::own_error("cannot create the projection's rows", e))?;
    Ok(inserted > 0)
}

/// Creates the table that shows, beside a read model, how far it is.
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

/// Sets `highwater_position` of the live read model to the positions of its checkpoints. Returns
/// whether that changed any.
pub(crate) async fn set_positions(client: &Client, name: &ProjectionName) -> Result<bool> {
    let sql = include_str!("../../sql/queries/projection/set_positions.sql");
    let row = client
        .query_typed_one(sql, &[(&name.as_str(), Type::TEXT)])
        .await;
    let row = row.map_err(|e| pg::own_error("cannot move highwater_position", e))?;
    column(&row, 0)
}

/// Deletes a projection with its checkpoints.
pub(crate) async fn delete(client: &Client, name: &ProjectionName) -> Result<()> {
    let sql = include_str!("../../sql/queries/projection/delete.sql");
    let deleted = client
        .execute_typed(sql, &[(&name.as_str(), Type::TEXT)])
        .await;
    let deleted = deleted.map_err(|e| pg::own_error("cannot delete the projection's rows", e));
    deleted.map(drop)
}

/// Stores how many partitions a projection is to have, and by which key; [`repartition`] makes the
/// change. Returns whether the number has changed.
pub(crate) async fn set_partitions(
    client: &Client,
    name: &ProjectionName,
    partitions: i32,
    key: &str,
) -> Result<bool> {
    let sql = include_str!("../../sql/queries/projection/set_partitions.sql");
    let parameters: [(&Parameter<'_>, Type); 3] = [
        (&name.as_str(), Type::TEXT),
        (&partitions, Type::INT4),
        (&key, Type::TEXT),
    ];
    let row = client.query_typed_one(sql, &parameters).await;
    let row = row.map_err(|e| pg::own_error("cannot set the number of partitions", e))?;
    column(&row, 0)
}

/// One step of a change of the number of partitions. Returns whether anything was done.
pub(crate) async fn repartition(client: &Client, name: &ProjectionName) -> Result<bool> {
    let sql = include_str!("../../sql/queries/projection/repartition.sql");
    let row = client
        .query_typed_one(sql, &[(&name.as_str(), Type::TEXT)])
        .await;
    let row = row.map_err(|e| pg::own_error("cannot change the number of partitions", e))?;
    column(&row, 0)
}

/// Refuses a definition that is not the one that the live read model was built with.
pub(crate) fn check_hash(name: &ProjectionName, hash: &str, stored: &str) -> Result<()> {
    match hash == stored {
        true => Ok(()),
        false => Err(changed(name)),
    }
}

/// Refuses a build whose keys were dealt to partitions by another hash: a partition would get keys
/// that it has not seen.
pub(crate) fn check_key_hash(name: &ProjectionName, stored: &str) -> Result<()> {
    if stored == key_hash::NAME {
        return Ok(());
    }
    let what = format!(
        "the keys of \"{name}\" were dealt to its partitions by the hash \"{stored}\", and this \
         highwater has only \"{}\"",
        key_hash::NAME
    );
    Err(Error::new(ErrorKind::Database, what).with_hint(format!(
        "run the version of highwater that built it, or highwater rebuild {name}"
    )))
}

/// The error of a projection whose definition is not the one its read model was built with.
pub(crate) fn changed(name: &ProjectionName) -> Error {
    Error::new(
        ErrorKind::Changed,
        format!("projection \"{name}\" was changed since its read model was built"),
    )
    .with_hint(format!(
        "highwater rebuild {name} builds it again beside the old one; highwater accept {name} \
         keeps the read model if the change leaves it as it is; or put the file back"
    ))
}

/// The error of a projection whose rows were deleted while it ran.
pub(crate) fn dropped(name: &ProjectionName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("projection \"{name}\" was dropped"),
    )
    .with_hint("run it again to build it again")
}

/// The error of a projection with a row but no checkpoint: nobody knows what its read model holds.
pub(crate) fn no_checkpoint(name: &ProjectionName) -> Error {
    Error::new(
        ErrorKind::Database,
        format!("projection \"{name}\" has lost its checkpoint"),
    )
    .with_hint(
        "restore its row of highwater.checkpoint from a backup, or drop its schema, delete its row \
         of highwater.projection and run again",
    )
}

/// The error of a projection that was never run.
pub(crate) fn not_built(name: &ProjectionName) -> Error {
    let what = format!("projection \"{name}\" has no read model here");
    Error::new(ErrorKind::NotFound, what).with_hint(format!("highwater run {name} builds it"))
}
