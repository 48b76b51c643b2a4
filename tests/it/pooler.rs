//! An engine behind a pooler in transaction mode: no state of a session lasts from one transaction to
//! the next.

use std::sync::Arc;
use std::time::Duration;

use highwater::Outcome;
use highwater::internal::engine::Engine;
use highwater::internal::engine::Settings;
use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::internal::source::table::{EventTable, TableSource};
use highwater::testing::TestDatabase;
use tokio_postgres::{Client, NoTls};

use crate::exactness::{
    Running, Storm, assert_exact, assert_exact_by_stream, caught_up, ledger_in_rust, ledger_in_sql,
    ledger_partitioned, positions,
};
use crate::support::eventually;
use crate::support::pooler::Pooler;

const LIMIT: Duration = crate::support::PATIENCE;

async fn pooled(pooler: &Pooler) -> Client {
    let (client, connection) = tokio_postgres::connect(&pooler.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Everything goes through the pooler; wakes come past it or not at all.
fn engine(pooler: &Pooler, direct: Option<&TestDatabase>) -> Engine {
    let connector = Connector::parse(&pooler.url()).unwrap();
    let database = || Database::new(connector.clone(), 4).unwrap();
    let wakes = direct.map(|database| Connector::parse(database.url()).unwrap());
    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(1);
    settings.listen = direct.is_some();
    let source = TableSource::new("default", database(), wakes, EventTable::own());
    Engine::new(database(), settings)
        .source(Arc::new(source))
        .projection(ledger_in_sql("in_sql"))
        .projection(ledger_in_rust("in_rust"))
        .projection(ledger_partitioned("in_parts", 3))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pooler_of_these_tests_gives_each_transaction_another_session() {
    let database = TestDatabase::new().await;
    let Some(pooler) = Pooler::start(database.url()).await else {
        return;
    };
    let (first, second) = (pooled(&pooler).await, pooled(&pooler).await);
    // One is kept busy, so that the pool has two to take turns with.
    second.batch_execute("begin").await.unwrap();
    first.batch_execute("select 1").await.unwrap();
    second.batch_execute("commit").await.unwrap();
    first
        .batch_execute("set application_name = 'lasting'; set work_mem = '1MB'")
        .await
        .unwrap();
    let mut sessions = Vec::new();
    eventually("another session", LIMIT, async || {
        let row = first
            .query_typed_one("select pg_backend_pid()", &[])
            .await
            .unwrap();
        sessions.push(row.get::<_, i32>(0));
        sessions.iter().any(|pid| *pid != sessions[0])
    })
    .await;
    let prepared = first.prepare("select 1").await;
    let used = match prepared {
        Ok(statement) => first.query(&statement, &[]).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(used.is_err(), "it keeps prepared statements");
}

async fn storm_behind_a_pooler(listen: bool) {
    let database = TestDatabase::new().await;
    let Some(pooler) = Pooler::start(database.url()).await else {
        return;
    };
    let client = database.client().await;
    let direct = listen.then_some(&database);
    let storm = Storm::start(database.url(), 10).await;
    let first = Running::start(engine(&pooler, direct));
    let second = Running::start(engine(&pooler, direct));
    let owners = "select count(distinct owner) from highwater.checkpoint";
    eventually("both have some of it", LIMIT, async || {
        positions(&client, owners).await == [2]
    })
    .await;
    let head = "select coalesce(max(position), 0) from highwater.event";
    eventually("events", LIMIT, async || {
        positions(&client, head).await[0] > 500
    })
    .await;
    // A hand-over, too.
    let report = second.stop().await;
    assert!(
        report
            .outcomes
            .iter()
            .all(|(_, o)| matches!(o, Outcome::Drained)),
        "{report:?}"
    );
    let committed = storm.stop().await;
    caught_up(&client).await;
    let report = first.stop().await;
    assert!(
        report
            .outcomes
            .iter()
            .all(|(_, o)| matches!(o, Outcome::Drained)),
        "{report:?}"
    );
    assert_exact(&client, "in_sql", &committed).await;
    assert_exact(&client, "in_rust", &committed).await;
    assert_exact_by_stream(&client, "in_parts", &committed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_behind_a_pooler_is_applied_once_and_in_order() {
    storm_behind_a_pooler(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_behind_a_pooler_is_applied_once_and_in_order_with_wakes_past_it() {
    storm_behind_a_pooler(true).await;
}
