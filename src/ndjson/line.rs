//! A recorded event as a line.

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;

/// A recorded event as one line, without its end: the columns of the batch.
///
/// # Errors
/// [`ErrorKind::Internal`]; no event is known to cause it.
pub fn to_line(event: &RecordedEvent) -> Result<String> {
    let text = serde_json::to_string(event).map_err(|e| {
        Error::new(
            ErrorKind::Internal,
            format!("an event cannot be written as JSON: {e}"),
        )
    })?;
    // JSON text of another source may be laid out in lines; inside a string no line can end.
    Ok(text.replace(['\n', '\r'], " "))
}
