//! Those who lock several rows, and batches that park, in each other's way: everybody comes through.

use std::time::Duration;

use highwater::internal::dead_letters::{self, Selection};
use highwater::internal::engine::operate::{accept, drop_projection};
use highwater::testing::TestDatabase;
use highwater::{ProjectionName, Result};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::support::{COUNTS, append_rows, eventually, one, run_to_head, sql_projection};

const LIMIT: Duration = crate::support::PATIENCE;
const REPARTITION: &str = "select highwater.repartition('counts')";
/// As a batch does: the row of its checkpoint, in a transaction that stays open.
const BATCH: &str = "begin; update highwater.checkpoint set updated_at = clock_timestamp()
                      where partition = 1 and generation = 1";
/// What a batch that parks sends next.
const PARK: &str = "
    insert into highwater.dead_letter (projection, generation, position, key, id, stream,
                                       version, type, data, metadata, recorded_at)
    select c.projection, c.generation, e.position, 's', e.id, e.stream, e.version,
           e.type, e.data, e.metadata, e.recorded_at
      from highwater.event e, highwater.checkpoint c
     where e.position = 1 and (c.partition, c.generation) in ((1, 1), (0, 2))
     order by c.generation desc limit 1;
    commit";

fn name() -> ProjectionName {
    "counts".parse().unwrap()
}

fn text(partitions: usize) -> String {
    format!("/* highwater\npartitions = {partitions}\n*/\n{COUNTS}")
}

/// A read model of two partitions.
async fn built() -> (TestDatabase, Client) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=5).await;
    let projection = vec![sql_projection("counts", &text(2))];
    let run = run_to_head(&database, database.source(), projection);
    run.await.unwrap();
    (database, client)
}

async fn are_asked_for(client: &Client, partitions: i32) {
    let sql = format!("update highwater.projection set partitions = {partitions}");
    client.batch_execute(&sql).await.unwrap();
}

/// Until so many sessions wait for a lock.
async fn waiting(client: &Client, sessions: i64) {
    let sql = "select count(*) from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'";
    eventually("sessions wait for a lock", LIMIT, async || {
        one::<i64>(client, sql).await == sessions
    })
    .await;
}

fn repartitioned(client: Client) -> JoinHandle<bool> {
    tokio::spawn(async move { one(&client, REPARTITION).await })
}

