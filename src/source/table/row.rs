//! A row of the event table as a [`RecordedEvent`].

use serde_json::value::RawValue;
use tokio_postgres::Row;

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::pg::column;
use crate::position::Position;

/// The columns in the order of `sql/queries/source/read.sql`.
pub(super) fn event(row: &Row) -> Result<RecordedEvent> {
    Ok(RecordedEvent {
        position: Position::new(column(row, 0)?),
        stream: column(row, 1)?,
        version: column(row, 2)?,
        event_type: column(row, 3)?,
        data: raw(column(row, 4)?)?,
        metadata: raw(column(row, 5)?)?,
        id: column(row, 6)?,
        recorded_at: column(row, 7)?,
    })
}

fn raw(text: String) -> Result<Box<RawValue>> {
    RawValue::from_string(text).map_err(|e| {
        Error::new(
            ErrorKind::Internal,
            format!("the server sent invalid JSON: {e}"),
        )
        .with_source(e)
    })
}
