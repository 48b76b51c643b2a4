//! `highwater_position` beside each read model: always where the checkpoint is, or the projection
//! stops.

use std::sync::Arc;

use highwater::internal::engine::Settings;
use highwater::internal::engine::operate::accept;
use highwater::internal::engine::rebuild::Rebuild;
use highwater::internal::projection::DynProjection;
use highwater::testing::TestDatabase;
use highwater::{Error, ErrorKind, Outcome};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::exactness::{ledger_in_rust, ledger_in_sql, ledger_of_type, ledger_partitioned};
use crate::support::{append_rows, one, run_to_head};

async fn run(database: &TestDatabase, ledger: &Arc<dyn DynProjection>) -> Outcome {
    let run = run_to_head(database, database.source(), vec![ledger.clone()]);
    run.await.unwrap().outcomes.pop().unwrap().1
}

async fn caught_up(database: &TestDatabase, ledger: &Arc<dyn DynProjection>) {
    let outcome = run(database, ledger).await;
    assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
}

async fn diverged(database: &TestDatabase, ledger: &Arc<dyn DynProjection>) -> Error {
    let outcome = run(database, ledger).await;
    let Outcome::Stopped(error) = outcome else {
        panic!("it passed silently: {outcome:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Diverged, "{error}");
    error
}

/// Five events are in the read model `ledger`.
async fn built(ledger: &Arc<dyn DynProjection>) -> (TestDatabase, Client) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=5).await;
    caught_up(&database, ledger).await;
    (database, client)
}

/// The rows beside the read model say what the checkpoints say.
async fn assert_beside(client: &Client, positions: &[i64]) {
    let rows = "select string_agg(concat_ws(' ', partition, source, position, build), ', ' \
                order by partition) from";
    let beside: String = one(client, &format!("{rows} ledger.highwater_position")).await;
    let checkpoints = "(select c.partition, c.source, c.position, g.build
          from highwater.checkpoint c
          join highwater.generation g on g.projection = c.projection and g.number = c.generation) c";
    let stored: String = one(client, &format!("{rows} {checkpoints}")).await;
    assert_eq!(beside, stored);
    let sql = "select array_agg(position order by partition) from ledger.highwater_position";
    assert_eq!(one::<Vec<i64>>(client, sql).await, positions);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_moves_with_each_batch_and_over_events_that_nobody_wants() {
    for ledger in [
        ledger_in_sql("ledger"),
        ledger_in_rust("ledger"),
        ledger_of_type("ledger", "Wanted"),
    ] {
        let (database, client) = built(&ledger).await;
        assert_beside(&client, &[5]).await;
        append_rows(&client, "t", 1..=2).await;
        caught_up(&database, &ledger).await;
        assert_beside(&client, &[7]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_a_row_for_each_partition_after_their_number_changed() {
    let (database, client) = built(&ledger_in_sql("ledger")).await;
    for (partitions, version) in [(3, 6), (2, 7)] {
        append_rows(&client, "s", version..=version).await;
        caught_up(&database, &ledger_partitioned("ledger", partitions)).await;
        assert_beside(&client, &vec![version; partitions]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_that_of_the_new_build_after_a_rebuild() {
    let ledger = ledger_in_sql("ledger");
    let (database, client) = built(&ledger).await;
    append_rows(&client, "t", 1..=2).await;
    rebuilt(&database, &ledger).await;
    assert_beside(&client, &[7]).await;
    caught_up(&database, &ledger).await;
}

async fn rebuilt(database: &TestDatabase, ledger: &Arc<dyn DynProjection>) {
    let (target, source) = (database.pooled(), database.source());
    let rebuild = Rebuild::new(target, source, ledger.clone(), Settings::default());
    rebuild.run(CancellationToken::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_batch_commits_while_its_row_is_missing() {
    for ledger in [
        ledger_in_sql("ledger"),
        ledger_in_rust("ledger"),
        ledger_of_type("ledger", "Wanted"),
    ] {
        let (database, client) = built(&ledger).await;
        client
            .batch_execute("delete from ledger.highwater_position")
            .await
            .unwrap();
        append_rows(&client, "t", 1..=2).await;
        let error = diverged(&database, &ledger).await;
        let words = "ledger.highwater_position has no row for partition 0";
        assert!(error.to_string().contains(words), "{error}");
        let position = "select position from highwater.checkpoint";
        assert_eq!(one::<i64>(&client, position).await, 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_or_a_checkpoint_that_was_restored_alone_is_diverged_until_accepted() {
    let read_model = "delete from ledger.ledger where position > 3;
                      update ledger.highwater_position set position = 3";
    let checkpoint = "update highwater.checkpoint set position = 3, event_position = 3,
                      event_id = (select id from highwater.event where position = 3)";
    for (restore, words, accepted_at) in [
        (
            read_model,
            "in schema ledger is at 3, but its checkpoint at 5",
            5,
        ),
        (
            checkpoint,
            "in schema ledger is at 5, but its checkpoint at 3",
            3,
        ),
    ] {
        let ledger = ledger_in_sql("ledger");
        let (database, client) = built(&ledger).await;
        client.batch_execute(restore).await.unwrap();
        append_rows(&client, "t", 1..=2).await;
        let error = diverged(&database, &ledger).await;
        assert!(error.to_string().contains(words), "{error}");
        assert!(
            error.hint().unwrap().contains("highwater accept"),
            "{error}"
        );
        for differs in [true, false] {
            let source = database.source();
            let accepted = accept(&database.pooled(), &*ledger, &*source).await;
            assert_eq!(accepted.unwrap(), differs);
            assert_beside(&client, &[accepted_at]).await;
        }
        caught_up(&database, &ledger).await;
        assert_beside(&client, &[7]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_keys_were_dealt_by_another_hash_is_not_continued_but_built_again() {
    let ledger = ledger_in_sql("ledger");
    let (database, client) = built(&ledger).await;
    let hash = "select string_agg(key_hash, ',') from highwater.generation";
    assert_eq!(one::<String>(&client, hash).await, "hashtextextended");
    let other = "update highwater.generation set key_hash = 'another'";
    client.batch_execute(other).await.unwrap();
    append_rows(&client, "t", 1..=2).await;
    let outcome = run(&database, &ledger).await;
    let Outcome::Stopped(error) = outcome else {
        panic!("it went on: {outcome:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Database, "{error}");
    assert!(
        error.to_string().contains("the hash \"another\""),
        "{error}"
    );
    assert_beside(&client, &[5]).await;
    rebuilt(&database, &ledger).await;
    assert_eq!(one::<String>(&client, hash).await, "hashtextextended");
    assert_beside(&client, &[7]).await;
}
