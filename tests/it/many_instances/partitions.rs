//! The number of partitions changes while they run.

use highwater::testing::TestDatabase;
use highwater::{Outcome, Until};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{LIMIT, engine, until_shared};
use crate::exactness::{
    Running, Storm, assert_exact_by_stream, caught_up, ledger_partitioned, positions,
};
use crate::support::{append_rows, eventually};

async fn until_there_are(client: &Client, partitions: i64) {
    let sql = format!(
        "select count(*) from highwater.checkpoint
          where partitions = {partitions} and drain_at is null"
    );
    eventually("the number of partitions has changed", LIMIT, async || {
        positions(client, &sql).await[0] == partitions
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_partitions_changes_in_a_storm_and_every_key_keeps_its_order() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let storm = Storm::start(database.url(), 5).await;
    let mut running = Running::start(engine(&database, true, &[ledger_partitioned("ledger", 1)]));
    until_there_are(&client, 1).await;
    for partitions in [4, 2, 7, 1, 3] {
        // As a deployment does: the new one comes before the old one goes.
        let ledger = [ledger_partitioned("ledger", partitions)];
        let next = Running::start(engine(&database, true, &ledger));
        until_there_are(&client, i64::try_from(partitions).unwrap()).await;
        running.stop().await;
        running = next;
    }
    let committed = storm.stop().await;
    caught_up(&client).await;
    running.stop().await;
    assert_exact_by_stream(&client, "ledger", &committed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_passes_the_position_at_which_the_partitions_end() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=100).await;
    let run = |partitions| {
        let ledger = [ledger_partitioned("ledger", partitions)];
        let engine = engine(&database, false, &ledger);
        async move {
            engine
                .run(Until::CaughtUp, CancellationToken::new())
                .await
                .unwrap()
        }
    };
    run(2).await;
    append_rows(&client, "s", 101..=200).await;
    // One of the two is ahead when the change is asked for.
    client
        .batch_execute(
            "update highwater.checkpoint c set position = 150, event_position = e.position, event_id = e.id
               from highwater.event e where e.position = 150 and c.partition = 1;
             update highwater.projection set partitions = 3;
             select highwater.repartition('ledger');",
        )
        .await
        .unwrap();
    let ends = "select distinct drain_at from highwater.checkpoint";
    assert_eq!(positions(&client, ends).await, [150]);
    let further = "select highwater.begin_batch(row('ledger', 1, 0, epoch, parking)::highwater.fence, position, 151, null, null)
                     from highwater.checkpoint where partition = 0";
    let refused = client.batch_execute(further).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "HW101");
    let report = run(3).await;
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    until_there_are(&client, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_the_number_from_before_runs_the_partitions_that_there_are() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=100).await;
    let old = Running::start(engine(&database, true, &[ledger_partitioned("ledger", 2)]));
    until_shared(&client, &[2]).await;
    let new = Running::start(engine(&database, true, &[ledger_partitioned("ledger", 4)]));
    until_shared(&client, &[2, 2]).await;
    new.stop().await;
    until_shared(&client, &[4]).await;
    append_rows(&client, "t", 1..=10).await;
    caught_up(&client).await;
    old.stop().await;
}
