//! Dead letters, as the engine writes, reads and deletes them.

use serde_json::Value;
use serde_json::value::RawValue;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::event::RecordedEvent;
use crate::mutation;
use crate::name::ProjectionName;
use crate::pg::checkpoint::{Epoch, Fence, Key};
use crate::pg::event::recorded;
use crate::pg::sql::{Sql, query, sql};
use crate::pg::{self, Parameter, column};
use crate::position::Position;

/// Why a dead letter could not be applied.
pub(crate) struct Cause {
    /// As [`crate::pg::checkpoint::error_value`] makes it.
    pub(crate) error: Value,
    pub(crate) fingerprint: String,
}

/// How much may be parked of a projection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParkingLimits {
    pub(crate) keys_max: u32,
    pub(crate) dead_letters_max: u32,
}

impl ParkingLimits {
    /// The statement that refuses more.
    pub(crate) fn check(&self, key: &Key) -> Sql {
        sql!(
            "select highwater.check_parked({projection}, {generation}, {keys}, {dead_letters})",
            projection = Sql::literal(key.projection.as_str()),
            generation = Sql::number(key.generation),
            keys = Sql::number(self.keys_max),
            dead_letters = Sql::number(self.dead_letters_max),
        )
    }
}

/// Stores events as dead letters, each with its key: the one that failed with its cause, the others
/// without.
pub(crate) async fn insert(
    client: &Client,
    key: &Key,
    dead_letters: &[(Option<String>, RecordedEvent)],
    cause: Option<&Cause>,
) -> Result<()> {
    let sql = include_str!("../../sql/queries/dead_letter/insert.sql");
    let events = || dead_letters.iter().map(|(_, event)| event);
    let positions: Vec<i64> = events().map(|e| e.position.get()).collect();
    let keys: Vec<Option<&str>> = dead_letters.iter().map(|(key, _)| key.as_deref()).collect();
    let ids: Vec<_> = events().map(|e| e.id).collect();
    let streams: Vec<&str> = events().map(|e| e.stream.as_str()).collect();
    let versions: Vec<i64> = events().map(|e| e.version).collect();
    let types: Vec<&str> = events().map(|e| e.event_type.as_str()).collect();
    let data: Vec<Json<&RawValue>> = events().map(|e| Json(&*e.data)).collect();
    let metadata: Vec<Json<&RawValue>> = events().map(|e| Json(&*e.metadata)).collect();
    let recorded_at: Vec<_> = events().map(|e| e.recorded_at).collect();
    let parameters: [(&Parameter<'_>, Type); 14] = [
        (&key.projection.as_str(), Type::TEXT),
        (&key.generation, Type::INT4),
        (&positions, Type::INT8_ARRAY),
        (&keys, Type::TEXT_ARRAY),
        (&ids, Type::UUID_ARRAY),
        (&streams, Type::TEXT_ARRAY),
        (&versions, Type::INT8_ARRAY),
        (&types, Type::TEXT_ARRAY),
        (&data, Type::JSONB_ARRAY),
        (&metadata, Type::JSONB_ARRAY),
        (&recorded_at, Type::TIMESTAMPTZ_ARRAY),
        (&cause.map(|cause| &cause.error), Type::JSONB),
        (&cause.map(|cause| cause.fingerprint.as_str()), Type::TEXT),
        (&i32::from(cause.is_some()), Type::INT4),
    ];
    let inserted = client.execute_typed(sql, &parameters).await;
    inserted
        .map(drop)
        .map_err(|e| pg::own_statement_error("cannot park events", e))
}

/// The parked keys of a partition. Read after its checkpoint's row.
pub(crate) async fn parked_keys(
    client: &Client,
    key: &Key,
    partitions: i32,
) -> Result<Vec<Option<String>>> {
    let sql = include_str!("../../sql/queries/dead_letter/parked_keys.sql");
    let parameters: [(&Parameter<'_>, Type); 4] = [
        (&key.projection.as_str(), Type::TEXT),
        (&key.generation, Type::INT4),
        (&key.partition, Type::INT4),
        (&partitions, Type::INT4),
    ];
    let rows = read(client, sql, &parameters).await?;
    rows.iter().map(|row| column(row, 0)).collect()
}

/// A dead letter whose retry was requested.
pub(crate) struct Requested {
    pub(crate) key: Option<String>,
    pub(crate) event: RecordedEvent,
    /// The `parking` of the checkpoint, as the fence compares it.
    pub(crate) parking: i64,
}

/// The next dead letter of a checkpoint under `epoch` whose retry was requested, except those of
/// the keys in `put_off`.
pub(crate) async fn requested(
    client: &Client,
    key: &Key,
    epoch: Epoch,
    put_off: &[Option<String>],
) -> Result<Option<Requested>> {
    let first = match mutation::on("parking.order") {
        true => Sql::trusted("max"),
        false => Sql::trusted("min"),
    };
    let sql = query!("dead_letter/requested.sql").fill(&[("first", &first)])?;
    let parameters: [(&Parameter<'_>, Type); 5] = [
        (&key.projection.as_str(), Type::TEXT),
        (&key.generation, Type::INT4),
        (&key.partition, Type::INT4),
        (&epoch.get(), Type::INT8),
        (&put_off, Type::TEXT_ARRAY),
    ];
    let rows = read(client, &sql, &parameters).await?;
    let requested = |row: &Row| {
        Ok(Requested {
            key: column(row, 8)?,
            event: recorded(row)?,
            parking: column(row, 9)?,
        })
    };
    rows.first().map(requested).transpose()
}

async fn read(
    client: &Client,
    sql: &str,
    parameters: &[(&Parameter<'_>, Type)],
) -> Result<Vec<Row>> {
    let rows = client.query_typed(sql, parameters).await;
    rows.map_err(|e| pg::own_error("cannot read the dead letters", e))
}

/// Records that a dead letter failed again; its key is not retried until the next request.
pub(crate) async fn failed_again(
    client: &Client,
    key: &Key,
    epoch: Epoch,
    position: Position,
    cause: &Cause,
) -> Result<()> {
    let sql = include_str!("../../sql/queries/dead_letter/failed_again.sql");
    let parameters: [(&Parameter<'_>, Type); 7] = [
        (&key.projection.as_str(), Type::TEXT),
        (&key.generation, Type::INT4),
        (&key.partition, Type::INT4),
        (&epoch.get(), Type::INT8),
        (&position.get(), Type::INT8),
        (&cause.error, Type::JSONB),
        (&cause.fingerprint, Type::TEXT),
    ];
    let done = client.execute_typed(sql, &parameters).await;
    done.map(drop)
        .map_err(|e| pg::own_error("cannot record what failed again", e))
}

/// Computes the keys of the live read model's dead letters again, with the expression `key`.
pub(crate) async fn rekey(client: &Client, name: &ProjectionName, key: &str) -> Result<()> {
    let sql = query!("dead_letter/rekey.sql").fill(&[("key", &Sql::expression(key)?)])?;
    let done = client
        .execute_typed(&sql, &[(&name.as_str(), Type::TEXT)])
        .await;
    done.map(drop)
        .map_err(|e| pg::error("cannot compute the keys of the dead letters", e))
}

impl Fence<'_> {
    /// The fence of a dead letter that is retried: the checkpoint stays where it is.
    pub(crate) fn of_dead_letter(&self, position: Position) -> Sql {
        sql!(
            "select highwater.begin_dead_letter({row}, {position})",
            row = self.row(),
            position = Sql::number(position.get())
        )
    }
}

/// The statement that deletes a dead letter after it was applied.
pub(crate) fn settle(key: &Key, position: Position) -> Sql {
    sql!(
        "select highwater.settle({projection}, {generation}, {position})",
        projection = Sql::literal(key.projection.as_str()),
        generation = Sql::number(key.generation),
        position = Sql::number(position.get()),
    )
}

/// The dead letter as a relation with the columns of an event.
pub(crate) fn relation(key: &Key, position: Position) -> Sql {
    sql!(
        "(select position, stream, version, type, data, metadata, id, recorded_at \
         from highwater.dead_letter \
         where projection = {projection} and generation = {generation} and position = {position})",
        projection = Sql::literal(key.projection.as_str()),
        generation = Sql::number(key.generation),
        position = Sql::number(position.get()),
    )
}

/// The statement that records that a key was parked.
pub(crate) fn raise_parking(key: &Key) -> Sql {
    sql!(
        "update highwater.checkpoint set parking = parking + 1 \
         where projection = {projection} and generation = {generation} and partition = {partition}",
        projection = Sql::literal(key.projection.as_str()),
        generation = Sql::number(key.generation),
        partition = Sql::number(key.partition),
    )
}
