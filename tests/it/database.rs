//! A database of its own for each test, for those that append and migrate.

use highwater::internal::pg::connect::{self, Connector};
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

#[tokio::test]
async fn every_session_starts_with_what_the_statements_of_highwater_rely_on() {
    let (_, database) = test_database().await;
    let client = database.client().await.unwrap();
    for (name, value) in [
        ("application_name", "highwater"),
        ("row_security", "off"),
        ("default_transaction_isolation", "read committed"),
        ("TimeZone", "UTC"),
        ("client_min_messages", "warning"),
    ] {
        let row = client
            .query_one(&format!("show {name}"), &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, &str>(0), value, "{name}");
    }
    connect::check_server(&client).await.unwrap();
}
