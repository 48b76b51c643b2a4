//! A database of its own for each test, on one server for all of them.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{OnceCell, oneshot};
use tokio_postgres::{Client, NoTls};

use crate::cluster::Cluster;
use crate::error::Result;
use crate::pg::connect;
use crate::pg::database::Database;
use crate::pg::sql::{Sql, sql};
use crate::source::Source;
use crate::source::table::{EventTable, TableSource};

/// Sessions of a test's pool.
const SESSIONS: usize = 8;

/// The variable that names a server to use instead of a temporary one.
const VARIABLE: &str = "HIGHWATER_TEST_DATABASE_URL";

/// The settings of a test's server. It is thrown away with all its data, so waiting for the disk
/// gains nothing.
const SETTINGS: [(&str, &str); 6] = [
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "logical"),
    ("max_connections", "300"),
    ("max_prepared_transactions", "50"),
];

/// The server of this process: it comes with the first test and ends with the process.
static SERVER: OnceCell<Server> = OnceCell::const_new();

/// A fresh database for one test.
///
/// All tests of a process share one temporary server, started when the first asks for it; it and
/// its data are gone when the process ends. Set `HIGHWATER_TEST_DATABASE_URL` to use another
/// server, without TLS, where the user must be allowed to create databases; they stay there.
///
/// Its functions panic with the reason if there is no server or it refuses: a test can do nothing
/// else.
#[derive(Debug)]
pub struct TestDatabase {
    server: &'static Server,
    name: String,
    url: String,
}

#[derive(Debug)]
enum Server {
    Own(Cluster),
    Named(String),
}

impl TestDatabase {
    /// A database with highwater's schema.
    ///
    /// # Panics
    ///
    /// If there is no PostgreSQL or it cannot make the database; the message says why.
    pub async fn new() -> TestDatabase {
        let server = server().await;
        let template = template(server).await;
        create(server, Some(template)).await
    }

    /// A database with nothing in it.
    ///
    /// # Panics
    ///
    /// Like [`TestDatabase::new`].
    pub async fn empty() -> TestDatabase {
        create(server().await, None).await
    }

    /// The database's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of another database of the same server.
    pub fn cluster_url(&self, database: &str) -> String {
        self.server.url(database)
    }

    /// A new connection.
    ///
    /// # Panics
    ///
    /// If the server refuses it; the message says why.
    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }
}

/// For highwater's own tests.
#[cfg(feature = "internal")]
impl TestDatabase {
    /// A pool on the database.
    pub fn pooled(&self) -> Database {
        let database = connect::parse(&self.url).and_then(|c| Database::new(c, SESSIONS));
        match database {
            Ok(database) => database,
            Err(error) => panic!("no pool for this test: {error}"),
        }
    }

    /// highwater's own event table in this database, as the source `default`, with LISTEN.
    pub fn source(&self) -> Arc<dyn Source> {
        let database = self.pooled();
        let direct = Some(database.connector().clone());
        Arc::new(TableSource::new(
            "default",
            database,
            direct,
            EventTable::own(),
        ))
    }
}

impl Server {
    fn url(&self, database: &str) -> String {
        match self {
            Server::Own(cluster) => cluster.url(database),
            Server::Named(url) => with_database(url, database),
        }
    }

    /// A database that is there from the start.
    fn maintenance_url(&self) -> String {
        match self {
            Server::Own(cluster) => cluster.url("postgres"),
            Server::Named(url) => url.clone(),
        }
    }
}

/// The database that [`TestDatabase::new`] copies, migrated once for this process.
static TEMPLATE: OnceCell<String> = OnceCell::const_new();

async fn template(server: &'static Server) -> &'static str {
    TEMPLATE
        .get_or_init(|| async {
            let database = create(server, None).await;
            let mut client = database.client().await;
            if let Err(error) = crate::pg::migrate::migrate(&mut client).await {
                panic!("no schema for this test: {error}");
            }
            database.name
        })
        .await
}

async fn server() -> &'static Server {
    match SERVER.get_or_try_init(start).await {
        Ok(server) => server,
        Err(error) => panic!("no database for this test: {error}"),
    }
}

async fn start() -> Result<Server> {
    match std::env::var(VARIABLE) {
        Ok(url) if !url.is_empty() => Ok(Server::Named(url)),
        _ => start_own().await.map(Server::Own),
    }
}

/// Each test has a runtime of its own, which ends with it; the server is started from none of them.
async fn start_own() -> Result<Cluster> {
    let (report, started) = oneshot::channel();
    thread::spawn(move || {
        let _ = report.send(start_on_this_thread());
    });
    started.await.unwrap_or_else(|_| {
        Err(crate::Error::new(
            crate::ErrorKind::Internal,
            "the thread that starts the server has ended",
        ))
    })
}

fn start_on_this_thread() -> Result<Cluster> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            crate::Error::new(
                crate::ErrorKind::Io,
                format!("cannot start a runtime: {error}"),
            )
        })?
        .block_on(Cluster::temporary_with(&SETTINGS))
        .map_err(Into::into)
}

async fn create(server: &'static Server, template: Option<&str>) -> TestDatabase {
    let name = unique_name();
    let sql = sql!(
        "create database {name} template {template}",
        name = Sql::identifier(&name),
        template = Sql::identifier(template.unwrap_or("template1")),
    );
    let client = connect(&server.maintenance_url()).await;
    if let Err(error) = client.batch_execute(&sql).await {
        panic!(
            "{}",
            crate::pg::error("cannot create a database for this test", error)
        );
    }
    TestDatabase {
        server,
        url: server.url(&name),
        name,
    }
}

/// Unique on a server that several test processes share, now and later.
fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("test_{started:x}_{}_{count}", process::id())
}

async fn connect(url: &str) -> Client {
    match tokio_postgres::connect(url, NoTls).await {
        Ok((client, connection)) => {
            tokio::spawn(connection);
            client
        }
        Err(error) => panic!(
            "{}",
            crate::pg::error("cannot connect to the database of this test", error)
        ),
    }
}

/// The same server's URL, or `key=value` text, with another database.
fn with_database(url: &str, database: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // The last of two settings of the same name counts.
        return format!("{url} dbname={database}");
    };
    let (before, query) = match rest.split_once('?') {
        Some((before, query)) => (before, format!("?{query}")),
        None => (rest, String::new()),
    };
    let authority = before
        .split_once('/')
        .map_or(before, |(authority, _)| authority);
    format!("{scheme}://{authority}/{database}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_server_keeps_all_of_its_url_but_the_database() {
        for (url, expected) in [
            (
                "postgres://u:p@h:5433/old?sslmode=disable",
                "postgres://u:p@h:5433/t?sslmode=disable",
            ),
            ("postgres://h", "postgres://h/t"),
            (
                "postgresql://u@/?host=%2Ftmp",
                "postgresql://u@/t?host=%2Ftmp",
            ),
            (
                "host=/tmp user=u dbname=old",
                "host=/tmp user=u dbname=old dbname=t",
            ),
        ] {
            assert_eq!(with_database(url, "t"), expected);
            let config: tokio_postgres::Config = with_database(url, "t").parse().unwrap();
            assert_eq!(config.get_dbname(), Some("t"));
        }
    }
}
