//! Prepared transactions: they have no process, and outlive the server.

use highwater::cluster::Cluster;
use highwater::internal::source::table::EventTable;

use super::stage::{LIMIT, OWN, Session, Stage, pause};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_prepared_before_the_first_snapshot_holds_the_mark() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    let gid = slow.gid("before").await;
    slow.run("begin").await;
    slow.append().await;
    slow.run(&format!("prepare transaction '{gid}'")).await;
    drop(slow);
    quick.append().await;
    stage.is_held_at(0).await;
    quick.run(&format!("commit prepared '{gid}'")).await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_prepared_while_it_is_waited_for_still_holds_the_mark() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    let gid = slow.gid("while").await;
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(0).await;
    slow.run(&format!("prepare transaction '{gid}'")).await;
    stage.is_held_at(0).await;
    drop(slow);
    stage.is_held_at(0).await;
    quick.run(&format!("commit prepared '{gid}'")).await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_that_is_rolled_back_is_passed() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    let gid = slow.gid("back").await;
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(0).await;
    slow.run(&format!("prepare transaction '{gid}'")).await;
    stage.is_held_at(0).await;
    quick.run(&format!("rollback prepared '{gid}'")).await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_writers_that_keep_coming_do_not_hold_the_mark_for_ever() {
    let mut stage = Stage::new().await;
    let [slow, other] = stage.sessions().await;
    let prefix = slow.gid("stream").await;
    slow.run("begin").await;
    slow.append().await;
    other.append().await;
    stage.is_held_at(0).await;
    slow.run(&format!("prepare transaction '{prefix} 0'")).await;
    // At any time from here on at least one prepared writer is open, and each is a new one. All
    // roll back: nothing but the proof passes what they burn.
    let mut last = 0;
    let mut mark = 0;
    while mark < 2 {
        last += 1;
        assert!(last < 500, "the first gap is never passed");
        other.run("begin").await;
        other.append().await;
        other
            .run(&format!("prepare transaction '{prefix} {last}'"))
            .await;
        slow.run(&format!("rollback prepared '{prefix} {}'", last - 1))
            .await;
        let step = stage.step().await;
        mark = step.mark.get();
        pause(&step).await;
    }
    slow.run(&format!("commit prepared '{prefix} {last}'"))
        .await;
    let head = other.append().await;
    stage.reaches(head).await;
    stage.delivered_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_that_outlives_a_crash_of_the_server_holds_the_mark() {
    let cluster = Cluster::temporary_with(&[("max_prepared_transactions", "10")])
        .await
        .unwrap();
    let url = cluster.url("highwater");
    let (mut client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    highwater::internal::pg::migrate::migrate(&mut client)
        .await
        .unwrap();
    let mut stage = Stage::at(&url, EventTable::own(), 0).await.unwrap();
    let [slow, quick] = stage.sessions().await;
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(0).await;
    slow.run("prepare transaction 'survivor'").await;
    stage.is_held_at(0).await;

    crate::support::crash(&url).await;
    let error = stage.fails().await;
    assert_eq!(error.kind(), highwater::ErrorKind::ConnectionLost);
    eventually("the server is back", LIMIT, async || {
        tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .is_ok()
    })
    .await;
    stage.follow_again(0).await;
    let names = stage.is_held_at(0).await;
    let holders = stage.explained(&names).await;
    assert_eq!(holders[0].prepared.as_deref(), Some("survivor"));
    let writer = Session::open(&url, OWN).await;
    writer.append().await;
    stage.is_held_at(0).await;
    writer.run("commit prepared 'survivor'").await;
    let head = writer
        .number("select max(position) from highwater.event")
        .await;
    stage.reaches(head).await;
    stage.delivered_all().await;
    assert_eq!(&stage.delivered()[..2], [1, 2]);
    cluster.stop().await.unwrap();
}
