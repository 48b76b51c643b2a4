//! The last event that a follower has passed. Each read begins with it, so that an event of a log
//! that was started again is never taken for the next one.

use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{EventTable, log_state};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{self, column};
use crate::position::Position;

/// The last event at or below the mark, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LastPassed(Option<(Position, Uuid)>);

impl LastPassed {
    /// The last event of `table` at or below `mark` now.
    pub(super) async fn at(
        client: &Client,
        table: &EventTable,
        mark: Position,
    ) -> Result<LastPassed> {
        let sql = table.last_sql()?;
        let row = client
            .query_typed_opt(&sql, &[(&mark.get(), Type::INT8)])
            .await
            .map_err(|e| pg::error("cannot read the event at the mark", e))?;
        let Some(row) = row else {
            return Ok(LastPassed(None));
        };
        Ok(LastPassed(Some((
            Position::new(column(&row, 0)?),
            column(&row, 1)?,
        ))))
    }

    pub(super) fn of(event: Option<(Position, Uuid)>) -> LastPassed {
        LastPassed(event)
    }

    /// Where a read begins: at the event itself, or where there is none at the beginning.
    pub(super) fn from(self) -> Position {
        self.0.map_or(Position::START, |(position, _)| position)
    }

    /// Whether a read found this event, and no other, at or below the mark.
    pub(super) fn is(self, found: &[(Position, Uuid)]) -> bool {
        found == self.0.as_slice()
    }

    /// The event that takes its place, if it was removed on purpose and none appeared below the
    /// mark.
    pub(super) async fn again(
        self,
        client: &Client,
        table: &EventTable,
        mark: Position,
        found: &[(Position, Uuid)],
    ) -> Result<LastPassed> {
        let Some((position, id)) = self.0 else {
            return Err(went_back(table, &unexpected(mark, found)));
        };
        if !found.is_empty() {
            return Err(went_back(table, &unexpected(mark, found)));
        }
        let now = LastPassed::at(client, table, mark).await?;
        let gone = format!(
            "event {id} at position {position}, the last one read, is gone, and its removal was \
             not recorded"
        );
        if table.identity.is_some() {
            return Err(went_back(table, &gone));
        }
        let asked: Vec<Position> = [position].into_iter().chain(now.0.map(|e| e.0)).collect();
        let (_, removed) = log_state::removed(client, &asked).await?;
        match now.0 {
            Some((at, _)) if removed.contains(at) => {
                Err(went_back(table, &format!("position {at} was issued again")))
            }
            _ if removed.contains(position) => Ok(now),
            _ => Err(went_back(table, &gone)),
        }
    }
}

fn unexpected(mark: Position, found: &[(Position, Uuid)]) -> String {
    let found = found.first().map_or_else(String::new, |(at, id)| {
        format!("event {id} at position {at}")
    });
    format!("{found} is now below the mark {mark}, where it was not before")
}

fn went_back(table: &EventTable, what: &str) -> Error {
    let what = format!("{} went back: {what}", table.relation);
    Error::new(ErrorKind::Diverged, what).with_hint(HINT)
}

pub(super) const HINT: &str = "the table was truncated or restored, or its sequence was set; put the \
    events or the sequence back, or rebuild the projections that read it";
