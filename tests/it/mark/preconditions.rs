//! What the proof rests on: refused by name at the start, and when somebody changes it later.

use highwater::ErrorKind;
use highwater::testing::TestDatabase;

use super::stage::{Session, Stage, by_sequence, table_sql};

const SERIAL: &str = "bigserial primary key";

/// At the start, and with a gap while it runs: `change` is refused by this name.
async fn is_refused(change: &str, name: &str) {
    let sql = table_sql("ev", SERIAL);
    let mut stage = Stage::with(&sql, by_sequence("ev")).await;
    let [slow, quick] = stage.sessions().await;
    quick.append().await;
    stage.reaches(1).await;
    quick.run(change).await;
    // A number of another session in between, so that there is a gap.
    slow.run("begin").await;
    slow.run("insert into ev (position) values (10)").await;
    slow.run("commit").await;
    let error = stage.fails().await;
    assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
    assert!(error.to_string().contains(name), "{error}");
    assert!(error.hint().is_some(), "{error}");

    let error = Stage::at(stage.url(), by_sequence("ev"), 0).await.err();
    let error = error.unwrap_or_else(|| panic!("started in spite of: {change}"));
    assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
    assert!(error.to_string().contains(name), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_of_numbers_is_refused() {
    is_refused("alter sequence ev_position_seq cache 20", "CACHE 20").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_falling_sequence_is_refused() {
    let change = "alter sequence ev_position_seq increment -1 minvalue 1 maxvalue 100 start 100";
    is_refused(change, "INCREMENT -1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_from_zero_are_refused() {
    let change = "alter sequence ev_position_seq minvalue 0";
    is_refused(change, "MINVALUE 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_cycles_is_refused() {
    is_refused("alter sequence ev_position_seq cycle", "CYCLE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_without_a_sequence_is_refused() {
    let change = "alter table ev alter position drop default";
    is_refused(change, "has no sequence for its position").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone_is_refused() {
    let sql = table_sql("ev", SERIAL);
    let mut stage = Stage::with(&sql, by_sequence("ev")).await;
    stage.session().await.run("drop table ev").await;
    for error in [
        stage.fails().await,
        Stage::at(stage.url(), by_sequence("ev"), 0)
            .await
            .err()
            .unwrap(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
        assert!(error.to_string().contains("ev is not there"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_sequence_than_at_the_start_is_refused_while_it_runs() {
    let sql = table_sql("ev", SERIAL);
    let mut stage = Stage::with(&sql, by_sequence("ev")).await;
    let [slow, quick] = stage.sessions().await;
    // A number of the old sequence is in use, under a lock that is no longer read.
    slow.run("begin; select nextval('ev_position_seq')").await;
    quick
        .run("create sequence other start 2; alter table ev alter position set default nextval('other')")
        .await;
    quick.append().await;
    let error = stage.fails().await;
    assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
    assert!(error.to_string().contains("other"), "{error}");
    assert!(stage.delivered().is_empty());
    slow.run("insert into ev (position) values (1); commit")
        .await;
    let mut stage = Stage::at(stage.url(), by_sequence("ev"), 0).await.unwrap();
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_logical_replication_is_refused() {
    let publisher = TestDatabase::empty().await;
    let publishing = Session::open(publisher.url(), "ev").await;
    let name = publishing.text("select current_database()::text").await;
    publishing
        .run(&format!(
            "{}; create publication p for table ev",
            table_sql("ev", SERIAL)
        ))
        .await;
    let database = TestDatabase::empty().await;
    let subscribing = Session::open(database.url(), "ev").await;
    subscribing.run(&table_sql("ev", SERIAL)).await;
    let mut running = Stage::at(database.url(), by_sequence("ev"), 0)
        .await
        .unwrap();
    subscribing
        .run(&format!(
            "create subscription {name} connection '{}' publication p
             with (create_slot = false, slot_name = '{name}', enabled = false)",
            publisher.url()
        ))
        .await;
    subscribing
        .run("insert into ev (position) values (2)")
        .await;
    let while_running = running.fails().await;
    let at_the_start = Stage::at(database.url(), by_sequence("ev"), 0).await.err();
    // A slot that was never made must not be dropped.
    let alter = format!("alter subscription {name} set (slot_name = none)");
    subscribing.run(&alter).await;
    subscribing.run(&format!("drop subscription {name}")).await;
    for error in [while_running, at_the_start.unwrap()] {
        assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
        assert!(error.to_string().contains("logical replication"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_policy_would_hide_are_an_error_by_name() {
    let database = TestDatabase::empty().await;
    let owner = Session::open(database.url(), "ev").await;
    let role = owner.text("select current_database()::text").await;
    owner.run(&table_sql("ev", SERIAL)).await;
    owner
        .run(&format!(
            "create role {role}; grant select, insert on ev to {role};
             grant usage on ev_position_seq to {role}"
        ))
        .await;
    let joint = if database.url().contains('?') {
        '&'
    } else {
        '?'
    };
    let url = format!("{}{joint}options=-c%20role%3D{role}", database.url());
    let mut running = Stage::at(&url, by_sequence("ev"), 0).await.unwrap();
    owner.append().await;
    running.reaches(1).await;
    owner
        .run(
            "alter table ev enable row level security; create policy p on ev using (position <> 2)",
        )
        .await;
    owner.append().await;
    owner.append().await;
    let while_running = running.fails().await;
    assert_eq!(running.delivered(), [1]);
    let at_the_start = Stage::at(&url, by_sequence("ev"), 0).await.err().unwrap();
    for error in [while_running, at_the_start] {
        assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
        assert!(error.to_string().contains("row level security"), "{error}");
    }
    // The owner sees every row, policy or not.
    let mut stage = Stage::at(database.url(), by_sequence("ev"), 0)
        .await
        .unwrap();
    stage.reaches(3).await;
    owner
        .run(&format!("drop owned by {role}; drop role {role}"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_go_back_while_connected_are_a_divergence() {
    let sql = table_sql("ev", SERIAL);
    let mut truncated = Stage::with(&sql, by_sequence("ev")).await;
    let mut set_back = Stage::with(&sql, by_sequence("ev")).await;
    for (stage, change) in [
        (&mut truncated, "truncate ev restart identity"),
        (&mut set_back, "select setval('ev_position_seq', 2)"),
    ] {
        let writer = stage.session().await;
        for _ in 0..5 {
            writer.append().await;
        }
        stage.reaches(5).await;
        writer.run(change).await;
    }
    // Both at once: each is found by the next check of an idle follower.
    let (truncated, set_back) = tokio::join!(truncated.fails(), set_back.fails());
    for error in [truncated, set_back] {
        assert_eq!(error.kind(), ErrorKind::Diverged, "{error}");
        assert!(error.to_string().contains("went back"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_went_back_before_the_start_are_a_divergence() {
    let sql = table_sql("ev", SERIAL);
    let stage = Stage::with(&sql, by_sequence("ev")).await;
    let writer = stage.session().await;
    for _ in 0..5 {
        writer.append().await;
    }
    writer.run("truncate ev restart identity").await;
    writer.append().await;
    let error = Stage::at(stage.url(), by_sequence("ev"), 5).await.err();
    assert_eq!(error.unwrap().kind(), ErrorKind::Diverged);
}

/// The log is started again and is past the mark before the next poll.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_started_again_and_is_past_the_mark_is_a_divergence_in_the_next_step() {
    for burnt in [false, true] {
        let mut stage = Stage::new().await;
        let writer = stage.session().await;
        for _ in 0..5 {
            writer.append().await;
        }
        stage.reaches(5).await;
        writer
            .run("truncate highwater.event restart identity")
            .await;
        for number in 1..=9 {
            if burnt && number == 5 {
                let burn = "select nextval('highwater.event_position_seq')";
                writer.run(burn).await;
            } else {
                writer.append().await;
            }
        }
        let error = stage.try_step().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Diverged, "{error}");
        assert!(error.to_string().contains("went back"), "{error}");
        assert_eq!(stage.delivered(), [1, 2, 3, 4, 5]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_deleted_while_connected_are_no_divergence() {
    let mut stage = Stage::new().await;
    let writer = stage.session().await;
    for _ in 0..5 {
        writer.append().await;
    }
    stage.reaches(5).await;
    for deleted in ["position = 5", "position <= 3", "true"] {
        let sql = format!("delete from highwater.event where {deleted}");
        writer.run(&sql).await;
        stage.step().await;
    }
    for last in 6..=7 {
        assert_eq!(writer.append().await, last);
        stage.reaches(last).await;
    }
    assert_eq!(stage.delivered(), [1, 2, 3, 4, 5, 6, 7]);
}
