//! A log that is not the one that was applied: it went back, was started again or is another one.
//! It is told by name; nothing is passed over and nothing applied twice.

use std::time::Duration;

use highwater::internal::engine::operate::accept;
use highwater::internal::engine::{Engine, Settings, Until};
use highwater::testing::TestDatabase;
use highwater::{Error, ErrorKind, Outcome, Position};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::exactness::{Running, ledger_in_rust, ledger_in_sql, positions};
use crate::support::{append_rows, eventually, one, run_to_head};

/// Events go as a log that goes back loses them, and not as somebody deletes them.
async fn lose(client: &Client, events: &str) {
    let sql = format!(
        "begin; alter table highwater.event disable trigger user;
         delete from highwater.event where {events};
         alter table highwater.event enable trigger user; commit"
    );
    client.batch_execute(&sql).await.unwrap();
}

async fn set_sequence(client: &Client, last: i64) {
    let sql = format!("select setval('highwater.event_position_seq', {last})");
    client.batch_execute(&sql).await.unwrap();
}

/// A number that is drawn and rolled back.
async fn burn(client: &Client) {
    let sql = "select nextval('highwater.event_position_seq')";
    client.batch_execute(sql).await.unwrap();
}

async fn run(database: &TestDatabase) -> Outcome {
    let report = run_to_head(database, database.source(), vec![ledger_in_sql("in_sql")]);
    report.await.unwrap().outcomes.pop().unwrap().1
}

