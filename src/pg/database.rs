//! One database: how to reach it, and the pool of sessions that everything in it shares.

use crate::error::Result;
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
