//! What every use of PostgreSQL shares: errors, quoting, and the connection.
//!
//! Only `sqlstate` turns a SQLSTATE into a kind of error.

pub(crate) mod action;
pub(crate) mod block;
pub mod checkpoint;
pub mod connect;
pub mod database;
pub(crate) mod dead_letter;
pub(crate) mod event;
pub(crate) mod instance;
pub mod migrate;
pub(crate) mod projection;
pub(crate) mod sql;
mod sqlstate;
pub mod transaction;
pub mod value;
pub(crate) mod wake;

pub use highwater_connect::redact;
pub use sql::quote_identifier;

use highwater_connect::is_connection_lost;
use tokio_postgres::Row;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::{FromSql, ToSql};

use crate::error::{Error, ErrorKind, Result};

/// A value that goes into a statement. Each is given with its type, so that no statement has to be
/// prepared under a name: there may be a pooler in transaction mode in between.
pub type Parameter<'a> = dyn ToSql + Sync + 'a;

/// A column of a row by its place.
pub(crate) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index)
        .map_err(|e| error(&format!("cannot read column {index} of an answer"), e))
}

/// A column of a row by its name.
pub(crate) fn column_named<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T> {
    row.try_get(name)
        .map_err(|e| error(&format!("cannot read column {name} of an answer"), e))
}

/// An error of the driver as ours: the server's own message, its SQLSTATE, its detail and hint.
///
/// `doing` is the clause before the colon, for example `cannot read events`.
pub(crate) fn error(doing: &str, error: tokio_postgres::Error) -> Error {
    let kind = kind_of(&error);
    Error::from(highwater_connect::Error::from_driver(doing, error)).with_kind(kind)
}

/// An error of one of highwater's own statements: for a missing right it lists the rights that are
/// needed.
pub(crate) fn own_error(doing: &str, error: tokio_postgres::Error) -> Error {
    let ours = self::error(doing, error);
    match ours.sqlstate() {
        Some("42501") => ours.with_hint(RIGHTS),
        _ => ours,
    }
}

const RIGHTS: &str = "grant the role what it needs on schema highwater: select on all tables and \
                      all sequences to read; insert on event to append; insert, update and delete \
                      on projection, generation, checkpoint, instance, block, block_change, \
                      dead_letter, discarded and dropped, and insert on action, to run \
                      projections and to operate them";

/// An error of one of highwater's own statements on its own schema: there the server refuses the
/// event, or something about the database.
pub(crate) fn own_statement_error(doing: &str, error: tokio_postgres::Error) -> Error {
    let ours = own_error(doing, error);
    // Data exceptions, constraints, and limits such as the depth of a JSON value.
    match (ours.kind(), ours.sqlstate().and_then(|code| code.get(..2))) {
        (ErrorKind::Apply, Some("22" | "23" | "54")) => ours.with_kind(ErrorKind::BadEvent),
        (ErrorKind::Apply, _) => ours.with_kind(ErrorKind::Database),
        (ErrorKind::Config, _) | (ErrorKind::Database, Some("3F")) => ours
            .with_kind(ErrorKind::Database)
            .with_hint("run highwater init"),
        _ => ours,
    }
}

/// The kind of an error of the driver.
pub(crate) fn kind_of(error: &tokio_postgres::Error) -> ErrorKind {
    match error.as_db_error() {
        Some(db) => sqlstate::kind_of(db.code().code()),
        None if is_connection_lost(error) => ErrorKind::ConnectionLost,
        None => ErrorKind::Apply,
    }
}

/// Where the server saw the error in the text that was sent: a character offset from 0.
pub(crate) fn offset_of(error: &tokio_postgres::Error) -> Option<usize> {
    match error.as_db_error()?.position()? {
        ErrorPosition::Original(position) => (*position as usize).checked_sub(1),
        ErrorPosition::Internal { .. } => None,
    }
}
