//! What went wrong, where, and what to do next.

mod cause;
mod fingerprint;
mod kind;
mod stored;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::position::Position;

pub use kind::{ErrorKind, Verdict};
pub use stored::StoredError;

/// A result with highwater's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The event that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventRef {
    /// Its place in the log.
    pub position: Position,
    /// Its identity.
    pub id: Uuid,
    /// Its type.
    pub event_type: String,
}

/// Any error: what a projection's own code may fail with. `?` makes one of every error type.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A failure: its kind, one sentence, the location, the event, the SQLSTATE and what to do next,
/// each where it is known.
///
/// It prints as `LOCATION: what; what to do`, in one line unless the server's own text has more.
#[derive(Clone)]
pub struct Error(Box<Inner>);

/// The longest message, in bytes: a line of a file or a name may have any length.
const WHAT_MAX: usize = 4_000;

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    what: String,
    location: Option<String>,
    hint: Option<String>,
    sqlstate: Option<String>,
    event: Option<EventRef>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind; `what` says in one clause what happened. Of more than 4,000 bytes the
    /// end is left out.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            what: shortened(what.into()),
            location: None,
            hint: None,
            sqlstate: None,
            event: None,
            source: None,
        }))
    }

    /// Sets where it happened, for example `projections/files.sql: line 12`.
    #[must_use]
    pub fn with_location(mut self, location: impl Into<String>) -> Error {
        self.0.location = Some(location.into());
        self
    }

    /// Sets what the user can do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Error {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Sets the event it is about.
    #[must_use]
    pub fn with_event(mut self, event: EventRef) -> Error {
        self.0.event = Some(event);
        self
    }

    /// Sets the server's SQLSTATE.
    #[must_use]
    pub fn with_sqlstate(mut self, sqlstate: impl Into<String>) -> Error {
        self.0.sqlstate = Some(sqlstate.into());
        self
    }

    /// The same error as another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What happened, without location and hint.
    pub fn message(&self) -> &str {
        &self.0.what
    }

    /// Where it happened, if known.
    pub fn location(&self) -> Option<&str> {
        self.0.location.as_deref()
    }

    /// What to do next: what the error itself says, else what its kind does.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref().or(self.0.kind.hint())
    }

    /// The server's SQLSTATE, if the server said it.
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// The event it is about, if it is about one.
    pub fn event(&self) -> Option<&EventRef> {
        self.0.event.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.0.location {
            write!(f, "{}: ", Printable(location))?;
        }
        write!(f, "{}", Printable(&self.0.what))?;
        if let Some(event) = &self.0.event {
            write!(
                f,
                " (position {}, event {}, type {})",
                event.position,
                event.id,
                Printable(&event.event_type)
            )?;
        }
        if let Some(code) = &self.0.sqlstate {
            write!(f, " (SQLSTATE {code})")?;
        }
        if let Some(hint) = self.hint() {
            write!(f, "; {}", Printable(hint))?;
        }
        Ok(())
    }
}

/// Text that may come from anywhere, without control sequences of a terminal. Line breaks stay,
/// because the server's messages have some.
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(|c: char| c.is_control()) {
            match part.char_indices().next_back() {
                Some((at, c)) if c.is_control() && !matches!(c, '\n' | '\t') => {
                    write!(f, "{}{}", &part[..at], c.escape_debug())?;
                }
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

fn shortened(mut what: String) -> String {
    if what.len() > WHAT_MAX {
        let end = (0..=WHAT_MAX).rev().find(|at| what.is_char_boundary(*at));
        what.truncate(end.unwrap_or_default());
        what.push('…');
    }
    what
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|s| s as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_location_what_event_code_and_hint_in_that_order() {
        let error = Error::new(ErrorKind::Apply, "division by zero")
            .with_location("projections/files.sql: line 12")
            .with_sqlstate("22012")
            .with_event(EventRef {
                position: Position::new(7),
                id: Uuid::nil(),
                event_type: "FileAdded".into(),
            })
            .with_hint("fix the statement and run again");
        assert_eq!(
            error.to_string(),
            "projections/files.sql: line 12: division by zero (position 7, event \
             00000000-0000-0000-0000-000000000000, type FileAdded) (SQLSTATE 22012); \
             fix the statement and run again"
        );
    }

    #[test]
    fn what_an_error_quotes_is_cut_and_cannot_control_the_terminal() {
        let error = Error::new(
            ErrorKind::BadEvent,
            "unknown \u{1b}[2J\u{9b}\r key\n\tand more",
        );
        assert_eq!(
            error.to_string(),
            "unknown \\u{1b}[2J\\u{9b}\\r key\n\tand more"
        );
        let error = Error::new(ErrorKind::BadEvent, "é".repeat(1_000_000));
        assert!(error.message().len() < 4_010 && error.message().ends_with("é…"));
    }
}
