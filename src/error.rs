//! What went wrong, where, and what to do next.

mod fingerprint;

use std::error::Error as StdError;
use std::fmt;

use uuid::Uuid;

use crate::position::Position;

/// A result with highwater's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is. [`crate::retry`] holds the one table from kind to verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The command line cannot be understood.
    Usage,
    /// A file, a setting, a statement or the machine is not as it must be.
    Config,
    /// The database refuses what it must allow: schema missing or too new, server too old,
    /// rights missing, an object not in the state that is needed.
    Database,
    /// The server could not be reached, or the connection was lost.
    ConnectionLost,
    /// The server chose this transaction as the victim of a serialization failure or deadlock.
    Serialization,
    /// Somebody else holds a lock on what is needed, or uses it.
    Locked,
    /// The server has no room: disk, memory, a limit of its configuration.
    Resources,
    /// The table or its sequence is not one whose order can be proven.
    Precondition,
    /// The stream was not at the expected version.
    VersionConflict,
    /// The same event id is there with other content.
    IdConflict,
    /// The event itself cannot be stored: not JSON, a NUL character, a line too long.
    BadEvent,
    /// The projection's own SQL or code failed on a batch.
    Apply,
    /// The projection's code could not read an event.
    Undigestible,
    /// More keys or events would be parked than may be.
    ParkedFull,
    /// The projection's definition is not the one its read model was built with.
    Changed,
    /// Another instance runs this projection now, under a higher epoch.
    Fenced,
    /// The source is not the one the checkpoint was taken from, or it went back.
    Diverged,
    /// The source no longer has events that the projection has not read.
    Stranded,
    /// There is no such thing: projection, event, file.
    NotFound,
    /// The time given ran out, or the server's own limit for a statement.
    TimedOut,
    /// Reading or writing a file or a pipe failed.
    Io,
    /// A mistake in highwater itself.
    Internal,
}

impl ErrorKind {
    const ALL: [ErrorKind; 18] = [
        ErrorKind::Usage,
        ErrorKind::Config,
        ErrorKind::Database,
        ErrorKind::ConnectionLost,
        ErrorKind::Serialization,
        ErrorKind::Precondition,
        ErrorKind::VersionConflict,
        ErrorKind::IdConflict,
        ErrorKind::BadEvent,
        ErrorKind::Apply,
        ErrorKind::Undigestible,
        ErrorKind::Changed,
        ErrorKind::Fenced,
        ErrorKind::Diverged,
        ErrorKind::NotFound,
        ErrorKind::TimedOut,
        ErrorKind::Io,
        ErrorKind::Internal,
    ];

    /// The kind of this name.
    pub(crate) fn named(name: &str) -> Option<ErrorKind> {
        ErrorKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }

    /// The kind as status, logs and metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Usage => "usage",
            ErrorKind::Config => "config",
            ErrorKind::Database => "database",
            ErrorKind::ConnectionLost => "connection_lost",
            ErrorKind::Serialization => "serialization",
            ErrorKind::Locked => "locked",
            ErrorKind::Resources => "resources",
            ErrorKind::Precondition => "precondition",
            ErrorKind::VersionConflict => "version_conflict",
            ErrorKind::IdConflict => "id_conflict",
            ErrorKind::BadEvent => "bad_event",
            ErrorKind::Apply => "apply",
            ErrorKind::Undigestible => "undigestible",
            ErrorKind::ParkedFull => "parked_full",
            ErrorKind::Changed => "changed",
            ErrorKind::Fenced => "fenced",
            ErrorKind::Diverged => "diverged",
            ErrorKind::Stranded => "stranded",
            ErrorKind::NotFound => "not_found",
            ErrorKind::TimedOut => "timed_out",
            ErrorKind::Io => "io",
            ErrorKind::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The event that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRef {
    /// Its place in the log.
    pub position: Position,
    /// Its identity.
    pub id: Uuid,
    /// Its type.
    pub event_type: String,
}

/// A failure: its kind, one sentence, the place, the event, the SQLSTATE and what to do next,
/// each where it is known.
///
/// It prints as `PLACE: what; what to do`, in one line unless the server's own text has more.
pub struct Error(Box<Inner>);

/// What happened fits into so many bytes: a line of a file or a name may have any length.
const WHAT_MAX: usize = 4_000;

struct Inner {
    kind: ErrorKind,
    what: String,
    place: Option<String>,
    hint: Option<String>,
    sqlstate: Option<String>,
    event: Option<EventRef>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind; `what` says in one clause what happened. Of more than 4,000 bytes the
    /// end is left out.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            what: shortened(what.into()),
            place: None,
            hint: None,
            sqlstate: None,
            event: None,
            source: None,
        }))
    }

    /// The place it happened, for example `projections/files.sql: line 12`.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Error {
        self.0.place = Some(place.into());
        self
    }

    /// What the user can do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// The error underneath.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// The event it is about.
    #[must_use]
    pub fn event(mut self, event: EventRef) -> Error {
        self.0.event = Some(event);
        self
    }

    /// The server's SQLSTATE.
    #[must_use]
    pub fn sqlstate(mut self, sqlstate: impl Into<String>) -> Error {
        self.0.sqlstate = Some(sqlstate.into());
        self
    }

    /// The same error as another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    /// The same error for another who is told of it, without what lies underneath.
    pub(crate) fn again(&self) -> Error {
        Error(Box::new(Inner {
            kind: self.0.kind,
            what: self.0.what.clone(),
            place: self.0.place.clone(),
            hint: self.0.hint.clone(),
            sqlstate: self.0.sqlstate.clone(),
            event: self.0.event.clone(),
            source: None,
        }))
    }

    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What happened, without place and hint.
    pub fn message(&self) -> &str {
        &self.0.what
    }

    /// Where it happened, if known.
    pub fn place(&self) -> Option<&str> {
        self.0.place.as_deref()
    }

    /// What to do next, if known.
    pub fn what_to_do(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The server's SQLSTATE, if the server said it.
    pub fn code(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// The event it is about, if it is about one.
    pub fn event_ref(&self) -> Option<&EventRef> {
        self.0.event.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.0.place {
            write!(f, "{}: ", Printable(place))?;
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
        if let Some(hint) = &self.0.hint {
            write!(f, "; {}", Printable(hint))?;
        }
        Ok(())
    }
}

/// Text that may come from anywhere, without what would speak to a terminal. Lines stay lines: the
/// server's own text has some.
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
    fn an_error_prints_place_what_event_code_and_hint_in_that_order() {
        let error = Error::new(ErrorKind::Apply, "division by zero")
            .at("projections/files.sql: line 12")
            .sqlstate("22012")
            .event(EventRef {
                position: Position::new(7),
                id: Uuid::nil(),
                event_type: "FileAdded".into(),
            })
            .hint("mend the statement and run again");
        assert_eq!(
            error.to_string(),
            "projections/files.sql: line 12: division by zero (position 7, event \
             00000000-0000-0000-0000-000000000000, type FileAdded) (SQLSTATE 22012); \
             mend the statement and run again"
        );
    }

    #[test]
    fn what_an_error_quotes_neither_speaks_to_the_terminal_nor_goes_on_for_ever() {
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
