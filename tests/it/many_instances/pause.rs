//! An operator pauses a projection on all instances, and resumes it.

use highwater::ErrorKind;
use highwater::internal::pause::{pause, resume};
use highwater::internal::status;
use highwater::testing::TestDatabase;

use super::{LIMIT, engine, until_shared};
use crate::exactness::{
    Running, Storm, assert_exact_by_stream, caught_up, ledger_partitioned, positions,
};
use crate::support::eventually;

async fn holds_everywhere(listen: bool) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let name = "ledger".parse().unwrap();
    let storm = Storm::start(database.url(), 5).await;
    let ledger = [ledger_partitioned("ledger", 4)];
    let engines = [0, 1].map(|_| Running::start(engine(&database, listen, &ledger)));
    until_shared(&client, &[2, 2]).await;
    for _ in 0..3 {
        let paused = pause(&database.pooled(), &name, LIMIT).await.unwrap();
        assert!(paused.is_new && !paused.is_held, "{paused:?}");
        let stands = "select sum(position)::bigint from highwater.checkpoint";
        let before = positions(&client, stands).await;
        let head = "select coalesce(max(position), 0) from highwater.event";
        let head_before = positions(&client, head).await[0];
        eventually("writers go on", LIMIT, async || {
            positions(&client, head).await[0] > head_before + 50
        })
        .await;
        assert_eq!(positions(&client, stands).await, before, "nothing moves");
        let seen = status::read(&database.pooled(), &[], &[]).await.unwrap();
        let state = seen.projection("ledger").unwrap().state;
        assert_eq!(state.as_str(), "paused");
        assert!(
            seen.render(false).contains("highwater resume ledger"),
            "{}",
            seen.render(false)
        );
        let owners = "4 partitions\n     0  ";
        assert!(
            seen.render(false).contains(owners),
            "{}",
            seen.render(false)
        );
        assert!(resume(&database.pooled(), &name).await.unwrap());
        until_shared(&client, &[2, 2]).await;
    }
    assert!(!resume(&database.pooled(), &name).await.unwrap());
    let committed = storm.stop().await;
    caught_up(&client).await;
    for engine in engines {
        engine.stop().await;
    }
    assert_exact_by_stream(&client, "ledger", &committed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_a_projection_on_all_instances_until_it_is_resumed() {
    holds_everywhere(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_seen_without_listen_too() {
    holds_everywhere(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_projection_stays_paused_for_an_instance_that_starts_later() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let ledger = [ledger_partitioned("ledger", 2)];
    let running = Running::start(engine(&database, true, &ledger));
    until_shared(&client, &[2]).await;
    running.stop().await;
    let name = "ledger".parse().unwrap();
    pause(&database.pooled(), &name, LIMIT).await.unwrap();
    let engine = engine(&database, true, &ledger);
    let monitor = engine.monitor();
    let running = Running::start(engine);
    eventually("it says that it is paused", LIMIT, async || {
        monitor.projections()[0].state.as_str() == "paused"
    })
    .await;
    let owners = "select count(owner) from highwater.checkpoint";
    assert_eq!(positions(&client, owners).await, [0]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_read_model_cannot_be_paused() {
    let database = TestDatabase::new().await;
    let name = "nobody".parse().unwrap();
    let error = pause(&database.pooled(), &name, LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("\"nobody\""), "{error}");
}
