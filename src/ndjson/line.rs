//! A recorded event as a line.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::position::Position;

#[derive(Serialize)]
struct Line<'a> {
    position: Position,
    stream: &'a str,
    version: i64,
    #[serde(rename = "type")]
    event_type: &'a str,
    data: &'a RawValue,
    metadata: &'a RawValue,
    id: Uuid,
    recorded_at: Timestamp,
}

/// A recorded event as one line, without its end: the columns of the batch.
///
/// # Errors
/// [`ErrorKind::Internal`]; no event is known to cause it.
pub fn to_line(event: &RecordedEvent) -> Result<String> {
    let line = Line {
        position: event.position,
        stream: &event.stream,
        version: event.version,
        event_type: &event.event_type,
        data: &event.data,
        metadata: &event.metadata,
        id: event.id,
        recorded_at: event.recorded_at,
    };
    let text = serde_json::to_string(&line).map_err(|e| {
        Error::new(
            ErrorKind::Internal,
            format!("an event cannot be written as JSON: {e}"),
        )
    })?;
    // JSON text of another source may be laid out in lines; inside a string no line can end.
    Ok(text.replace(['\n', '\r'], " "))
}
