//! The open transaction that a projection writes its read model in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::pg;
use crate::pg::checkpoint::Key;
use crate::pg::sql::{Sql, sql};
use crate::pg::value::{SqlValue, typed};

/// Opens a transaction: read committed, whatever the default of the role or database. The server
/// checks once a second whether its client is still there, so that the batch of a killed process soon
/// ends; only servers on Linux can do this in every version.
pub(crate) const BEGIN: &str = "begin isolation level read committed; \
                                select set_config('client_connection_check_interval', '1000', true) \
                                where version() like '%linux%'";

/// The end of a transaction.
pub(crate) const COMMIT: Sql = Sql::trusted("commit");

/// How the transaction of a batch begins: read committed, also where the role's default
/// or the database's is another level, and `highwater.open_batch`, which does what [`BEGIN`] does, and
///
/// - row security that would hide rows is an error;
/// - `pg_stat_activity` shows whose batch it is ([`batch_name`]), so that blocking sessions can be
///   identified;
/// - the server ends a statement that takes longer than a batch may, and a transaction whose client
///   says nothing for as long as a lease: a process that is stopped or cut off holds the checkpoint
///   no longer than that. Shorter limits of the role or the database stay;
/// - its commit waits for the disk and for replicas, or does not ([`Commit`]).
#[derive(Clone, Debug)]
pub(crate) struct Prologue(Sql);

impl Prologue {
    /// How many statements it is.
    pub(crate) const STATEMENTS: usize = 2;

    pub(crate) fn new(
        key: &Key,
        statement_max: Duration,
        silence_max: Duration,
        commit: Commit,
    ) -> Prologue {
        let millis =
            |limit: Duration| Sql::number(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        Prologue(sql!(
            "begin isolation level read committed;\n\
             select highwater.open_batch({name}, {statement_max}, {silence_max}, {await_disk})",
            name = Sql::literal(&batch_name(key)),
            statement_max = millis(statement_max),
            silence_max = millis(silence_max),
            await_disk = Sql::boolean(commit == Commit::Durable),
        ))
    }

    pub(crate) fn sql(&self) -> Sql {
        self.0.clone()
    }
}

/// When a batch is durable.
///
/// PostgreSQL's own logical replication applies without waiting, for the same reason: a crash that
/// undoes read models undoes their checkpoints with them, and the events are applied again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// When disk and replicas have it, as the server is set to (`synchronous_commit`).
    Durable,
    /// When it is visible. It is on disk three `wal_writer_delay` later at most.
    Visible,
}

/// The longest `application_name` that the server keeps.
const APPLICATION_NAME_MAX: usize = 63;

/// Whose batch a session applies, as its `application_name` says: `highwater:NAME:GENERATION:PARTITION`.
/// Of a name that is too long for it the end is replaced by a hash of the whole.
pub(crate) fn batch_name(key: &Key) -> String {
    let name = key.projection.as_str();
    let rest = format!(":{}:{}", key.generation, key.partition);
    let room = APPLICATION_NAME_MAX - "highwater:".len() - rest.len();
    if name.len() <= room {
        return format!("highwater:{name}{rest}");
    }
    let hash = Sha256::digest(name.as_bytes());
    let hash = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let kept: String = name.chars().take(room - "~".len() - 8).collect();
    format!("highwater:{kept}~{hash:08x}{rest}")
}

/// A statement whose only parameter, `$1`, is a text.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TextStatement {
    /// The statement.
    pub sql: Arc<str>,
    /// What `$1` is.
    pub text: String,
}

impl TextStatement {
    /// A statement, and what its `$1` is.
    pub fn new(sql: impl Into<Arc<str>>, text: impl Into<String>) -> TextStatement {
        TextStatement {
            sql: sql.into(),
            text: text.into(),
        }
    }
}

/// The transaction of one batch: the checkpoint has been moved in it and the engine will commit
/// it. Unqualified names mean the projection's own schema, then `public`.
///
/// No statement is prepared under a name, so it works behind a pooler in transaction mode: values are sent
/// with the types that they stand for ([`SqlValue`]). Do not end the transaction: the engine notices and stops
/// the projection.
#[derive(Clone, Copy)]
pub struct Tx<'a> {
    client: &'a Client,
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

impl<'a> Tx<'a> {
    pub(crate) fn new(client: &'a Client) -> Tx<'a> {
        Tx { client }
    }

    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    /// The server's error, with its SQLSTATE.
    pub async fn query(&self, sql: &str, values: &[&dyn SqlValue]) -> Result<Vec<Row>> {
        let rows = self.client.query_typed(sql, &typed(values)).await;
        rows.map_err(|e| pg::error("a statement of the projection failed", e))
    }

    /// Runs a statement and returns its row, if there is one.
    ///
    /// # Errors
    /// The server's error, with its SQLSTATE; also if there are several rows.
    pub async fn query_opt(&self, sql: &str, values: &[&dyn SqlValue]) -> Result<Option<Row>> {
        let row = self.client.query_typed_opt(sql, &typed(values)).await;
        row.map_err(|e| pg::error("a statement of the projection failed", e))
    }

    /// Runs a statement and returns how many rows it changed.
    ///
    /// # Errors
    /// The server's error, with its SQLSTATE.
    pub async fn execute(&self, sql: &str, values: &[&dyn SqlValue]) -> Result<u64> {
        let changed = self.client.execute_typed(sql, &typed(values)).await;
        changed.map_err(|e| pg::error("a statement of the projection failed", e))
    }

    /// Runs a statement whose only parameter is a text, and returns how many rows it changed.
    ///
    /// # Errors
    /// The server's error, with its SQLSTATE.
    pub async fn execute_text(&self, statement: &TextStatement) -> Result<u64> {
        self.execute(&statement.sql, &[&statement.text]).await
    }

    /// Runs a statement whose only parameter is a text, and returns its rows.
    ///
    /// # Errors
    /// The server's error, with its SQLSTATE.
    pub async fn query_text(&self, statement: &TextStatement) -> Result<Vec<Row>> {
        self.query(&statement.sql, &[&statement.text]).await
    }

    /// Runs several statements without parameters in one round trip.
    ///
    /// # Errors
    /// The server's error, with its SQLSTATE.
    pub async fn batch_execute(&self, sql: &str) -> Result<()> {
        let done = self.client.batch_execute(sql).await;
        done.map_err(|e| pg::error("a statement of the projection failed", e))
    }

    /// The driver's client, for everything else.
    pub fn client(&self) -> &'a Client {
        self.client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, generation: i32, partition: i32) -> Key {
        Key {
            projection: name.parse().unwrap(),
            generation,
            partition,
        }
    }

    #[test]
    fn every_batch_has_a_name_of_its_own_that_the_server_keeps_whole() {
        assert_eq!(batch_name(&key("files", 2, 7)), "highwater:files:2:7");
        let long = format!("a{}", "b".repeat(47));
        let other = format!("a{}c", "b".repeat(46));
        assert_eq!(
            batch_name(&key(&long, 1, 0)),
            format!("highwater:{long}:1:0")
        );
        let keys = [
            key(&long, 12, 1),
            key(&long, 12, 10),
            key(&other, 12, 1),
            key(&long, i32::MAX, i32::MAX),
        ];
        let names = keys.each_ref().map(batch_name);
        for (at, name) in names.iter().enumerate() {
            assert!(name.len() <= APPLICATION_NAME_MAX, "{name}");
            assert!(!names[..at].contains(name), "{name}");
        }
    }
}
