//! The start rule: what is proven at once, and what has to be waited for.

use highwater::internal::source::table::EventTable;
use highwater::testing::TestDatabase;

use super::stage::{OWN, Session, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_appending_the_mark_starts_at_the_highest_position_over_every_hole() {
    let database = TestDatabase::new().await;
    let writer = Session::open(database.url(), OWN).await;
    for last in [1, 3, 5] {
        assert_eq!(writer.append().await, last);
        writer.run("begin").await;
        writer.append().await;
        writer.run("rollback").await;
    }
    let mut stage = Stage::over(database, EventTable::own()).await;
    assert_eq!(stage.step().await.mark.get(), 5);
    assert_eq!(stage.delivered(), [1, 3, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_waits_for_the_holders_and_until_then_what_follows_the_floor_flows() {
    let database = TestDatabase::new().await;
    let quick = Session::open(database.url(), OWN).await;
    let slow = Session::open(database.url(), OWN).await;
    quick.append().await;
    quick.append().await;
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    let mut stage = Stage::over(database, EventTable::own()).await;
    assert_eq!(stage.step().await.mark.get(), 2);
    stage.is_held_at(2).await;
    slow.run("commit").await;
    stage.reaches(4).await;
    assert_eq!(stage.delivered(), [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_drawn_before_the_start_and_used_after_it_is_not_lost() {
    let database = TestDatabase::new().await;
    let quick = Session::open(database.url(), OWN).await;
    let slow = Session::open(database.url(), OWN).await;
    slow.run("begin; select nextval('highwater.event_position_seq')")
        .await;
    quick.append().await;
    let mut stage = Stage::over(database, EventTable::own()).await;
    stage.is_held_at(0).await;
    slow.run(
        "insert into highwater.event (position, stream, version, type, data)
         overriding system value values (1, 's', 1, 'T', '{}'); commit",
    )
    .await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_at_a_checkpoint_takes_what_lies_below_it_as_proven() {
    let database = TestDatabase::new().await;
    let quick = Session::open(database.url(), OWN).await;
    let slow = Session::open(database.url(), OWN).await;
    for _ in 0..3 {
        quick.append().await;
    }
    let mut stage = Stage::at(database.url(), EventTable::own(), 2)
        .await
        .unwrap();
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(3).await;
    slow.run("rollback").await;
    stage.reaches(5).await;
    assert_eq!(stage.delivered(), [3, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_an_empty_table_misses_no_first_event() {
    let database = TestDatabase::new().await;
    let slow = Session::open(database.url(), OWN).await;
    slow.run("begin").await;
    slow.append().await;
    let mut stage = Stage::over(database, EventTable::own()).await;
    assert_eq!(stage.step().await.mark.get(), 0);
    let quick = stage.session().await;
    quick.append().await;
    stage.is_held_at(0).await;
    slow.run("commit").await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_defaults_of_the_server_for_isolation_change_nothing() {
    let database = TestDatabase::new().await;
    let admin = Session::open(database.url(), OWN).await;
    let name = admin.text("select current_database()::text").await;
    admin
        .run(&format!(
            "alter database {name} set default_transaction_isolation = 'repeatable read';
             alter role current_user in database {name}
                 set default_transaction_isolation = 'serializable'"
        ))
        .await;
    // Not even a connection string that asks for it.
    let joint = if database.url().contains('?') {
        '&'
    } else {
        '?'
    };
    let options = "options=-c%20default_transaction_isolation%3Drepeatable%5C%20read";
    let url = format!("{}{joint}{options}", database.url());
    for url in [database.url(), &url] {
        let [slow, quick] = [Session::open(url, OWN).await, Session::open(url, OWN).await];
        assert_ne!(
            quick.text("show transaction_isolation").await,
            "read committed"
        );
        let floor = quick
            .number("select coalesce(max(position), 0) from highwater.event")
            .await;
        let mut stage = Stage::at(url, EventTable::own(), floor).await.unwrap();
        slow.run("begin").await;
        slow.append().await;
        quick.append().await;
        stage.is_held_at(floor).await;
        slow.run("commit").await;
        stage.reaches(floor + 2).await;
        assert_eq!(stage.delivered(), [floor + 1, floor + 2]);
    }
}
