//! Checkpoints: the position of each read model, and the fence that keeps a second writer out.
//!
//! **Who is authoritative.** The row in `highwater.checkpoint`, in the database of the read model.
//! A runner only has a copy in memory, which the fence compares.
//!
//! **The formula.** A batch `(after, through]` commits only if its transaction moved the row `where
//! position = after and epoch = mine and parking = as I know it`, not beyond `drain_at` (the fence,
//! its first statement). A claim raises the epoch ([`claim`]). It takes a free row only and never
//! waits: while a predecessor's batch is in flight it fails. A forced claim waits for that batch.
//! Either way it returns the final position of the predecessor.
//!
//! **Consequences.** A runner with an old epoch can burn CPU but never commit. The position only
//! rises.
//!
//! **Beside the read model.** The second statement of the fence moves `highwater_position` in the
//! schema of the read model from the same position to the same. It raises HW105 if the row is not
//! there or at another position: then read model or checkpoint was restored without the other.
//!
//! **The order of locks.** A transaction that locks more than one row locks the projection's first,
//! in a statement of its own and `for no key update` (a batch that parks refers to it), then its
//! checkpoints in the order of partitions. A later statement sees the rows of the transaction that
//! was waited for; the statement that waited would miss those of a new partitioning. A batch locks
//! the row of its own checkpoint only, never that of the projection.
//!
//! **Failures.** Zero rows raise HW101 in the server. The runner then reads the row again
//! ([`read`]): if its epoch is still there, it continues from the position there (a commit whose
//! answer was lost); if not, it stops.

mod anchor;

use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result, StoredError};
use crate::name::ProjectionName;
use crate::pg::sql::{Sql, query, sql};
use crate::pg::{self, Parameter, column};
use crate::position::{Position, Range};

pub(crate) use anchor::{anchor, live};

/// Which checkpoint: one partition of one generation of one projection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The projection.
    pub projection: ProjectionName,
    /// The build of its read model.
    pub generation: i32,
    /// The partition, from 0.
    pub partition: i32,
}

/// The fencing number of a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(i64);

impl Epoch {
    /// The number, as it is in the database.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// A checkpoint row, as far as a runner needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// How far the read model is.
    pub position: Position,
    /// The epoch that may move it.
    pub epoch: Epoch,
    /// The log it was taken from.
    pub source_identity: String,
    /// The last event at or before the position, as the log had it then.
    pub last_event: LastEvent,
    /// The number of partitions of the projection.
    pub partitions: i32,
    /// The position at which its partition ends, if the number of partitions is being changed.
    pub drain_at: Option<Position>,
    /// Rises whenever a key is parked or released.
    pub parking: i64,
}

/// How a checkpoint is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claiming {
    /// If no other living instance owns it, no batch of a predecessor is in flight, and no error
    /// has stopped it since this instance began.
    IfFree,
    /// Whichever instance owns it.
    Forced,
}

/// The last event at or before a position.
pub type LastEvent = Option<(Position, Uuid)>;

/// The fence of one runner: what the row of the checkpoint must contain so that it may move it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fence<'a> {
    pub(crate) key: &'a Key,
    pub(crate) epoch: Epoch,
    /// As in the row when its parked keys were read.
    pub(crate) parking: i64,
    /// The schema of the read model, whose `highwater_position` moves with it.
    pub(crate) schema: &'a str,
}

impl Fence<'_> {
    /// How many statements it is.
    pub(crate) const STATEMENTS: usize = 2;

    /// What the row must contain.
    pub(crate) fn row(&self) -> Sql {
        sql!(
            "row({projection}, {generation}, {partition}, {epoch}, {parking})::highwater.fence",
            projection = Sql::literal(self.key.projection.as_str()),
            generation = Sql::number(self.key.generation),
            partition = Sql::number(self.key.partition),
            epoch = Sql::number(self.epoch.0),
            parking = Sql::number(self.parking),
        )
    }

    /// To be sent together with the statements it protects. `last` is position and id of the last
    /// event of the range, `from` where they are from.
    fn sql(&self, range: Range, last: &Sql, from: &Sql) -> Sql {
        sql!(
            "select highwater.begin_batch({row}, {after}, {through}, {last}){from};\n\
             with moved as (update {schema}.highwater_position set position = {through} \
             where partition = {partition} and position = {after} returning 1) \
             select highwater.raise_misplaced({name}, {partition}, {after}) \
             where not exists (select from moved)",
            row = self.row(),
            after = Sql::number(range.after().get()),
            through = Sql::number(range.through().get()),
            last = last,
            from = from,
            schema = Sql::identifier(self.schema),
            name = Sql::literal(self.schema),
            partition = Sql::number(self.key.partition),
        )
    }

    /// The fence where the caller knows the last event of the range.
    pub(crate) fn text(&self, range: Range, last: LastEvent) -> Sql {
        self.sql(range, &position_and_id(last), &Sql::trusted(""))
    }

    /// The same, which says how long the transaction has been open.
    pub(crate) fn text_timed(&self, range: Range, last: LastEvent) -> Sql {
        let from = sql!(", {elapsed}", elapsed = ELAPSED);
        self.sql(range, &position_and_id(last), &from)
    }

    /// The fence where the server looks the last event of the range up in `relation`.
    pub(crate) fn text_in_server(&self, range: Range, relation: &str) -> Result<Sql> {
        let last = query!("source/last.sql").fill(&[
            ("events", &Sql::relation(relation)?),
            ("position", &Sql::number(range.through().get())),
        ])?;
        let from = sql!(
            ", {elapsed} from (select) one left join lateral ({last}) e on true",
            elapsed = ELAPSED,
            last = last
        );
        Ok(self.sql(range, &Sql::trusted("e.position, e.id"), &from))
    }
}

