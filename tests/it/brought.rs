//! Events that the reader of a source brings with it: those of live steps, where they are few and small.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use highwater::internal::engine::{Monitor, RunnerState, Settings};
use highwater::internal::projection::{Keyed, KeyedView, OnUnknown, Runnable};

use highwater::internal::engine::Engine;
use highwater::internal::source::table::{EventTable, GapPolicy, TableSource};
use highwater::internal::source::{Filter, Follower, ReadRequest, Source, Step};
use highwater::testing::TestDatabase;
use highwater::{BoxError, ErrorKind, Outcome, Position, RecordedEvent};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::exactness::{
    Running, all_caught_up, assert_exact, caught_up, ledger_in_rust, ledger_in_sql,
};
use crate::support::meddled::{Meddled, Meddling};
use crate::support::{append_rows, eventually, one};

const LIMIT: Duration = Duration::from_secs(30);

/// Appends an event whose data has so many bytes that cannot be compressed.
async fn append_bytes(client: &Client, stream: &str, version: i64, bytes: usize) {
    let sql = format!(
        "insert into highwater.event (stream, version, type, data)
         select '{stream}', {version}, 'T', jsonb_build_object('n', {version}, 'note', left(string_agg(md5(i::text), ''), {bytes}))
           from generate_series(1, {bytes} / 32 + 1) i"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// A follower that was asked to bring events, behind its first step.
async fn follower(database: &TestDatabase) -> Box<dyn Follower> {
    let mut follower = database.source().follow(Position::START).await.unwrap();
    follower.bring_events();
    follower.step().await.unwrap();
    follower
}

fn brought(step: &Step) -> Option<Vec<String>> {
    let text = |event: &RecordedEvent| format!("{event:?}");
    Some(step.events.as_ref()?.iter().map(text).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_brings_what_a_read_of_its_range_would_give() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let mut follower = follower(&database).await;
    append_rows(&client, "a", 1..=3).await;
    let step = follower.step().await.unwrap();
    let request = ReadRequest {
        range: step.passed,
        filter: Filter::ALL,
        events_max: 100,
        bytes_max: 1_000_000,
    };
    let read = database.source().read(request).await.unwrap();
    let read: Vec<String> = read.events.iter().map(|e| format!("{e:?}")).collect();
    assert_eq!(read.len(), 3);
    assert_eq!(brought(&step), Some(read));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_brings_nothing_where_an_event_is_large_or_nobody_asked() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let mut asked = follower(&database).await;
    let mut other = database.source().follow(Position::START).await.unwrap();
    other.step().await.unwrap();
    append_bytes(&client, "a", 1, 1_000).await;
    assert_eq!(brought(&asked.step().await.unwrap()).unwrap().len(), 1);
    assert_eq!(brought(&other.step().await.unwrap()), None);
    append_bytes(&client, "a", 2, 100).await;
    append_bytes(&client, "a", 3, 5_000).await;
    let step = asked.step().await.unwrap();
    assert_eq!(step.passed.width(), 2);
    assert_eq!(brought(&step), None, "one of two is large");
    append_bytes(&client, "a", 4, 100).await;
    assert_eq!(brought(&asked.step().await.unwrap()).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_went_back_are_found_by_steps_that_bring_events_too() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let mut follower = follower(&database).await;
    append_rows(&client, "a", 1..=2).await;
    assert_eq!(brought(&follower.step().await.unwrap()).unwrap().len(), 2);
    let back = "select setval('highwater.event_position_seq', 1)";
    client.batch_execute(back).await.unwrap();
    let mut error = None;
    eventually("the sequence is looked at", LIMIT, async || {
        error = follower.step().await.err();
        error.is_some()
    })
    .await;
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Diverged, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_over_a_hole_brings_nothing() {
    for gap in [GapPolicy::Sequence { named: None }, GapPolicy::Dense] {
        let database = TestDatabase::new().await;
        let client = database.client().await;
        let table = EventTable {
            relation: "highwater.event".into(),
            gap,
            identity: Some("holes".into()),
        };
        let source = TableSource::new("default", database.pooled(), None, table);
        let mut follower = source.follow(Position::START).await.unwrap();
        follower.bring_events();
        follower.step().await.unwrap();
        append_rows(&client, "a", 1..=1).await;
        assert_eq!(brought(&follower.step().await.unwrap()).unwrap().len(), 1);
        append_rows(&client, "a", 2..=3).await;
        // Where it has not been yet: nothing tells this from a number that was never used.
        let removed = "delete from highwater.event where position = 2";
        client.batch_execute(removed).await.unwrap();
        eventually("the mark is past the hole", LIMIT, async || {
            let step = follower.step().await.unwrap();
            assert!(step.passed.is_empty() || step.events.is_none(), "{step:?}");
            step.mark.get() == 3
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_source_brings_no_events_and_a_gap_hides_none_of_the_head() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let mut follower = follower(&database).await;
    append_rows(&client, "a", 1..=20).await;
    let step = follower.step().await.unwrap();
    assert_eq!(brought(&step).unwrap().len(), 20);
    append_rows(&client, "a", 21..=22).await;
    let step = follower.step().await.unwrap();
    assert_eq!(brought(&step), None, "the step before passed many");
    let open = database.client().await;
    open.batch_execute("begin").await.unwrap();
    append_rows_of(&open, "open").await;
    append_rows(&client, "b", 1..=2).await;
    assert!(follower.step().await.unwrap().passed.is_empty());
    append_rows(&client, "b", 3..=100).await;
    let step = follower.step().await.unwrap();
    assert_eq!(step.head.get(), 123, "more than a step with events returns");
    open.batch_execute("commit").await.unwrap();
}

async fn append_rows_of(open: &Client, stream: &str) {
    let sql = format!(
        "insert into highwater.event (stream, version, type, data) values ('{stream}', 1, 'T', '{{}}')"
    );
    open.batch_execute(&sql).await.unwrap();
}

/// One row for each stream: how many events it has, and the sum of their numbers.
struct Sums;

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

impl KeyedView for Sums {
    type Event = Event;
    type Key = String;
    type Row = Sum;
    const ON_UNKNOWN: OnUnknown = OnUnknown::Ignore;

    fn name(&self) -> &str {
        "sums"
    }

    fn up(&self) -> &str {
        "create table sums (stream text primary key, events bigint, sum bigint check (sum < 100000000))"
    }

    fn table(&self) -> &str {
        "sums"
    }

    fn key_columns(&self) -> &[&str] {
        &["stream"]
    }

    fn key(&self, _: &Event, recorded: &RecordedEvent) -> Result<Option<String>, BoxError> {
        Ok(Some(recorded.stream.clone()))
    }

    fn fold(
        &self,
        row: Option<Sum>,
        event: Event,
        recorded: &RecordedEvent,
    ) -> Result<Option<Sum>, BoxError> {
        let (Event::T { n } | Event::Often { n } | Event::Seldom { n }) = event;
        let before = row.map_or((0, 0), |row| (row.events, row.sum));
        Ok(Some(Sum {
            stream: recorded.stream.clone(),
            events: before.0 + 1,
            sum: before.1 + n,
        }))
    }
}

pub(crate) fn sums() -> Arc<dyn Runnable> {
    Arc::new(Keyed::new(Sums).unwrap())
}

/// An engine that has applied its first event.
async fn live(database: &TestDatabase, projections: Vec<Arc<dyn Runnable>>) -> (Running, Monitor) {
    let engine = Engine::new(database.pooled(), Settings::default()).source(database.source());
    let count = projections.len() as i64;
    let engine = projections.into_iter().fold(engine, Engine::projection);
    let monitor = engine.monitor();
    let running = Running::start(engine);
    let client = database.client().await;
    append_rows(&client, "a", 1..=1).await;
    all_caught_up(&client, count).await;
    (running, monitor)
}

const AS_THE_LOG: &str = "select count(*) = 0 from (
    (select stream, events, sum::numeric from sums.sums)
    except
    (select stream, count(*), sum((data->>'n')::bigint) from highwater.event group by stream)) as d";

/// Counts how often events are read.
struct Counting {
    source: Arc<dyn Source>,
    reads: Arc<AtomicUsize>,
}

impl Meddling for Counting {
    fn source(&self) -> &dyn Source {
        &*self.source
    }

    fn reads(&self) {
        self.reads.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_projections_in_rust_read_only_what_was_not_brought() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let reads = Arc::new(AtomicUsize::new(0));
    let counting = Counting {
        source: database.source(),
        reads: reads.clone(),
    };
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(Arc::new(Meddled(counting)))
        .projection(sums())
        .projection(ledger_in_rust("in_rust"));
    let running = Running::start(engine);
    append_rows(&client, "a", 1..=1).await;
    all_caught_up(&client, 2).await;
    let before = reads.load(Ordering::SeqCst);
    for version in 2..=30 {
        append_rows(&client, "a", version..=version).await;
        caught_up(&client).await;
    }
    assert_eq!(reads.load(Ordering::SeqCst), before, "small events");
    append_bytes(&client, "b", 1, 5_000).await;
    caught_up(&client).await;
    assert_eq!(reads.load(Ordering::SeqCst), before + 2, "a large one");
    append_rows(&client, "a", 31..=40).await;
    caught_up(&client).await;
    running.stop().await;
    assert!(one::<bool>(&client, AS_THE_LOG).await);
    let sql = "select count(*) from sums.sums";
    assert_eq!(one::<i64>(&client, sql).await, 2);
    let committed: Vec<i64> = (1..=41).collect();
    assert_exact(&client, "in_rust", &committed).await;
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
    let (running, monitor) = live(&database, vec![sums()]).await;
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
        monitor.projections()[0].state == RunnerState::Standby || running.is_finished()
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

/// A source over a view that fails at the data of one event.
#[tokio::test(flavor = "multi_thread")]
async fn data_that_the_server_cannot_give_keep_no_step_from_passing_its_event() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let view = "create view odd as select position, stream, version, type,
            case when version = 2 then (1 / (version - 2))::text::jsonb else data end as data,
            metadata, id, recorded_at from highwater.event";
    client.batch_execute(view).await.unwrap();
    let table = EventTable {
        relation: "odd".into(),
        gap: GapPolicy::Dense,
        identity: Some("odd".into()),
    };
    let source = TableSource::new("default", database.pooled(), None, table);
    let mut follower = source.follow(Position::START).await.unwrap();
    follower.bring_events();
    follower.step().await.unwrap();
    for version in 1..=3 {
        append_rows(&client, "a", version..=version).await;
        let step = follower.step().await.unwrap();
        assert_eq!(step.mark.get(), version);
    }
}
