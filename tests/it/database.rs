//! A database of its own for each test.

use std::sync::atomic::{AtomicU32, Ordering};

use deadpool_postgres::{Manager, Pool};
use tokio_postgres::{Client, Config, NoTls};

/// A fresh, empty database: a client and a pool on it.
pub(crate) async fn empty_database() -> (Client, Pool) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let url = std::env::var("HIGHWATER_TEST_DATABASE_URL")
        .expect("HIGHWATER_TEST_DATABASE_URL names a server to test on");
    let mut config: Config = url.parse().unwrap();
    let name = format!(
        "hw_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let admin = connect(&config).await;
    admin
        .batch_execute(&format!("drop database if exists {name}"))
        .await
        .unwrap();
    admin
        .batch_execute(&format!("create database {name}"))
        .await
        .unwrap();
    config.dbname(&name);
    let pool = Pool::builder(Manager::new(config.clone(), NoTls))
        .max_size(20)
        .build()
        .unwrap();
    (connect(&config).await, pool)
}

/// A fresh database with highwater's schema.
pub(crate) async fn test_database() -> (Client, Pool) {
    let (mut client, pool) = empty_database().await;
    highwater::pg::migrate::migrate(&mut client).await.unwrap();
    (client, pool)
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
