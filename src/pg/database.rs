//! One database: how to reach it, and the pool of sessions that everything in it shares.

use tokio_postgres::Client;

use crate::error::Result;
use crate::pg;
use crate::pg::connect::{Connector, Pool, PooledClient};

/// A database and its pool. Clones share the pool.
#[derive(Clone)]
pub struct Database {
    connector: Connector,
    pool: Pool,
}

impl Database {
    /// The database that `connector` leads to, with at most `sessions` pooled sessions. Nothing
    /// is opened yet.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Config`] for 0 sessions.
    pub fn new(connector: Connector, sessions: usize) -> Result<Database> {
        let pool = connector.pool(sessions)?;
        Ok(Database { connector, pool })
    }

    /// A session from the pool.
    ///
    /// # Errors
    /// If none could be opened, or none came free in time.
    pub async fn client(&self) -> Result<PooledClient> {
        self.connector.client_of(&self.pool).await
    }

    /// How to reach it.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The pool itself.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

/// The name of a server, as long as it runs: what crashes together has one name.
pub(crate) async fn server(client: &Client) -> Result<String> {
    let sql = include_str!("../../sql/queries/source/server.sql");
    let row = client.query_typed_one(sql, &[]).await;
    let row = row.map_err(|e| pg::error("cannot ask which server this is", e))?;
    pg::column(&row, 0)
}
