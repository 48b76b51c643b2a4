//! A database of its own for each test.

use std::sync::atomic::{AtomicU32, Ordering};

use highwater::pg::connect::Connector;
use highwater::pg::database::Database;
use tokio_postgres::{Client, Config, NoTls};

/// A fresh, empty database: a client and a pool on it.
pub(crate) async fn empty_database() -> (Client, Database) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let url = std::env::var("HIGHWATER_TEST_DATABASE_URL")
        .expect("HIGHWATER_TEST_DATABASE_URL names a server to test on");
    let mut config: Config = url.parse().unwrap();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("hw_{}_{number}", std::process::id());
    let admin = connect(&config).await;
    for statement in ["drop database if exists", "create database"] {
        admin
            .batch_execute(&format!("{statement} {name}"))
            .await
            .unwrap();
    }
    config.dbname(&name);
    let connector = Connector::parse(&url).unwrap().with_database(&name);
    (
        connect(&config).await,
        Database::new(connector, 20).unwrap(),
    )
}

/// A fresh database with highwater's schema.
pub(crate) async fn test_database() -> (Client, Database) {
    let (mut client, database) = empty_database().await;
    highwater::pg::migrate::migrate(&mut client).await.unwrap();
    (client, database)
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
