//! Why there is no server: a kind, one sentence, and what to do next.

use std::error::Error as StdError;
use std::fmt;

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The machine is not as it must be: no server programs, no account to run them, a directory
    /// that is not the server's.
    Setup,
    /// The server did not start, or it refuses what it is asked.
    Failed,
    /// The server went away while it was asked.
    Lost,
    /// The server did not start, answer or stop in time.
    TimedOut,
    /// Reading or writing a file failed, or starting or ending a process.
    Io,
    /// A bug in this crate.
    Internal,
}

/// A failure. It prints as `LOCATION: what; what to do`.
pub struct Error(Box<Inner>);

type Source = Box<dyn StdError + Send + Sync>;

struct Inner {
    kind: ErrorKind,
    what: String,
    location: Option<String>,
    hint: Option<String>,
    source: Option<Source>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            what: what.into(),
            location: None,
            hint: None,
            source: None,
        }))
    }

    pub(crate) fn with_location(mut self, location: impl Into<String>) -> Error {
        self.0.location = Some(location.into());
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Source>) -> Error {
        self.0.source = Some(source.into());
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

    /// Where it happened, if known: a file, a directory, a variable.
    pub fn location(&self) -> Option<&str> {
        self.0.location.as_deref()
    }

    /// What to do next, if known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The error underneath, if there is one.
    pub fn into_source(self) -> Option<Box<dyn StdError + Send + Sync>> {
        self.0.source
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = self.location() {
            write!(f, "{location}: ")?;
        }
        f.write_str(self.message())?;
        match self.hint() {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}