async fn caught_up(database: &TestDatabase) {
    let outcome = run(database).await;
    assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_nothing_to_do_refuses_a_source_that_cannot_be_followed_all_the_same() {
    for events in [0, 5] {
        let database = TestDatabase::new().await;
        let client = database.client().await;
        append_rows(&client, "s", 1..=events).await;
        if events > 0 {
            caught_up(&database).await;
        }
        let cached = "alter sequence highwater.event_position_seq cache 20";
        client.batch_execute(cached).await.unwrap();
        let Outcome::Stopped(error) = run(&database).await else {
            panic!("nobody looked, with {events} events");
        };
        assert!(error.to_string().contains("CACHE 20"), "{error}");
    }
}

/// It stops with that kind, and says `words`; what was applied stays as it was.
async fn stopped(database: &TestDatabase, kind: ErrorKind, words: &str) -> Error {
    let client = database.client().await;
    let before = applied(&client).await;
    let Outcome::Stopped(error) = run(database).await else {
        panic!("it was passed over: {words}");
    };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(applied(&client).await, before, "{error}");
    let stored: String = one(
        &client,
        "select last_error->>'kind' from highwater.checkpoint where state = 'stopped'",
    )
    .await;
    assert_eq!(stored, kind.as_str());
    error
}

async fn diverged(database: &TestDatabase, words: &str) {
    let error = stopped(database, ErrorKind::Diverged, words).await;
    let choices = error.hint().unwrap();
    for choice in [
        "connect to",
        "highwater rebuild in_sql",
        "highwater accept in_sql",
    ] {
        assert!(choices.contains(choice), "{error}");
    }
}

async fn applied(client: &Client) -> Vec<i64> {
    positions(
        client,
        "select position from in_sql.ledger order by applied",
    )
    .await
}

/// Ten events, all of them applied.
async fn ten() -> (TestDatabase, Client) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=10).await;
    caught_up(&database).await;
    (database, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_past_the_checkpoint_again_is_diverged_though_nothing_has_the_known_position() {
    let (database, client) = ten().await;
    lose(&client, "position > 5").await;
    set_sequence(&client, 5).await;
    append_rows(&client, "other", 1..=4).await;
    burn(&client).await;
    append_rows(&client, "other", 5..=9).await;
    let taken: i64 = one(
        &client,
        "select count(*) from highwater.event where position = 10",
    )
    .await;
    assert_eq!(taken, 0);
    diverged(
        &database,
        "at position 10, but source \"default\" no longer has it",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_newest_events_is_diverged_though_its_numbers_go_on() {
    let (database, client) = ten().await;
    lose(&client, "position > 8").await;
    // A promoted replica begins where the sequence was logged ahead: 32 numbers on.
    set_sequence(&client, 40).await;
    diverged(&database, "did not record its removal").await;
    append_rows(&client, "other", 1..=3).await;
    diverged(&database, "did not record its removal").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_where_there_was_none_below_the_checkpoint_is_a_divergence() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=5).await;
    for _ in 6..=10 {
        burn(&client).await;
    }
    append_rows(&client, "s", 6..=6).await;
    let report = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(ledger_in_sql("in_sql"))
        .run(Until::Passed(Position::new(8)), CancellationToken::new())
        .await
        .unwrap();
    assert!(matches!(report.outcomes[0].1, Outcome::CaughtUp));
    let checkpoint = "select position from highwater.checkpoint union all
        select event_position from highwater.checkpoint";
    assert_eq!(positions(&client, checkpoint).await, [8, 5]);
    lose(&client, "position > 5").await;
    set_sequence(&client, 5).await;
    append_rows(&client, "other", 1..=2).await;
    burn(&client).await;
    append_rows(&client, "other", 3..=3).await;
    diverged(&database, "at position 7, where there was none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_gave_no_such_position_is_diverged_though_the_checkpoint_knows_no_event() {
    let (database, client) = ten().await;
    let nothing_known = "update highwater.checkpoint set event_position = null, event_id = null";
    client
        .batch_execute(&format!(
            "{nothing_known}; truncate highwater.event restart identity"
        ))
        .await
        .unwrap();
    diverged(&database, "has issued no position above 0").await;
    append_rows(&client, "other", 1..=20).await;
    diverged(&database, "at position 10, where there was none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_log_is_diverged_with_its_numbers_restarted_and_without() {
    for restart in ["", "restart identity"] {
        let (database, client) = ten().await;
        let sql = format!("truncate highwater.event {restart}");
        client.batch_execute(&sql).await.unwrap();
        let stopped = run(&database).await;
        let kind = stopped.error().map(Error::kind);
        assert_eq!(kind, Some(ErrorKind::Diverged), "{restart}: {stopped:?}");
        append_rows(&client, "other", 1..=30).await;
        diverged(&database, "at position 10").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_set_back_are_a_divergence_before_and_after_they_are_issued_again() {
    let (database, client) = ten().await;
    client
        .batch_execute("delete from highwater.event where position > 7")
        .await
        .unwrap();
    caught_up(&database).await;
    set_sequence(&client, 7).await;
    diverged(&database, "has issued no position above 7").await;
    append_rows(&client, "other", 1..=2).await;
    burn(&client).await;
    append_rows(&client, "other", 3..=3).await;
    diverged(
        &database,
        "a new event at position 9, whose event was removed",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_at_the_same_address_is_diverged() {
    let (database, client) = ten().await;
    let other = "update highwater.source set identity = gen_random_uuid()";
    client.batch_execute(other).await.unwrap();
    diverged(&database, "was taken from the log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_deleted_stop_no_projection_that_has_read_them() {
    let (database, client) = ten().await;
    for deleted in [
        "position = 10",
        "position in (3, 9)",
        "position <= 6",
        "true",
    ] {
        let sql = format!("delete from highwater.event where {deleted}");
        client.batch_execute(&sql).await.unwrap();
        caught_up(&database).await;
    }
    assert_eq!(applied(&client).await.len(), 10);
    append_rows(&client, "s", 11..=12).await;
    caught_up(&database).await;
    assert_eq!(applied(&client).await.len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_continues_after_the_checkpoint() {
    let (database, client) = ten().await;
    lose(&client, "position > 8").await;
    append_rows(&client, "other", 1..=2).await;
    diverged(&database, "did not record its removal").await;
    let projection = ledger_in_sql("in_sql");
    let source = database.source();
    let done = accept(&database.pooled(), &*projection, &*source).await;
    assert!(done.unwrap());
    caught_up(&database).await;
    assert_eq!(applied(&client).await[8..], [9, 10, 11, 12]);
    let again = accept(&database.pooled(), &*projection, &*source).await;
    assert!(!again.unwrap(), "nothing differs any more");

    client
        .batch_execute("truncate highwater.event restart identity")
        .await
        .unwrap();
    let refused = accept(&database.pooled(), &*projection, &*source)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Diverged);
    assert!(
        refused.hint().unwrap().contains("highwater rebuild in_sql"),
        "{refused}"
    );
}

/// One projection has read three events, the other all ten; then the oldest six are removed.
async fn cut() -> (TestDatabase, Client) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=10).await;
    for (projection, until) in [("in_sql", 3), ("above", 6)] {
        let run = Engine::new(database.pooled(), Settings::default())
            .source(database.source())
            .projection(ledger_in_sql(projection))
            .run(
                Until::Passed(Position::new(until)),
                CancellationToken::new(),
            );
        run.await.unwrap();
    }
    let retention = "delete from highwater.event where position <= 6";
    client.batch_execute(retention).await.unwrap();
    (database, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_has_not_read_what_was_removed_is_stranded_and_one_above_continues() {
    let (database, client) = cut().await;
    let error = stopped(&database, ErrorKind::Stranded, "has read up to 3").await;
    assert!(
        error
            .to_string()
            .contains("the oldest that is left is at 7"),
        "{error}"
    );
    assert!(
        error.hint().unwrap().contains("highwater accept in_sql"),
        "{error}"
    );
    let above = vec![ledger_in_sql("above")];
    let report = run_to_head(&database, database.source(), above)
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    let all = positions(
        &client,
        "select position from above.ledger order by applied",
    )
    .await;
    assert_eq!(all, (1..=10).collect::<Vec<_>>());

    let projection = ledger_in_sql("in_sql");
    let accepted = accept(&database.pooled(), &*projection, &*database.source()).await;
    assert!(accepted.unwrap());
    caught_up(&database).await;
    assert_eq!(applied(&client).await, [1, 2, 3, 7, 8, 9, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_projection_on_a_log_whose_oldest_events_were_removed_is_stranded() {
    let (database, client) = cut().await;
    client
        .batch_execute("delete from highwater.event")
        .await
        .unwrap();
    append_rows(&client, "s", 11..=12).await;
    let fresh = || vec![ledger_in_rust("fresh")];
    let report = run_to_head(&database, database.source(), fresh())
        .await
        .unwrap();
    let error = report.outcomes[0]
        .1
        .error()
        .expect("it can never be complete");
    assert_eq!(error.kind(), ErrorKind::Stranded, "{error}");
    assert!(
        error
            .to_string()
            .contains("the oldest that is left is at 11"),
        "{error}"
    );
    let accepted = accept(&database.pooled(), &*fresh()[0], &*database.source()).await;
    assert!(accepted.unwrap());
    let report = run_to_head(&database, database.source(), fresh())
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    let left = positions(
        &client,
        "select position from fresh.ledger order by applied",
    )
    .await;
    assert_eq!(left, [11, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_were_never_events_strand_nobody() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    set_sequence(&client, 500_000).await;
    append_rows(&client, "s", 1..=3).await;
    client
        .batch_execute("delete from highwater.event where position = 500002")
        .await
        .unwrap();
    caught_up(&database).await;
    assert_eq!(applied(&client).await, [500_001, 500_003]);
}

/// Retention does not wait for a projection that is behind.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_removed_while_a_projection_catches_up_strand_it() {
    for projection in [ledger_in_sql("in_sql"), ledger_in_rust("in_rust")] {
        let database = TestDatabase::new().await;
        let client = database.client().await;
        append_rows(&client, "s", 1..=10).await;
        let name = projection.definition().name.clone();
        let engine = || {
            let mut settings = Settings::default();
            settings.batch_events_max = 2;
            Engine::new(database.pooled(), settings)
                .source(database.source())
                .projection(projection.clone())
        };
        let first = Until::Passed(Position::new(2));
        engine().run(first, CancellationToken::new()).await.unwrap();
        let holder = database.client().await;
        let lock = format!("begin; lock table {name}.ledger in share row exclusive mode");
        holder.batch_execute(&lock).await.unwrap();
        let running = Running::start(engine());
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
            and datname = current_database() and application_name like 'highwater%'";
        eventually("a batch waits", Duration::from_secs(30), async || {
            one::<i64>(&client, waiting).await > 0
        })
        .await;
        let retention = "delete from highwater.event where position <= 6";
        client.batch_execute(retention).await.unwrap();
        holder.batch_execute("rollback").await.unwrap();
        let ended = tokio::time::timeout(crate::support::PATIENCE, running.ended()).await;
        let report = ended.expect("it stops");
        let error = report.outcomes[0].1.error().expect("it is stranded");
        assert_eq!(error.kind(), ErrorKind::Stranded, "{name}: {error}");
        let choice = format!("highwater accept {name}");
        assert!(error.to_string().contains(&choice), "{error}");
        let sql = format!("select position from {name}.ledger order by applied");
        let applied = positions(&client, &sql).await;
        assert!(
            [&[1, 2][..], &[1, 2, 3, 4]].contains(&&*applied),
            "{name}: {applied:?}"
        );
    }
}
