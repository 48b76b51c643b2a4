//! A keyed view that follows the head: what it does when an event, a row or its checkpoint is not as it should be.

use std::sync::Arc;
use std::time::Duration;

use highwater::internal::engine::{Monitor, RunnerState, Settings};
use highwater::internal::projection::DynProjection;

use highwater::internal::engine::Engine;
use highwater::testing::TestDatabase;
use highwater::{ErrorKind, Outcome, RecordedEvent};
use serde::{Deserialize, Serialize};

use crate::exactness::{Running, all_caught_up, assert_exact, ledger_in_sql};
use crate::support::keyed_view::ByStream;
use crate::support::{append_rows, eventually, one};

const LIMIT: Duration = crate::support::PATIENCE;

#[derive(Deserialize)]
enum Event {
    T { n: i64 },
    Often { n: i64 },
    Seldom { n: i64 },
}

#[derive(Serialize, Deserialize)]
struct Sum {
    stream: String,
    events: i64,
    sum: i64,
}

/// How many events each stream has, and the sum of their numbers.
pub(crate) fn sums() -> Arc<dyn DynProjection> {
    let fold = |row: Option<Sum>, event: Event, recorded: &RecordedEvent| {
        let (Event::T { n } | Event::Often { n } | Event::Seldom { n }) = event;
        let before = row.map_or((0, 0), |row| (row.events, row.sum));
        Some(Sum {
            stream: recorded.stream.clone(),
            events: before.0 + 1,
            sum: before.1 + n,
        })
    };
    let up = "create table sums (stream text primary key, events bigint, sum bigint check (sum < 100000000))";
    let view = ByStream {
        name: "sums".to_owned(),
        up: up.to_owned(),
        table: "sums",
        key_column: "stream",
        fold: Box::new(fold),
    };
    view.projection().unwrap()
}

/// An engine that has applied its first event.
async fn live(
    database: &TestDatabase,
    projections: Vec<Arc<dyn DynProjection>>,
) -> (Running, Monitor) {
    let engine = Engine::new(database.pooled(), Settings::default()).source(database.source());
    let count = projections.len() as i64;
    let engine = projections.into_iter().fold(engine, Engine::projection);
    let handle = engine.monitor();
    let running = Running::start(engine);
    let client = database.client().await;
    append_rows(&client, "a", 1..=1).await;
    all_caught_up(&client, count).await;
    (running, handle)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_table_refuses_stops_a_live_view_at_its_event_and_nothing_is_committed() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let (running, _) = live(&database, vec![sums()]).await;
    append_rows(&client, "a", 100_000_000..=100_000_000).await;
    let report = running.ended().await;
    let error = report.outcomes[0].1.error().expect("it is stopped");
    assert_eq!(error.kind(), ErrorKind::Apply, "{error}");
    assert_eq!(
        error.sqlstate(),
        Some("23514"),
        "the row's own error: {error}"
    );
    let at = error.event().expect("the event");
    assert_eq!(at.position.get(), 2);
    let sql = "select sum from sums.sums";
    assert_eq!(one::<i64>(&client, sql).await, 1);
    let sql = "select min(position) from highwater.checkpoint";
    assert_eq!(one::<i64>(&client, sql).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_removed_before_they_were_read_strand_a_live_projection() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let (running, _) = live(&database, vec![sums()]).await;
    client
        .batch_execute(
            "begin;
             insert into highwater.event (stream, version, type, data) values ('b', 1, 'T', '{\"n\": 7}');
             delete from highwater.event where position <= 2;
             insert into highwater.event (stream, version, type, data) values ('b', 2, 'T', '{\"n\": 9}');
             commit",
        )
        .await
        .unwrap();
    let report = running.ended().await;
    let error = report.outcomes[0].1.error().expect("it is stopped");
    assert_eq!(error.kind(), ErrorKind::Stranded, "{error}");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("highwater accept sums")),
        "{error}"
    );
    let sql = "select count(*) from sums.sums where stream = 'b'";
    assert_eq!(one::<i64>(&client, sql).await, 0);
}

/// Another instance takes the checkpoint over, and the next event has another shape.
#[tokio::test(flavor = "multi_thread")]
async fn who_lost_its_checkpoint_does_not_stop_the_projection_for_a_fault_of_an_event() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let (running, handle) = live(&database, vec![sums()]).await;
    client
        .batch_execute(
            "begin;
             insert into highwater.instance (id, host, pid, lease)
                 values (gen_random_uuid(), 'elsewhere', 1, '1 hour');
             update highwater.checkpoint
                set epoch = epoch + 1, owner = (select id from highwater.instance where host = 'elsewhere');
             insert into highwater.event (stream, version, type, data) values ('a', 2, 'T', '\"no n\"');
             commit",
        )
        .await
        .unwrap();
    eventually("it stands by", LIMIT, async || {
        handle.projections()[0].state == RunnerState::Standby || running.is_finished()
    })
    .await;
    let report = running.stop().await;
    assert!(
        matches!(report.outcomes[0].1, Outcome::Drained),
        "{report:?}"
    );
}

/// Its `recorded_at` is none that a Rust program can hold.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_read_stops_who_wants_it_and_nobody_else() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let (running, _) = live(&database, vec![ledger_in_sql("in_sql"), sums()]).await;
    client
        .batch_execute(
            "insert into highwater.event (stream, version, type, data, recorded_at)
             values ('odd', 1, 'T', '{\"n\": 1}', 'infinity')",
        )
        .await
        .unwrap();
    append_rows(&client, "a", 2..=3).await;
    eventually("the other one is at the head", LIMIT, async || {
        let sql = "select min(position) from highwater.checkpoint where projection = 'in_sql'";
        one::<i64>(&client, sql).await == 4
    })
    .await;
    assert_exact(&client, "in_sql", &[1, 2, 3, 4]).await;
    eventually("who wants it is stopped", LIMIT, async || {
        let sql = "select count(*) from highwater.checkpoint where projection = 'sums' and state = 'stopped'";
        one::<i64>(&client, sql).await == 1
    })
    .await;
    running.stop().await;
}
