//! Pauses and resumes a projection on all instances.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::engine::transaction::{begin, end};
use crate::error::{Error, Result};
use crate::name::ProjectionName;
use crate::pg::action::{self, OperatorAction};
use crate::pg::database::Database;
use crate::pg::projection::not_built;
use crate::pg::{self, Parameter, checkpoint, column, instance};
use crate::position::Position;

/// How often to poll whether the runners have ended.
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// The outcome of a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Paused {
    /// It was not paused before.
    pub is_new: bool,
    /// The position of its read model: that of the partition that is furthest behind.
    pub position: Position,
    /// An instance still owned a partition when the time was over.
    pub is_held: bool,
}

/// Pauses a projection: its runners finish their batches and no instance starts new ones, until
/// [`resume`]. Waits up to `limit` for the runners to end.
///
/// # Errors
/// If there is no such projection, or the database refuses.
pub async fn pause(target: &Database, name: &ProjectionName, limit: Duration) -> Result<Paused> {
    let client = target.short().await?;
    let is_new = client.within(change(&client, name, true)).await?;
    instance::wake(&client).await;
    let ended = async {
        while client.within(is_held(&client, name)).await? {
            tokio::time::sleep(POLL_PAUSE).await;
        }
        Ok::<_, Error>(())
    };
    let is_held = match tokio::time::timeout(limit, ended).await {
        Ok(ended) => ended.map(|()| false)?,
        Err(_) => true,
    };
    // Another session, because an answer may be outstanding on this one.
    drop(client);
    let client = target.short().await?;
    Ok(Paused {
        is_new,
        position: client.within(checkpoint::lowest(&client, name)).await?,
        is_held,
    })
}

/// Resumes a projection. False if it was not paused.
///
/// # Errors
/// As [`pause`].
pub async fn resume(target: &Database, name: &ProjectionName) -> Result<bool> {
    let client = target.short().await?;
    let changed = client.within(change(&client, name, false)).await?;
    instance::wake(&client).await;
    Ok(changed)
}

/// Pauses or resumes a projection, and records who did. False if nothing changed.
async fn change(client: &Client, name: &ProjectionName, paused: bool) -> Result<bool> {
    begin(client).await?;
    let done = async {
        let changed = set(client, name, paused).await?;
        match (changed, paused) {
            (false, _) => {}
            (true, true) => action::record(client, name, OperatorAction::Paused).await?,
            (true, false) => action::record(client, name, OperatorAction::Resumed).await?,
        }
        Ok(changed)
    };
    end(client, done.await).await
}

async fn set(client: &Client, name: &ProjectionName, paused: bool) -> Result<bool> {
    let sql = include_str!("../sql/queries/projection/pause.sql");
    let parameters: [(&Parameter<'_>, Type); 2] =
        [(&name.as_str(), Type::TEXT), (&paused, Type::BOOL)];
    let row = client.query_typed_opt(sql, &parameters).await;
    match row.map_err(|e| pg::own_error("cannot pause the projection", e))? {
        Some(row) => column(&row, 0),
        None => Err(not_built(name)),
    }
}

async fn is_held(client: &Client, name: &ProjectionName) -> Result<bool> {
    let sql = include_str!("../sql/queries/projection/is_owned.sql");
    let row = client
        .query_typed_one(sql, &[(&name.as_str(), Type::TEXT)])
        .await;
    column(
        &row.map_err(|e| pg::own_error("cannot read who runs it", e))?,
        0,
    )
}
