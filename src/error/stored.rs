//! An error as it is stored with a checkpoint or a dead letter, for other instances and for status.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Error, ErrorKind, EventRef};
use crate::position::Position;

/// An error as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StoredError {
    /// Its kind.
    pub kind: String,
    /// The server's code.
    pub sqlstate: Option<String>,
    /// Where, if known, and what.
    pub message: String,
    /// Where it happened.
    pub location: Option<String>,
    /// The event it is about.
    pub event_id: Option<Uuid>,
    /// The type of that event.
    pub event_type: Option<String>,
    /// The position of that event, or of the projection.
    pub position: Position,
    /// How often it was tried.
    pub attempts: u32,
    /// When.
    pub at: Option<Timestamp>,
    /// What to do.
    pub hint: Option<String>,
}

impl StoredError {
    /// An error of a projection at `position`, which was tried `attempts` times.
    pub(crate) fn new(error: &Error, position: Position, attempts: u32) -> StoredError {
        let event = error.event();
        StoredError {
            kind: error.kind().as_str().to_owned(),
            sqlstate: error.sqlstate().map(str::to_owned),
            message: match error.location() {
                Some(location) => format!("{location}: {}", error.message()),
                None => error.message().to_owned(),
            },
            location: error.location().map(str::to_owned),
            event_id: event.map(|event| event.id),
            event_type: event.map(|event| event.event_type.clone()),
            position: event.map_or(position, |event| event.position),
            attempts,
            at: Some(Timestamp::now()),
            hint: error.hint().map(str::to_owned),
        }
    }

    /// The error again, without its source.
    pub(crate) fn to_error(&self) -> Error {
        // A newer version may know more kinds.
        let kind = self.kind.parse().unwrap_or(ErrorKind::Apply);
        let location = self.location.as_deref();
        let message = location
            .and_then(|location| self.message.strip_prefix(location)?.strip_prefix(": "))
            .unwrap_or(&self.message);
        let mut error = Error::new(kind, message);
        if let Some(location) = location {
            error = error.with_location(location);
        }
        if let Some(hint) = &self.hint {
            error = error.with_hint(hint);
        }
        if let Some(sqlstate) = &self.sqlstate {
            error = error.with_sqlstate(sqlstate);
        }
        match (self.event_id, &self.event_type) {
            (Some(id), Some(event_type)) => error.with_event(EventRef {
                position: self.position,
                id,
                event_type: event_type.clone(),
            }),
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn errors() -> impl Strategy<Value = Error> {
        let text = || proptest::option::of(".{0,40}");
        let event = proptest::option::of((1_i64.., any::<u128>(), ".{0,20}"));
        let kind = proptest::sample::select(ErrorKind::ALL);
        let parts = (kind, ".{0,40}", text(), text(), text(), event);
        parts.prop_map(|(kind, message, location, hint, sqlstate, event)| {
            let mut error = Error::new(kind, message);
            if let Some(location) = location {
                error = error.with_location(location);
            }
            if let Some(hint) = hint {
                error = error.with_hint(hint);
            }
            if let Some(sqlstate) = sqlstate {
                error = error.with_sqlstate(sqlstate);
            }
            match event {
                None => error,
                Some((position, id, event_type)) => error.with_event(EventRef {
                    position: Position::new(position),
                    id: Uuid::from_u128(id),
                    event_type,
                }),
            }
        })
    }

    proptest! {
        #[test]
        fn an_error_that_is_stored_and_read_back_is_the_same_error(error in errors()) {
            let stored = StoredError::new(&error, Position::new(7), 3);
            let json = serde_json::to_string(&stored).unwrap();
            let read: StoredError = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read, &stored);
            let read = read.to_error();
            prop_assert_eq!(read.to_string(), error.to_string());
            prop_assert_eq!(read.kind(), error.kind());
            prop_assert_eq!(read.event(), error.event());
            prop_assert_eq!(read.sqlstate(), error.sqlstate());
            prop_assert_eq!(read.fingerprint(), error.fingerprint());
        }
    }

    #[test]
    fn an_error_about_no_event_is_stored_with_the_position_of_the_projection() {
        let error = Error::new(ErrorKind::Diverged, "the source went back");
        let stored = StoredError::new(&error, Position::new(7), 1);
        assert_eq!(stored.position, Position::new(7));
        assert_eq!(stored.to_error().event(), None);
    }
}