fn position_and_id(last: LastEvent) -> Sql {
    match last {
        Some((position, id)) => Sql::join([Sql::number(position.get()), Sql::uuid(id)], ", "),
        None => Sql::trusted("null, null"),
    }
}

/// How long the transaction has been open, by the server's clock: the second column of the answers
/// of the fence and of the last statement, where the server does all the work and only it knows the
/// time of each part.
const ELAPSED: Sql =
    Sql::trusted("extract(epoch from clock_timestamp() - transaction_timestamp())");

impl Key {
    fn parameters(&self) -> [(&str, i32, i32); 1] {
        [(self.projection.as_str(), self.generation, self.partition)]
    }
}

/// The last statement before COMMIT: fails unless the transaction of the fence is still open and
/// intact.
pub(crate) fn end_batch(range: Range) -> Sql {
    sql!(
        "select highwater.end_batch({after}, {through}), {elapsed}",
        after = Sql::number(range.after().get()),
        through = Sql::number(range.through().get()),
        elapsed = ELAPSED,
    )
}

/// Claims a checkpoint for `instance`: raises its epoch and returns the row. `None` if the row does
/// not exist or is not free.
pub async fn claim(
    client: &Client,
    key: &Key,
    instance: Uuid,
    claiming: Claiming,
) -> Result<Option<Checkpoint>> {
    let sql = match claiming {
        Claiming::IfFree => include_str!("../../sql/queries/checkpoint/claim.sql"),
        Claiming::Forced => include_str!("../../sql/queries/checkpoint/claim_forced.sql"),
    };
    let [(projection, generation, partition)] = key.parameters();
    let parameters: [(&Parameter<'_>, Type); 4] = [
        (&projection, Type::TEXT),
        (&generation, Type::INT4),
        (&partition, Type::INT4),
        (&instance, Type::UUID),
    ];
    let row = client.query_typed_opt(sql, &parameters).await;
    let row = row.map_err(|e| pg::own_error("cannot claim the checkpoint", e))?;
    row.as_ref().map(checkpoint).transpose()
}

/// Releases a checkpoint under `epoch`, so that another instance can claim it at once.
pub(crate) async fn release(client: &Client, key: &Key, epoch: Epoch) -> Result<()> {
    let sql = include_str!("../../sql/queries/checkpoint/release.sql");
    let [(projection, generation, partition)] = key.parameters();
    let parameters: [(&Parameter<'_>, Type); 4] = [
        (&projection, Type::TEXT),
        (&generation, Type::INT4),
        (&partition, Type::INT4),
        (&epoch.0, Type::INT8),
    ];
    let done = client.execute_typed(sql, &parameters).await;
    done.map(drop)
        .map_err(|e| pg::own_error("cannot release the checkpoint", e))
}

/// Reads a checkpoint. `None` if the row does not exist.
pub async fn read(client: &Client, key: &Key) -> Result<Option<Checkpoint>> {
    let sql = include_str!("../../sql/queries/checkpoint/read.sql");
    let [(projection, generation, partition)] = key.parameters();
    let parameters: [(&Parameter<'_>, Type); 3] = [
        (&projection, Type::TEXT),
        (&generation, Type::INT4),
        (&partition, Type::INT4),
    ];
    let row = client.query_typed_opt(sql, &parameters).await;
    let row = row.map_err(|e| pg::own_error("cannot read the checkpoint", e))?;
    row.as_ref().map(checkpoint).transpose()
}

fn checkpoint(row: &Row) -> Result<Checkpoint> {
    Ok(Checkpoint {
        position: Position::new(column(row, 0)?),
        epoch: Epoch(column(row, 1)?),
        source_identity: column(row, 2)?,
        last_event: match (column(row, 3)?, column(row, 4)?) {
            (Some(position), Some(id)) => Some((Position::new(position), id)),
            _ => None,
        },
        partitions: column(row, 5)?,
        drain_at: column::<Option<i64>>(row, 6)?.map(Position::new),
        parking: column(row, 7)?,
    })
}

/// How many partitions a generation has.
pub(crate) async fn partitions(
    client: &Client,
    projection: &ProjectionName,
    generation: i32,
) -> Result<i32> {
    let sql = include_str!("../../sql/queries/checkpoint/partitions.sql");
    let parameters: [(&Parameter<'_>, Type); 2] = [
        (&projection.as_str(), Type::TEXT),
        (&generation, Type::INT4),
    ];
    let row = client.query_typed_one(sql, &parameters).await;
    let row = row.map_err(|e| pg::own_error("cannot read the checkpoints", e))?;
    column(&row, 0)
}

/// The position of the live read model of a projection: that of the partition that is furthest
/// behind.
pub(crate) async fn lowest(client: &Client, projection: &ProjectionName) -> Result<Position> {
    let sql = include_str!("../../sql/queries/checkpoint/lowest.sql");
    let row = client
        .query_typed_one(sql, &[(&projection.as_str(), Type::TEXT)])
        .await;
    let row = row.map_err(|e| pg::own_error("cannot read the checkpoints", e))?;
    Ok(Position::new(column(&row, 0)?))
}

/// Moves a checkpoint over a range that holds nothing for its projection.
pub(crate) async fn skip(
    client: &Client,
    fence: &Fence<'_>,
    range: Range,
    last: LastEvent,
) -> Result<()> {
    let sql = fence.text(range, last);
    let done = client.batch_execute(&sql).await;
    done.map_err(|e| pg::own_error("cannot move the checkpoint", e))
}

/// The highest checkpoints on a source, each with the last event it knows, the highest first.
pub(crate) async fn highest(
    client: &Client,
    source_identity: &str,
) -> Result<Vec<(Position, LastEvent)>> {
    let sql = include_str!("../../sql/queries/checkpoint/highest.sql");
    let rows = client
        .query_typed(sql, &[(&source_identity, Type::TEXT)])
        .await
        .map_err(|e| pg::own_error("cannot read the checkpoints", e))?;
    let checkpoint = |row: &Row| {
        let event = (Position::new(column(row, 1)?), column(row, 2)?);
        Ok((Position::new(column(row, 0)?), Some(event)))
    };
    rows.iter().map(checkpoint).collect()
}

/// Stores the state of a runner, under its epoch; `error` is kept until the next batch succeeds.
pub(crate) async fn report(
    client: &Client,
    key: &Key,
    epoch: Epoch,
    state: &str,
    error: Option<&Value>,
) -> Result<()> {
    let sql = include_str!("../../sql/queries/checkpoint/report.sql");
    let [(projection, generation, partition)] = key.parameters();
    let parameters: [(&Parameter<'_>, Type); 6] = [
        (&projection, Type::TEXT),
        (&generation, Type::INT4),
        (&partition, Type::INT4),
        (&epoch.0, Type::INT8),
        (&state, Type::TEXT),
        (&error, Type::JSONB),
    ];
    let done = client.execute_typed(sql, &parameters).await;
    done.map(drop)
        .map_err(|e| pg::own_error("cannot report the state", e))
}

/// Records that `instance` could not start a projection, unless another living one runs it.
pub(crate) async fn report_unstarted(
    client: &Client,
    projection: &ProjectionName,
    instance: Uuid,
    error: &Value,
) -> Result<()> {
    let sql = include_str!("../../sql/queries/checkpoint/report_unstarted.sql");
    let parameters: [(&Parameter<'_>, Type); 3] = [
        (&projection.as_str(), Type::TEXT),
        (error, Type::JSONB),
        (&instance, Type::UUID),
    ];
    let done = client.execute_typed(sql, &parameters).await;
    done.map(drop)
        .map_err(|e| pg::own_error("cannot report the state", e))
}

/// An error as it is stored in `highwater.checkpoint.last_error` and with a dead letter.
pub(crate) fn error_value(error: &Error, position: Position, attempts: u32) -> Value {
    serde_json::json!(StoredError::new(error, position, attempts))
}

/// The error of a runner with an old epoch.
pub(crate) fn superseded(key: &Key, found: Epoch) -> Error {
    let what = format!(
        "another instance has taken partition {} of \"{}\" over (epoch {})",
        key.partition, key.projection, found.0
    );
    Error::new(ErrorKind::Fenced, what).with_hint(
        "no action needed after a pause, a lost connection or an accept; highwater status shows the \
         owner",
    )
}

/// The error of a runner whose generation is no longer the live one.
pub(crate) fn swapped(key: &Key) -> Error {
    let what = format!(
        "generation {} of \"{}\" no longer exists",
        key.generation, key.projection
    );
    Error::new(ErrorKind::Fenced, what)
}
