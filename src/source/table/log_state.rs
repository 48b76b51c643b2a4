//! What a table says of itself at a position, all of it from one session.

use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{EventTable, gap};
use crate::error::Result;
use crate::pg::sql::query;
use crate::pg::{self, Parameter, column_named};
use crate::position::{Position, Range};
use crate::source::{LogState, Removed, RemovedIn};

/// What `table` says at `at`; `known` is a position whose event may have been removed.
pub(super) async fn of(
    client: &Client,
    table: &EventTable,
    at: Position,
    known: Option<Position>,
) -> Result<LogState> {
    let sql = query!("source/log_state.sql").fill(&[("events", &table.sql()?)])?;
    let row = match client
        .query_typed_one(&sql, &[(&at.get(), Type::INT8)])
        .await
    {
        Ok(row) => row,
        Err(e) => {
            let error = pg::error("cannot compare the log with a checkpoint", e);
            return Err(gap::why(client, table, error).await);
        }
    };
    let head = Position::new(column_named(&row, "head")?);
    let oldest: Option<i64> = column_named(&row, "oldest")?;
    let last = match (
        column_named(&row, "last_position")?,
        column_named(&row, "last_id")?,
    ) {
        (Some(position), Some(id)) => Some((Position::new(position), id)),
        _ => None,
    };
    let asked: Vec<Position> = known.into_iter().chain(last.map(|l| l.0)).collect();
    let (identity, removed) = match &table.identity {
        Some(identity) => (identity.clone(), None),
        None => {
            let (identity, removed) = removed(client, &asked).await?;
            (identity, Some(removed))
        }
    };
    let reached = match head >= at {
        // To ask the sequence takes a snapshot of the locks.
        true => head,
        false => head.max(given(client, table).await?),
    };
    Ok(LogState {
        identity,
        reached,
        oldest: oldest.map(Position::new),
        last,
        removed,
    })
}

/// The last number that the sequence of the table gave; 0 where there is none to ask. Refuses a table
/// that cannot be followed.
pub(super) async fn given(client: &Client, table: &EventTable) -> Result<Position> {
    let snapshot = gap::snapshot(client, &table.relation, &table.gap).await?;
    match snapshot.sequence {
        Some(sequence) => gap::last_value(client, &table.relation, &sequence).await,
        None => Ok(Position::START),
    }
}

/// The identity of our own log, and what was removed from it at or around `positions`.
pub(super) async fn removed(client: &Client, positions: &[Position]) -> Result<(String, Removed)> {
    let sql = include_str!("../../../sql/queries/source/removed.sql");
    let numbers: Vec<i64> = positions.iter().map(|p| p.get()).collect();
    let row = client
        .query_typed_opt(sql, &[(&numbers, Type::INT8_ARRAY)])
        .await
        .map_err(|e| pg::own_error("cannot read what was removed from the event table", e))?;
    let Some(row) = row else {
        return Err(super::no_identity());
    };
    let identity: Uuid = column_named(&row, "identity")?;
    let others: Vec<i64> = column_named(&row, "removed")?;
    let removed = Removed {
        through: Position::new(column_named(&row, "removed_through")?),
        others: others.into_iter().map(Position::new).collect(),
    };
    Ok((identity.to_string(), removed))
}

/// What was removed from a range of our own log.
pub(super) async fn removed_in(client: &Client, range: Range) -> Result<RemovedIn> {
    let sql = include_str!("../../../sql/queries/source/removed_in.sql");
    let parameters: [(&Parameter<'_>, Type); 2] = [
        (&range.after().get(), Type::INT8),
        (&range.through().get(), Type::INT8),
    ];
    let rows = client.query_typed(sql, &parameters).await;
    let rows =
        rows.map_err(|e| pg::own_error("cannot read what was removed from the event table", e))?;
    let first = rows.first().ok_or_else(super::no_identity)?;
    let mut removed = RemovedIn {
        through: Position::new(column_named(first, "removed_through")?),
        others: Vec::new(),
    };
    for row in &rows {
        if let Some(position) = column_named::<Option<i64>>(row, "position")? {
            let id = column_named(row, "id")?;
            removed.others.push((Position::new(position), id));
        }
    }
    Ok(removed)
}
