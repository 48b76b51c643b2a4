//! Projections in Rust that are behind: a group of batches shares a transaction.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::internal::engine::{Engine, Settings, Until};
use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::internal::pg::transaction::Tx;
use highwater::internal::projection::{DynProjection, Projection, RustProjection};
use highwater::internal::source::Batch;
use highwater::internal::source::table::{EventTable, GapPolicy, TableSource};
use highwater::testing::TestDatabase;
use highwater::{BoxError, Error, ErrorKind, Outcome, Position, RecordedEvent, Report, Result};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::support::keyed_view::ByStream;
use crate::support::one;

/// Bookings of 1 to a few accounts in turns, each with so many bytes of a note.
async fn fill(client: &Client, events: u32, accounts: u32, note: u32) {
    let sql = format!(
        "insert into highwater.event (stream, version, type, data)
         select 'a-' || i % {accounts}, i / {accounts} + 1, 'Booked',
                jsonb_build_object('amount', i, 'note', repeat('n', {note}))
           from generate_series(0, {events} - 1) i order by i"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// No batch is cut, and no transaction ended, because the machine is busy.
fn settings() -> Settings {
    Settings::default().with_transaction_time(Duration::from_secs(3600))
}

async fn run_on(
    database: &TestDatabase,
    table: EventTable,
    settings: Settings,
    projections: Vec<Arc<dyn DynProjection>>,
) -> Report {
    let connector: Connector = database.pooled().connector().clone();
    let sessions = usize::try_from(settings.pool_size).unwrap();
    let pool = Database::new(connector, sessions).unwrap();
    let source = TableSource::new("default", pool.clone(), None, table);
    let engine = Engine::new(pool, settings).source(Arc::new(source));
    let engine = projections.into_iter().fold(engine, Engine::projection);
    let run = engine.run(Until::CaughtUp, CancellationToken::new());
    let report = tokio::time::timeout(crate::support::PATIENCE, run).await;
    report.expect("it catches up").unwrap()
}

async fn run(database: &TestDatabase, projection: Arc<dyn DynProjection>) -> Outcome {
    let report = run_on(database, EventTable::own(), settings(), vec![projection]).await;
    report.outcomes.into_iter().next().unwrap().1
}

#[derive(Deserialize)]
enum Account {
    Booked { amount: i64 },
}

#[derive(Serialize, Deserialize)]
struct Sum {
    stream: String,
    amount: i64,
    last: i64,
    padding: String,
}

const SUMS: &str = "create table sum (stream text primary key, amount bigint not null,
        last bigint not null, padding text not null, written_in xid8 default pg_current_xact_id());
     create sequence written;
     create function count_written() returns trigger language plpgsql as $$
     begin perform nextval('sums.written'); return new; end $$;
     create trigger count_written before insert or update on sum
        for each row execute function count_written()";

/// Sums of amounts, in rows with `padding` bytes. Every 7th booking of an account closes it: no row.
fn sums(padding: usize) -> Arc<dyn DynProjection> {
    let fold = move |row: Option<Sum>, event: Account, recorded: &RecordedEvent| {
        let Account::Booked { amount } = event;
        (recorded.version % 7 != 0).then(|| Sum {
            stream: recorded.stream.clone(),
            amount: row.map_or(0, |row| row.amount) + amount,
            last: recorded.position.get(),
            padding: "p".repeat(padding),
        })
    };
    let view = ByStream {
        name: "sums".to_owned(),
        up: SUMS.to_owned(),
        table: "sum",
        key_column: "stream",
        fold: Box::new(fold),
    };
    view.projection().unwrap()
}

/// What [`sums`] builds, by one statement over the log.
const BY_HAND: &str =
    "select coalesce(string_agg(concat_ws(' ', stream, amount, last), ', ' order by stream), '')
    from (select stream, sum((data->>'amount')::bigint) amount, max(position) as last
            from (select e.*, max(version) over (partition by stream) / 7 as epoch
                    from highwater.event e) e
           where version / 7 = epoch and version % 7 <> 0 group by stream) s";
const BUILT: &str = "select coalesce(string_agg(concat_ws(' ', stream, amount, last), ', ' order by stream), '') from sums.sum";

async fn assert_exact(client: &Client) {
    let built: String = one(client, BUILT).await;
    assert_eq!(built, one::<String>(client, BY_HAND).await);
    assert!(!built.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_view_over_several_batches_of_a_transaction_is_what_one_statement_would_build() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    fill(&client, 30_000, 700, 0).await;
    let outcome = run(&database, sums(0)).await;
    assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
    assert_exact(&client).await;
    let written: i64 = one(&client, "select last_value from sums.written").await;
    let rows: i64 = one(&client, "select count(*) from sums.sum").await;
    assert_eq!(written, rows, "each row was written once");
    let stands = "select (position, event_position) = (30000, 30000) from highwater.checkpoint";
    assert!(one::<bool>(&client, stands).await);
    // The next run begins with rows that are there.
    fill_more(&client, 30_000, 700).await;
    let outcome = run(&database, sums(0)).await;
    assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
    assert_exact(&client).await;
}

async fn fill_more(client: &Client, from: u32, accounts: u32) {
    let sql = format!(
        "insert into highwater.event (stream, version, type, data)
         select 'a-' || i % {accounts}, i / {accounts} + 1, 'Booked', jsonb_build_object('amount', i)
           from generate_series({from}, {from} + 19999) i order by i"
    );
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_take_more_memory_than_they_may_are_written_back_before_the_end() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    fill(&client, 3_000, 100, 2_500).await;
    let outcome = run(&database, sums(100_000)).await;
    assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
    assert_exact(&client).await;
    let written: i64 = one(&client, "select last_value from sums.written").await;
    assert!(
        written > 200,
        "{written} writes of at most 100 rows in one transaction"
    );
}

/// Records which batches it was given; `deed` says what else it does.
struct Calls<F> {
    name: String,
    deed: F,
}

impl<F> Calls<F>
where
    F: Fn(&Batch) -> Result<Option<&'static str>> + Send + Sync + 'static,
{
    fn compiled(name: &str, deed: F) -> Arc<dyn DynProjection> {
        let name = name.to_owned();
        Arc::new(RustProjection::new(Calls { name, deed }).unwrap())
    }
}

impl<F> Projection for Calls<F>
where
    F: Fn(&Batch) -> Result<Option<&'static str>> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }
    fn up(&self) -> &str {
        "create table call (after bigint primary key, through bigint not null, events int not null,
                            written_in xid8 default pg_current_xact_id())"
    }
    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        let (after, through) = (batch.range.after().get(), batch.range.through().get());
        let events = i32::try_from(batch.events.len()).unwrap();
        let insert = format!("insert into {}.call values ($1, $2, $3)", self.name);
        tx.execute(&insert, &[&after, &through, &events]).await?;
        if let Some(statement) = (self.deed)(batch)? {
            tx.batch_execute(statement).await?;
        }
        Ok(())
    }
}

