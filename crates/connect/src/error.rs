//! Why there is no connection: a kind, one sentence, and what to do next.

use std::error::Error as StdError;
use std::fmt;

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A connection string, an option, a variable or a file is not as it must be.
    Setting,
    /// No server was reached, it did not answer in time, or the connection was lost.
    Unreachable,
    /// The server takes no session now: it starts, it stops, or no session is free.
    NotReady,
    /// The server refuses: role, password, database, right.
    Refused,
    /// No TLS connection that is verified as the settings ask.
    Tls,
    /// All sessions of the pool stayed in use.
    PoolBusy,
    /// A bug in this crate or in one that it uses.
    Internal,
}

impl ErrorKind {
    /// Whether the same attempt may succeed later.
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            ErrorKind::Unreachable | ErrorKind::NotReady | ErrorKind::PoolBusy
        )
    }
}

/// A failure. It prints as `LOCATION: what (SQLSTATE code); what to do`, and never shows a password.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    what: String,
    location: Option<String>,
    hint: Option<String>,
    sqlstate: Option<String>,
    source: Option<tokio_postgres::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            what: what.into(),
            location: None,
            hint: None,
            sqlstate: None,
            source: None,
        }))
    }

    /// An error of the driver: the server's own message, its SQLSTATE, its detail and hint.
    ///
    /// `doing` is the clause before the colon, for example `cannot read orders`.
    pub fn from_driver(doing: &str, error: tokio_postgres::Error) -> Error {
        let mut ours = Error::new(kind_of(&error), described(doing, &error));
        if let Some(db) = error.as_db_error() {
            ours.0.sqlstate = Some(db.code().code().to_owned());
            // Another clause may follow it.
            ours.0.hint = db.hint().map(|hint| hint.trim_end_matches('.').to_owned());
        }
        ours.with_source(error)
    }

    /// Sets where it happened: a server, a file, the place of a setting.
    #[must_use]
    pub fn with_location(mut self, location: impl Into<String>) -> Error {
        self.0.location = Some(location.into());
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn with_source(mut self, source: tokio_postgres::Error) -> Error {
        self.0.source = Some(source);
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

    /// What to do next, if known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The server's SQLSTATE, if the server said it.
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// The driver's error underneath, if there is one.
    pub fn into_source(self) -> Option<tokio_postgres::Error> {
        self.0.source
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = self.location() {
            write!(f, "{location}: ")?;
        }
        f.write_str(self.message())?;
        if let Some(code) = self.sqlstate() {
            write!(f, " (SQLSTATE {code})")?;
        }
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
        let source = self.0.source.as_ref()?;
        Some(source)
    }
}

fn described(doing: &str, error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), StdError::source(error)) {
        (Some(db), _) => match db.detail() {
            Some(detail) => format!("{doing}: {} ({detail})", db.message()),
            None => format!("{doing}: {}", db.message()),
        },
        (None, Some(cause)) => format!("{doing}: {error}: {cause}"),
        (None, None) => format!("{doing}: {error}"),
    }
}

fn kind_of(error: &tokio_postgres::Error) -> ErrorKind {
    match error.code() {
        Some(code) if is_not_ready(code.code()) => ErrorKind::NotReady,
        None if is_connection_lost(error) => ErrorKind::Unreachable,
        _ => ErrorKind::Refused,
    }
}

/// The server goes or comes, has no session free, or is a standby while the address moves on to the
/// new primary. 08P01 is a peer that speaks another protocol, and 57014 a statement that was
/// cancelled.
fn is_not_ready(sqlstate: &str) -> bool {
    match sqlstate {
        "08P01" | "57014" => false,
        "25006" | "53300" => true,
        code => code.starts_with("08") || code.starts_with("57"),
    }
}

/// Whether the driver says with this error that the connection is gone.
pub fn is_connection_lost(error: &tokio_postgres::Error) -> bool {
    if error.as_db_error().is_some() {
        return false;
    }
    let mut source = StdError::source(error);
    while let Some(inner) = source {
        if inner.is::<std::io::Error>() {
            return true;
        }
        source = inner.source();
    }
    error.is_closed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_location_what_code_and_hint_in_that_order() {
        let mut error = Error::new(ErrorKind::Refused, "cannot connect to shop: no such role")
            .with_location("db.example:5432")
            .with_hint("check the role's name");
        error.0.sqlstate = Some("28000".to_owned());
        assert_eq!(
            error.to_string(),
            "db.example:5432: cannot connect to shop: no such role (SQLSTATE 28000); check the \
             role's name"
        );
        assert!(format!("{error:?}").starts_with("Refused: db.example:5432: "));
    }

    #[test]
    fn a_server_that_comes_goes_or_is_full_may_take_a_session_later() {
        for code in ["57P01", "57P03", "53300", "08006", "25006"] {
            assert!(is_not_ready(code), "{code}");
        }
        for code in ["28P01", "3D000", "42501", "08P01", "57014"] {
            assert!(!is_not_ready(code), "{code}");
        }
    }
}
