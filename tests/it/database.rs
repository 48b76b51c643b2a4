//! A database of its own for each test, for those that append and migrate.

use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::testing::TestDatabase;
use tokio_postgres::Client;

/// So that sixteen writers meet.
const SESSIONS: usize = 20;

/// A fresh, empty database: a client and a pool on it.
pub(crate) async fn empty_database() -> (Client, Database) {
    of(TestDatabase::empty().await).await
}

/// A fresh database with highwater's schema.
pub(crate) async fn test_database() -> (Client, Database) {
    of(TestDatabase::new().await).await
}

async fn of(database: TestDatabase) -> (Client, Database) {
    let connector = Connector::parse(database.url()).unwrap();
    let pool = Database::new(connector, SESSIONS).unwrap();
    (database.client().await, pool)
}
