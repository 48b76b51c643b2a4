//! Waiting for a position, against a real server.

use std::time::{Duration, Instant};

use highwater::internal::engine::Engine;
use highwater::internal::engine::Settings;
use highwater::internal::pause::pause;
use highwater::internal::wait::{Target, Waited, until_visible};
use highwater::testing::TestDatabase;
use highwater::{ErrorKind, Position, Result, Until};
use tokio_util::sync::CancellationToken;

use crate::support::{COUNTS, append, eventually, one, run_to_head, sql_projection, table_source};

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(60);

async fn wait(
    database: &TestDatabase,
    name: &str,
    goal: Target,
    timeout: Duration,
) -> Result<Waited> {
    let known = [sql_projection("counts", COUNTS).definition().clone()];
    let sources = [table_source(database)];
    until_visible(&database.pooled(), &sources, &known, name, goal, timeout).await
}

async fn run(database: &TestDatabase, name: &str, text: &str) {
    run_to_head(
        database,
        database.source(),
        vec![sql_projection(name, text)],
    )
    .await
    .unwrap();
}

fn at(position: i64) -> Target {
    Target::At(Position::new(position))
}

fn why(waited: Waited) -> String {
    match waited {
        Waited::TimedOut { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_visible_is_answered_at_once_even_without_time() {
    let database = TestDatabase::new().await;
    append(&database.client().await, "s", 1).await;
    run(&database, "counts", COUNTS).await;
    for goal in [at(1), at(0), Target::Head] {
        let waited = wait(&database, "counts", goal, Duration::ZERO)
            .await
            .unwrap();
        assert!(matches!(waited, Waited::Visible { .. }), "{waited:?}");
        assert_eq!(waited.position().get(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_later_is_waited_for() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(sql_projection("counts", COUNTS));
    let stop = CancellationToken::new();
    let running = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    let (waited, ()) = tokio::join!(wait(&database, "counts", at(2), LONG), async {
        append(&client, "s", 1).await;
        append(&client, "s", 2).await;
    });
    assert!(matches!(waited.unwrap(), Waited::Visible { .. }));
    let n: i64 = client
        .query_one("select n from counts.counts", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(n, 2);
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_the_last_committed_event_and_never_a_number_that_was_only_drawn() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append(&client, "s", 1).await;
    client
        .batch_execute("begin; insert into highwater.event (stream, version, type, data) select 'b', n, 'T', '{}' from generate_series(1, 50) n; rollback")
        .await
        .unwrap();
    let open = database.client().await;
    open.batch_execute("begin").await.unwrap();
    append(&open, "open", 1).await;
    run(&database, "counts", COUNTS).await;
    let waited = wait(&database, "counts", Target::Head, Duration::ZERO)
        .await
        .unwrap();
    assert!(matches!(waited, Waited::Visible { target, .. } if target.get() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn time_runs_out_and_the_answer_says_why() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append(&client, "s", 1).await;
    let never_run = why(wait(&database, "counts", at(1), SHORT).await.unwrap());
    assert!(
        never_run.contains("it was never run; highwater run counts"),
        "{never_run}"
    );
    // Nothing is visible of what is not there, not even the place before the first event.
    let never_run = why(wait(&database, "counts", at(0), SHORT).await.unwrap());
    assert!(never_run.contains("it was never run"), "{never_run}");
    run(&database, "counts", COUNTS).await;
    append(&client, "s", 2).await;
    let began = Instant::now();
    let idle = why(wait(&database, "counts", Target::Head, SHORT)
        .await
        .unwrap());
    assert!(began.elapsed() >= SHORT);
    assert!(
        idle.contains("\"counts\" is idle at 1, not at 2 after 60 ms"),
        "{idle}"
    );
    assert!(
        idle.contains("no instance runs it; start highwater run counts"),
        "{idle}"
    );
    let beyond = why(wait(&database, "counts", at(9), SHORT).await.unwrap());
    assert!(
        beyond.contains("no event is there yet, the head is 2"),
        "{beyond}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_mark_is_the_reason_that_is_named() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(sql_projection("counts", COUNTS));
    let stop = CancellationToken::new();
    let running = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    append(&client, "s", 1).await;
    wait(&database, "counts", at(1), LONG).await.unwrap();
    let holder = database.client().await;
    holder.batch_execute("begin").await.unwrap();
    append(&holder, "held", 1).await;
    append(&client, "s", 2).await;
    let pid: i32 = holder
        .query_one("select pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    eventually("the instance says that it is live", LONG, async || {
        let state = "select state from highwater.checkpoint";
        client
            .query_one(state, &[])
            .await
            .unwrap()
            .get::<_, &str>(0)
            == "live"
    })
    .await;
    let held = why(wait(&database, "counts", Target::Head, SHORT)
        .await
        .unwrap());
    let expected = format!("position 2 may still be filled by pid {pid} (");
    assert!(held.contains(&expected), "{held}");
    holder.batch_execute("commit").await.unwrap();
    let waited = wait(&database, "counts", Target::Head, LONG).await.unwrap();
    assert!(matches!(waited, Waited::Visible { .. }), "{waited:?}");
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_projection_is_visible_up_to_where_it_stopped() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append(&client, "s", 1).await;
    client
        .batch_execute("insert into highwater.event (stream, version, type, data) values ('s', 2, 'Bad', '{}')")
        .await
        .unwrap();
    let text = "
-- highwater: up
create table t (n int);
-- highwater: apply
insert into t select 1 / (type = 'T')::int from batch;
";
    run(&database, "fails", text).await;
    let waited = wait(&database, "fails", at(1), Duration::ZERO)
        .await
        .unwrap();
    assert!(matches!(waited, Waited::Visible { .. }), "{waited:?}");
    // The end of this time would be TimedOut.
    let waited = wait(&database, "fails", Target::Head, LONG).await.unwrap();
    let Waited::Stopped {
        position,
        target,
        last_error,
    } = &waited
    else {
        panic!("{waited:?}")
    };
    assert_eq!((position.get(), target.get()), (1, 2));
    assert_eq!(
        last_error.as_ref().unwrap().sqlstate.as_deref(),
        Some("22012")
    );
    assert!(
        waited
            .to_string()
            .starts_with("stopped at 1, before 2: projections/fails.sql: line 5")
    );
    let json = serde_json::to_value(&waited).unwrap();
    assert_eq!(
        (&json["outcome"], &json["position"]),
        (&"stopped".into(), &1.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
    let database = TestDatabase::new().await;
    let error = wait(&database, "count", at(1), LONG).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.hint(), Some("did you mean counts? (known: counts)"));
    let empty = TestDatabase::empty().await;
    let error = wait(&empty, "counts", at(1), LONG).await.unwrap_err();
    assert_eq!(error.hint(), Some("run highwater init"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_a_lock_are_the_reasons_that_are_named() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(sql_projection("counts", COUNTS));
    let stop = CancellationToken::new();
    let running = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    append(&client, "s", 1).await;
    wait(&database, "counts", at(1), LONG).await.unwrap();

    let other = database.client().await;
    let lock = "begin; lock table counts.counts in share mode";
    other.batch_execute(lock).await.unwrap();
    let pid: i32 = one(&other, "select pg_backend_pid()").await;
    append(&client, "s", 2).await;
    let blocked = format!("its batch waits for a lock held by pid {pid} (");
    eventually("the lock is named", LONG, async || {
        let text = why(wait(&database, "counts", at(2), SHORT).await.unwrap());
        text.contains(&blocked) && text.contains(&format!("select pg_terminate_backend({pid});"))
    })
    .await;
    other.batch_execute("rollback").await.unwrap();
    wait(&database, "counts", at(2), LONG).await.unwrap();

    let name = "counts".parse().unwrap();
    pause(&database.pooled(), &name, LONG).await.unwrap();
    append(&client, "s", 3).await;
    let paused = why(wait(&database, "counts", at(3), SHORT).await.unwrap());
    let expected = "it is paused; highwater resume counts resumes it";
    assert!(paused.ends_with(expected), "{paused}");
    stop.cancel();
    running.await.unwrap().unwrap();
    // Nor does it say to run it, when it would not resume.
    let paused = why(wait(&database, "counts", at(3), SHORT).await.unwrap());
    assert!(paused.ends_with(expected), "{paused}");
}
