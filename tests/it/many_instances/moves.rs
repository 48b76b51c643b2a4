//! Partitions that move to another instance: only those that must, and status shows at once who
//! runs them and how.

use std::time::Duration;

use highwater::internal::engine::Engine;
use highwater::internal::engine::RunnerState;
use highwater::internal::status::{self, PartitionStatus, State};
use highwater::testing::TestDatabase;
use tokio_postgres::Client;

use super::{LIMIT, engine, until_shared};
use crate::exactness::{Running, caught_up, ledger_partitioned, positions};
use crate::support::{append_rows, eventually, one};

/// Long enough for status to be told by nothing that a lease makes happen.
const LEASE: Duration = Duration::from_secs(600);
/// How long a move may take that waits for no lease.
const SOON: Duration = Duration::from_secs(20);

fn patient_engine(database: &TestDatabase, partitions: usize) -> Engine {
    let mut settings = super::settings(true);
    settings.lease = LEASE;
    Engine::new(database.pooled(), settings)
        .source(database.source())
        .projection(ledger_partitioned("ledger", partitions))
}

/// Waits until status shows that every partition is owned and live.
async fn until_live(database: &TestDatabase) {
    let mut seen = Vec::new();
    eventually("every partition is live", SOON, async || {
        let status = status::read(&database.pooled(), &[], &[]).await.unwrap();
        let ledger = status.projection("ledger").cloned();
        let now = ledger.map(|ledger| ledger.partitions).unwrap_or_default();
        if now != seen {
            println!("{now:?}");
            seen.clone_from(&now);
        }
        let is_live =
            |p: &PartitionStatus| p.state == State::Runner(RunnerState::Live) && p.owner.is_some();
        !now.is_empty() && now.iter().all(is_live)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_a_runner_live_as_soon_as_it_is_after_a_join_a_leave_and_a_kill() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=100).await;
    let first = Running::start(patient_engine(&database, 2));
    until_live(&database).await;
    let second = Running::start(patient_engine(&database, 2));
    until_shared(&client, &[1, 1]).await;
    until_live(&database).await;
    first.stop().await;
    until_shared(&client, &[2]).await;
    until_live(&database).await;
    second.abort();
    let lease_ends = "update highwater.instance set seen_at = seen_at - lease";
    client.batch_execute(lease_ends).await.unwrap();
    let third = Running::start(patient_engine(&database, 2));
    until_live(&database).await;
    third.stop().await;
}

/// Waits until all instances have renewed themselves and polled the others once more.
async fn until_renewed(client: &Client, instances: i64) {
    let now: String = one(client, "select clock_timestamp()::text").await;
    let renewed = format!(
        "select count(*) from highwater.instance
          where seen_at > '{now}'::timestamptz and projections <> '{{}}'"
    );
    eventually("all instances renew themselves", LIMIT, async || {
        positions(client, &renewed).await == [instances]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_keeps_its_partition_when_others_come() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=10).await;
    let ledger = [ledger_partitioned("ledger", 1)];
    let first = Running::start(engine(&database, true, &ledger));
    until_shared(&client, &[1]).await;
    let mut others = Vec::new();
    for number in 0..5 {
        others.push(Running::start(engine(&database, true, &ledger)));
        // The first of the two may have begun before the newcomer was there.
        for _ in 0..2 {
            until_renewed(&client, number + 2).await;
        }
    }
    append_rows(&client, "t", 1..=10).await;
    caught_up(&client).await;
    let epoch: i64 = one(&client, "select epoch from highwater.checkpoint").await;
    assert_eq!(epoch, 1, "nobody else has claimed it");
    for running in others.into_iter().chain([first]) {
        running.stop().await;
    }
}
