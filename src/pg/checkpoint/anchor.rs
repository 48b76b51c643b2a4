//! Checkpoints that an operator ties to the present log.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{Checkpoint, Key, LastEvent, checkpoint};
use crate::error::Result;
use crate::name::ProjectionName;
use crate::pg::{self, Parameter, column_named};
use crate::position::Position;

/// The checkpoints of the live generation.
pub(crate) async fn live(
    client: &Client,
    projection: &ProjectionName,
) -> Result<Vec<(Key, Checkpoint)>> {
    let sql = include_str!("../../../sql/queries/checkpoint/live.sql");
    let rows = client
        .query_typed(sql, &[(&projection.as_str(), Type::TEXT)])
        .await
        .map_err(|e| pg::own_error("cannot read the checkpoints", e))?;
    rows.iter()
        .map(|row| {
            let key = Key {
                projection: projection.clone(),
                generation: column_named(row, "generation")?,
                partition: column_named(row, "partition")?,
            };
            Ok((key, checkpoint(row)?))
        })
        .collect()
}

/// Sets a checkpoint to `position` and ties it to the log `identity`, whose last event at or before
/// it is `last`. Its present runner is fenced.
pub(crate) async fn anchor(
    client: &Client,
    key: &Key,
    position: Position,
    identity: &str,
    last: LastEvent,
) -> Result<()> {
    let sql = include_str!("../../../sql/queries/checkpoint/anchor.sql");
    let (event_position, event_id) = last.map(|(at, id)| (at.get(), id)).unzip();
    let parameters: [(&Parameter<'_>, Type); 7] = [
        (&key.projection.as_str(), Type::TEXT),
        (&key.generation, Type::INT4),
        (&key.partition, Type::INT4),
        (&position.get(), Type::INT8),
        (&identity, Type::TEXT),
        (&event_position, Type::INT8),
        (&event_id, Type::UUID),
    ];
    let done = client.execute_typed(sql, &parameters).await;
    done.map(drop)
        .map_err(|e| pg::own_error("cannot accept the log as it is", e))
}
