//! A database that lives as long as a run of tests.

use tokio_postgres::Client;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::pg::connect::Connector;
use crate::pg::database::Database;
use crate::pg::sql::{Sql, sql};
use crate::pg::{self, migrate, quote_identifier};

/// Sessions of the scratch database: the runner, the heartbeat, and one to spare.
const SESSIONS: usize = 4;

pub(super) struct Scratch {
    server: Connector,
    name: String,
    pub(super) database: Database,
    dropped: bool,
}

impl Scratch {
    /// Creates `highwater_test_<random>` with highwater's schema.
    pub(super) async fn create(server: &Connector) -> Result<Scratch> {
        let name = format!("highwater_test_{}", Uuid::new_v4().simple());
        let admin = server.connect().await?;
        let sql = sql!(
            "create database {name} template template0",
            name = Sql::identifier(&name)
        );
        let created = admin.batch_execute(&sql).await;
        created.map_err(|error| cannot_create(error, server))?;
        let connector = server.with_database(&name);
        let scratch = Scratch {
            database: Database::new(connector, SESSIONS)?,
            server: server.clone(),
            name,
            dropped: false,
        };
        match scratch.prepare(&admin).await {
            Ok(()) => Ok(scratch),
            Err(error) => {
                // A fault comes first; a database that cannot be dropped is reported in the log.
                if let Err(left) = scratch.drop().await {
                    tracing::warn!(error = %left, "a scratch database was left behind");
                }
                Err(error)
            }
        }
    }

    async fn prepare(&self, admin: &Client) -> Result<()> {
        // It is thrown away: waiting for the disk gains nothing.
        let sql = sql!(
            "alter database {name} set synchronous_commit = off",
            name = Sql::identifier(&self.name)
        );
        let set = admin.batch_execute(&sql).await;
        set.map_err(|e| pg::error("cannot set up the scratch database", e))?;
        let mut client = self.database.connector().connect().await?;
        migrate::migrate(&mut client).await.map(drop)
    }

    /// Drops the database, with all its connections.
    pub(super) async fn drop(mut self) -> Result<()> {
        self.database.pool().close();
        self.dropped = true;
        drop_database(&self.server, &self.name).await
    }
}

async fn drop_database(server: &Connector, name: &str) -> Result<()> {
    let admin = server.connect().await?;
    let sql = sql!(
        "drop database if exists {name} with (force)",
        name = Sql::identifier(name)
    );
    let dropped = admin.batch_execute(&sql).await;
    dropped.map_err(|e| {
        pg::error(&format!("cannot drop the scratch database {name}"), e)
            .with_kind(ErrorKind::Database)
            .with_hint("drop it by hand")
    })
}

impl Drop for Scratch {
    /// For an abandoned run: the task that drops the future need not wait for the database.
    fn drop(&mut self) {
        if self.dropped {
            return;
        }
        let (server, name) = (self.server.clone(), std::mem::take(&mut self.name));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = drop_database(&server, &name).await {
                    tracing::warn!(error = %error, "a scratch database was left behind");
                }
            });
        }
    }
}

fn cannot_create(error: tokio_postgres::Error, server: &Connector) -> Error {
    let error = pg::error("cannot create a scratch database for the tests", error);
    let error = error.with_location(server.describe());
    let error = match error.kind() {
        ErrorKind::Apply => error.with_kind(ErrorKind::Database),
        _ => error,
    };
    if error.sqlstate() != Some("42501") {
        return error;
    }
    let user = quote_identifier(&server.user());
    error.with_hint(format!(
        "alter role {user} createdb; or name another server, where the role may"
    ))
}