const WHOLE: &str = "select sum(events) || ' ' || bool_and(after = before) from
    (select c.*, lag(through, 1, 0::bigint) over (order by after) before from calls.call c) c";

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_third_batch_leaves_nothing_of_the_first_two() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    fill(&client, 40_000, 10, 0).await;
    let (calls, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let watched = seen.clone();
    let projection = Calls::compiled("calls", move |batch| {
        watched.lock().unwrap().push(batch.range.after());
        let is_third = calls.fetch_add(1, Ordering::SeqCst) == 2;
        if is_third && !has_failed.swap(true, Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Serialization, "try again"));
        }
        Ok(None)
    });
    let outcome = run(&database, projection).await;
    assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
    assert_eq!(one::<String>(&client, WHOLE).await, "40000 true");
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen[3], Position::START, "{seen:?}: all three again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_far_into_a_transaction_is_found_and_all_before_it_is_kept() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    fill(&client, 30_000, 10, 0).await;
    let bad = "update highwater.event set data = '{\"amount\": \"many\"}' where position = 23456";
    client.batch_execute(bad).await.unwrap();
    let outcome = run(&database, sums(0)).await;
    let Outcome::Stopped(error) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(error.event().unwrap().position.get(), 23_456, "{error}");
    let stands = "select position = 23455 from highwater.checkpoint";
    assert!(one::<bool>(&client, stands).await);
    client
        .batch_execute("delete from highwater.event where position >= 23456")
        .await
        .unwrap();
    assert_exact(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_ends_a_transaction_of_several_batches_is_found_out() {
    for deed in ["rollback", "rollback; begin", "commit; begin"] {
        let database = TestDatabase::new().await;
        let client = database.client().await;
        fill(&client, 30_000, 10, 0).await;
        let done_at = Arc::new(AtomicI64::new(0));
        let first = done_at.clone();
        let projection = Calls::compiled("calls", move |batch| {
            let after = batch.range.after().get();
            let is_first = first.load(Ordering::SeqCst) == 0 && after > 0;
            is_first.then(|| first.store(after, Ordering::SeqCst));
            Ok(is_first.then_some(deed))
        });
        let outcome = run(&database, projection).await;
        let Outcome::Stopped(error) = outcome else {
            panic!("{deed}: {outcome:?}")
        };
        assert!(
            error.to_string().contains("ended the transaction"),
            "{deed}: {error}"
        );
        let done_at = done_at.load(Ordering::SeqCst);
        let later = format!("select count(*) from calls.call where after > {done_at}");
        let later: i64 = one(&client, &later).await;
        assert_eq!(later, 0, "{deed}: what followed");
        let position: i64 = one(&client, "select position from highwater.checkpoint").await;
        assert_eq!(position, 0, "{deed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_batch_holds_more_than_it_may_and_a_larger_event_comes_alone() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    fill(&client, 2_000, 10, 4_000).await;
    let large = "insert into highwater.event (stream, version, type, data)
        select 'large', i, 'Booked', jsonb_build_object('note', repeat('n', 3000000))
          from generate_series(1, 3) i";
    client.batch_execute(large).await.unwrap();
    fill_more(&client, 30_000, 10).await;
    let largest = Arc::new(Mutex::new((0, 0, 0)));
    let watched = largest.clone();
    let projection = Calls::compiled("calls", move |batch| {
        let bytes = batch.events.iter();
        let bytes = bytes.map(|e| e.data.get().len() + e.metadata.get().len());
        let (bytes, events) = (bytes.sum::<usize>(), batch.events.len());
        let mut largest = watched.lock().unwrap();
        match bytes > 2 * 1024 * 1024 {
            true if events == 1 => largest.2 += 1,
            _ => *largest = (largest.0.max(bytes), largest.1.max(events), largest.2),
        }
        Ok(None)
    });
    let outcome = run(&database, projection).await;
    assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
    assert_eq!(one::<String>(&client, WHOLE).await, "22003 true");
    let (bytes, events, alone) = *largest.lock().unwrap();
    assert!((1_900_000..=2 * 1024 * 1024).contains(&bytes), "{bytes}");
    assert_eq!((events, alone), (8_192, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn projections_that_are_behind_share_the_smallest_pools_without_waiting_for_each_other() {
    for pool_size in 1..=4 {
        let database = TestDatabase::new().await;
        let client = database.client().await;
        fill(&client, 20_000, 10, 0).await;
        let projections = ["calls", "calls_b", "calls_c", "calls_d"];
        let projections = projections.map(|name| Calls::compiled(name, |_| Ok(None)));
        let mut settings = settings();
        settings.pool_size = pool_size;
        let own = EventTable::own();
        let report = run_on(&database, own, settings, projections.into()).await;
        for (name, outcome) in &report.outcomes {
            assert!(
                matches!(outcome, Outcome::CaughtUp),
                "{pool_size}: {name}: {outcome:?}"
            );
        }
        assert_eq!(one::<String>(&client, WHOLE).await, "20000 true");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_outlives_the_lease_while_its_batches_are_slow_to_read() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    fill(&client, 20_000, 10, 0).await;
    // The sleep is the subject: a read of 8,192 events takes longer than the lease. In the order of the view
    // it stops where it has enough.
    let slow = "create view slow as select position, stream, version, type,
            case when position % 8000 = 7999 and pg_sleep(1.5)::text is not null
                 then data else data end as data,
            metadata, id, recorded_at from highwater.event order by position";
    client.batch_execute(slow).await.unwrap();
    let table = EventTable {
        relation: "slow".into(),
        gap: GapPolicy::Dense,
        identity: Some("slow".into()),
    };
    let mut settings = settings();
    settings.lease = Duration::from_secs(1);
    let applied = Arc::new(AtomicUsize::new(0));
    let counted = applied.clone();
    let projection = Calls::compiled("calls", move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(None)
    });
    let report = run_on(&database, table, settings, vec![projection]).await;
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    assert_eq!(one::<String>(&client, WHOLE).await, "20000 true");
    let once: i64 = one(&client, "select count(*) from calls.call").await;
    let applied = i64::try_from(applied.load(Ordering::SeqCst)).unwrap();
    assert_eq!(applied, once, "no batch had to be tried twice");
}
