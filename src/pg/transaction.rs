//! The open transaction that a projection writes its read model in.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::pg::{self, Parameter};

/// Opens a transaction: read committed, also where the role's default or the database's is another
/// level; and the server looks once a second whether its client is still there, so that what a
/// killed process has in flight does not go on for long. Only a server on Linux can do so in every
/// version.
pub(crate) const BEGIN: &str = "begin isolation level read committed; \
                                select set_config('client_connection_check_interval', '1000', true) \
                                where version() like '%linux%'";

/// The transaction of one batch: the checkpoint has been moved in it and the engine will commit
/// it. Unqualified names mean the projection's own schema, then `public`.
///
/// Parameters are given with their types and no statement is prepared under a name, so it works
/// behind a pooler in transaction mode. Do not end the transaction: the engine notices and stops
/// the projection.
#[derive(Clone, Copy)]
pub struct Tx<'a> {
    client: &'a Client,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(client: &'a Client) -> Tx<'a> {
        Tx { client }
    }

    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    /// The server's error, with its SQLSTATE.
    pub async fn query(
        &self,
        sql: &str,
        parameters: &[(&Parameter<'_>, Type)],
    ) -> Result<Vec<Row>> {
        let rows = self.client.query_typed(sql, parameters).await;
        rows.map_err(|e| pg::error("a statement of the projection failed", e))
    }

    /// Runs a statement and returns its row, if there is one.
    ///
    /// # Errors
    /// The server's error, with its SQLSTATE; also if there are several rows.
    pub async fn query_opt(
        &self,
        sql: &str,
        parameters: &[(&Parameter<'_>, Type)],
    ) -> Result<Option<Row>> {
        let row = self.client.query_typed_opt(sql, parameters).await;
        row.map_err(|e| pg::error("a statement of the projection failed", e))
    }

    /// Runs a statement and returns how many rows it changed.
    ///
    /// # Errors
    /// The server's error, with its SQLSTATE.
    pub async fn execute(&self, sql: &str, parameters: &[(&Parameter<'_>, Type)]) -> Result<u64> {
        let changed = self.client.execute_typed(sql, parameters).await;
        changed.map_err(|e| pg::error("a statement of the projection failed", e))
    }

    /// Runs several statements without parameters in one round trip.
    ///
    /// # Errors
    /// The server's error, with its SQLSTATE.
    pub async fn batch_execute(&self, sql: &str) -> Result<()> {
        let done = self.client.batch_execute(sql).await;
        done.map_err(|e| pg::error("a statement of the projection failed", e))
    }

    /// The driver's client, for what is missing here.
    pub fn client(&self) -> &'a Client {
        self.client
    }
}