/// Accepts a definition that has changed.
fn accepted(database: &TestDatabase) -> JoinHandle<Result<bool>> {
    let (target, source) = (database.pooled(), database.source());
    let changed = format!("{}\n-- x\nselect count(*) from batch;\n", text(2));
    let changed = sql_projection("counts", &changed);
    tokio::spawn(async move { accept(&target, &*changed, &*source).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accept_and_a_change_of_partitions_that_wait_for_one_batch_both_come_through() {
    let (database, client) = built().await;
    let batch = database.client().await;
    are_asked_for(&client, 3).await;
    batch.batch_execute(BATCH).await.unwrap();
    let accepting = accepted(&database);
    waiting(&client, 1).await;
    let changing = repartitioned(database.client().await);
    waiting(&client, 2).await;
    batch.batch_execute("commit").await.unwrap();
    assert!(accepting.await.unwrap().unwrap());
    changing.await.unwrap();
    eventually("the partitions change", LIMIT, async || {
        let _: bool = one(&client, REPARTITION).await;
        one::<i64>(&client, "select count(*) from highwater.checkpoint").await == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_parks_while_a_change_of_partitions_waits_for_it() {
    let (database, client) = built().await;
    let batch = database.client().await;
    are_asked_for(&client, 3).await;
    batch.batch_execute(BATCH).await.unwrap();
    let changing = repartitioned(database.client().await);
    waiting(&client, 1).await;
    batch.batch_execute(PARK).await.unwrap();
    changing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_parks_while_an_accept_waits_for_it() {
    let (database, client) = built().await;
    let batch = database.client().await;
    batch.batch_execute(BATCH).await.unwrap();
    let accepting = accepted(&database);
    waiting(&client, 1).await;
    batch.batch_execute(PARK).await.unwrap();
    assert!(accepting.await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_rebuild_parks_while_a_drop_waits_for_it() {
    let (database, client) = built().await;
    let next = "insert into highwater.checkpoint (projection, generation, partition, source, partitions, source_identity)
                select projection, 2, 0, source, 1, source_identity from highwater.checkpoint limit 1;
                update highwater.projection set next_generation = 2";
    client.batch_execute(next).await.unwrap();
    let batch = database.client().await;
    let begun = BATCH.replace(
        "partition = 1 and generation = 1",
        "partition = 0 and generation = 2",
    );
    batch.batch_execute(&begun).await.unwrap();
    let target = database.pooled();
    let dropping = tokio::spawn(async move { drop_projection(&target, &name()).await });
    waiting(&client, 1).await;
    batch.batch_execute(PARK).await.unwrap();
    dropping.await.unwrap().unwrap();
    let left = "select count(*) from highwater.dead_letter";
    assert_eq!(one::<i64>(&client, left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accept_finds_the_partitions_of_a_change_that_it_has_waited_for() {
    let (database, client) = built().await;
    are_asked_for(&client, 3).await;
    let changing = database.client().await;
    changing.batch_execute("begin").await.unwrap();
    assert!(one::<bool>(&changing, REPARTITION).await);
    let accepting = accepted(&database);
    waiting(&client, 1).await;
    changing.batch_execute("commit").await.unwrap();
    assert!(accepting.await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discard_locks_the_partition_that_a_change_has_made_meanwhile() {
    let (database, client) = built().await;
    let park = PARK.replace("commit", "");
    client.batch_execute(&park).await.unwrap();
    are_asked_for(&client, 3).await;
    // Holds the discard right after it has locked.
    let table = database.client().await;
    let hold = "begin; lock table highwater.discarded in share mode";
    table.batch_execute(hold).await.unwrap();
    let changing = database.client().await;
    changing.batch_execute("begin").await.unwrap();
    assert!(one::<bool>(&changing, REPARTITION).await);
    let target = database.pooled();
    let discarding = tokio::spawn(async move {
        let key = Selection::Key(Some("s".to_owned()));
        dead_letters::discard(&target, &name(), &key, "a test").await
    });
    waiting(&client, 1).await;
    changing.batch_execute("commit").await.unwrap();
    let at_table = "select count(*) from pg_locks
                     where relation = 'highwater.discarded'::regclass and not granted";
    eventually("the discard has locked", LIMIT, async || {
        one::<i64>(&client, at_table).await == 1
    })
    .await;
    let free =
        "with free as (select c.partition from highwater.checkpoint c for update skip locked)
                select array_agg(partition order by partition) from free";
    let others = "select array_agg(n order by n) from generate_series(0, 2) n
                   where n <> highwater.partition_of('s', 3)";
    let (free, others): (Vec<i32>, Vec<i32>) =
        (one(&client, free).await, one(&client, others).await);
    assert_eq!(free, others);
    table.batch_execute("commit").await.unwrap();
    assert_eq!(discarding.await.unwrap().unwrap().discarded, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_partitions_gives_up_on_a_batch_that_does_not_end_and_keeps_no_lock() {
    let (database, client) = built().await;
    let batch = database.client().await;
    are_asked_for(&client, 3).await;
    batch.batch_execute(BATCH).await.unwrap();
    // In a transaction, so that a lock that it kept would still be there.
    client.batch_execute("begin").await.unwrap();
    assert!(!one::<bool>(&client, REPARTITION).await, "not yet");
    let other = database.client().await;
    let free = "select count(*) from (select from highwater.projection for update skip locked) p";
    assert_eq!(one::<i64>(&other, free).await, 1);
    let limit: String = one(&client, "show lock_timeout").await;
    assert_eq!(limit, "0", "of the function alone");
    client.batch_execute("commit").await.unwrap();
    batch.batch_execute("commit").await.unwrap();
    assert!(one::<bool>(&client, REPARTITION).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_partitions_comes_about_though_a_batch_is_in_flight_whenever_it_is_tried() {
    let (database, client) = built().await;
    let batch = database.client().await;
    are_asked_for(&client, 3).await;
    // More than once, for a machine that is busy may take longer than the change waits.
    for _ in 0..10 {
        batch.batch_execute(BATCH).await.unwrap();
        let changing = repartitioned(database.client().await);
        waiting(&client, 1).await;
        batch.batch_execute("commit").await.unwrap();
        if changing.await.unwrap() {
            return;
        }
    }
    panic!("it never waited for the batch");
}
