//! The storm: many writers at once, and what they committed is what is applied, once and in order.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater::internal::engine::Engine;
use highwater::internal::engine::Settings;
use highwater::internal::pg::transaction::Tx;
use highwater::internal::projection::file::ProjectionFile;
use highwater::internal::projection::{DynProjection, Projection, RustProjection, SqlProjection};
use highwater::internal::source::table::{EventTable, GapPolicy, TableSource};
use highwater::internal::source::{Batch, Source};
use highwater::testing::TestDatabase;
use highwater::{BoxError, Outcome, Result, Until};
use tokio::task::JoinSet;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use crate::support::{Random, eventually};

const WRITERS: u64 = 16;
const STREAMS: u64 = 200;
const LIMIT: Duration = crate::support::PATIENCE;

/// What a projection was given, in the order in which it was given it.
pub(crate) const LEDGER: &str = "create table ledger (
    applied bigint generated always as identity primary key,
    position bigint not null, stream text not null, version bigint not null)";

pub(crate) fn ledger_in_sql(name: &str) -> Arc<dyn DynProjection> {
    ledger_with(name, "")
}

/// A ledger of the events of one type.
pub(crate) fn ledger_of_type(name: &str, event_type: &str) -> Arc<dyn DynProjection> {
    let header = format!("/* highwater\nevents = [\"{event_type}\"]\n*/\n");
    ledger_with(name, &header)
}

fn ledger_with(name: &str, header: &str) -> Arc<dyn DynProjection> {
    let text = format!(
        "{header}-- highwater: up\n{LEDGER};\n-- highwater: apply\n
         insert into ledger (position, stream, version)
         select position, stream, version from batch order by position;\n"
    );
    let path = format!("projections/{name}.sql");
    let file = ProjectionFile::parse(Path::new(&path), &text).unwrap();
    Arc::new(SqlProjection::new(file))
}

struct Ledger(&'static str);

impl Projection for Ledger {
    fn name(&self) -> &str {
        self.0
    }

    fn up(&self) -> &str {
        LEDGER
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        let positions: Vec<i64> = batch.events.iter().map(|e| e.position.get()).collect();
        let streams: Vec<&str> = batch.events.iter().map(|e| &*e.stream).collect();
        let versions: Vec<i64> = batch.events.iter().map(|e| e.version).collect();
        tx.execute(
            "insert into ledger (position, stream, version)
             select * from unnest($1::bigint[], $2::text[], $3::bigint[])",
            &[&positions, &streams, &versions],
        )
        .await?;
        Ok(())
    }
}

pub(crate) fn ledger_in_rust(name: &'static str) -> Arc<dyn DynProjection> {
    Arc::new(RustProjection::new(Ledger(name)).unwrap())
}

/// A ledger of a projection with this many partitions.
pub(crate) fn ledger_partitioned(name: &str, partitions: usize) -> Arc<dyn DynProjection> {
    ledger_with(
        name,
        &format!("/* highwater\npartitions = {partitions}\n*/\n"),
    )
}

/// The same ledger, that stays in its transaction for some seconds after it has written.
struct SlowLedger(Ledger);

impl Projection for SlowLedger {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn up(&self) -> &str {
        self.0.up()
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        self.0.apply(batch, tx).await?;
        for _ in 0..30 {
            tx.execute("select pg_sleep(0.1)", &[]).await?;
        }
        Ok(())
    }
}

pub(crate) fn slow_ledger_in_rust(name: &'static str) -> Arc<dyn DynProjection> {
    Arc::new(RustProjection::new(SlowLedger(Ledger(name))).unwrap())
}

/// What a ledger says: exactly the log, in the order of positions and of versions.
pub(crate) async fn assert_exact(client: &Client, ledger: &str, committed: &[i64]) {
    let applied = assert_exact_by_stream(client, ledger, committed).await;
    assert!(
        applied.is_sorted(),
        "{ledger}: not in the order of positions"
    );
}

/// What a ledger of several partitions says: exactly the log, in the order of versions. Returns its
/// positions as they were applied.
pub(crate) async fn assert_exact_by_stream(
    client: &Client,
    ledger: &str,
    committed: &[i64],
) -> Vec<i64> {
    let log = positions(client, "select position from highwater.event order by 1").await;
    assert_eq!(log, committed, "what writers were told is what is there");
    let applied = format!("select position from {ledger}.ledger order by applied");
    let applied = positions(client, &applied).await;
    let (missing, extra) = compared(committed, &applied);
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{ledger}: lost {missing:?}, not in the log or twice {extra:?}"
    );
    let sql = format!(
        "select position from (
             select position, version,
                    lag(version) over (partition by stream order by applied) as before
             from {ledger}.ledger) v
         where coalesce(before, 0) >= version"
    );
    assert_eq!(
        positions(client, &sql).await,
        [0_i64; 0],
        "{ledger}: turned round"
    );
    applied
}

/// What is committed and not applied, and what is applied and not committed, or twice.
fn compared(committed: &[i64], applied: &[i64]) -> (Vec<i64>, Vec<i64>) {
    let mut sorted = applied.to_vec();
    sorted.sort_unstable();
    let is_missing = |p: &&i64| sorted.binary_search(p).is_err();
    let missing = committed.iter().filter(is_missing).copied().collect();
    let twice = sorted.windows(2).filter(|pair| pair[0] == pair[1]);
    let mut extra: Vec<i64> = twice.map(|pair| pair[0]).collect();
    extra.extend(
        sorted
            .iter()
            .filter(|p| committed.binary_search(p).is_err()),
    );
    (missing, extra)
}

pub(crate) async fn positions(client: &Client, sql: &str) -> Vec<i64> {
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A writer's transactions, until `stop`. Returns the positions that were committed.
struct Writer {
    client: Client,
    random: Random,
    /// The longest pause before a commit.
    pause_ms: u64,
    committed: Vec<i64>,
}

impl Writer {
    async fn new(url: &str, seed: u64, pause_ms: u64) -> Writer {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        Writer {
            client,
            random: Random::new(seed),
            pause_ms,
            committed: Vec::new(),
        }
    }

    async fn run(mut self, stop: Arc<AtomicBool>) -> Vec<i64> {
        while !stop.load(Ordering::Relaxed) {
            self.transaction().await;
        }
        self.committed
    }

    /// One to three events, a pause, and the end. A conflict over a version ends it too.
    async fn transaction(&mut self) {
        self.batch("begin").await.unwrap();
        let mut written = Vec::new();
        for _ in 0..=self.random.below(3) {
            match self.event().await {
                Ok(positions) => written.extend(positions),
                Err(_) => {
                    self.batch("rollback").await.unwrap();
                    return;
                }
            }
        }
        let pause = self.random.below(self.pause_ms + 1) as f64 / 1_000.0;
        let sleep = format!("select pg_sleep({pause})");
        self.batch(&sleep).await.unwrap();
        if self.random.below(10) == 0 {
            self.batch("rollback").await.unwrap();
            return;
        }
        self.batch("commit").await.unwrap();
        self.committed.extend(written);
    }

    /// One event; sometimes in a savepoint that is released or rolled back.
    async fn event(&mut self) -> Result<Vec<i64>, tokio_postgres::Error> {
        let choice = self.random.below(10);
        if choice > 1 {
            return self.append().await.map(|position| vec![position]);
        }
        self.batch("savepoint s").await?;
        let position = self.append().await?;
        if choice == 0 {
            self.batch("rollback to s").await?;
            return Ok(Vec::new());
        }
        self.batch("release s").await?;
        Ok(vec![position])
    }

    /// The next version of a stream. Who loses it to another writer, or ends in a deadlock with
    /// one, rolls back.
    async fn append(&mut self) -> Result<i64, tokio_postgres::Error> {
        let stream = format!("stream-{}", self.random.below(STREAMS));
        let sql = "insert into highwater.event (stream, version, type, data)
                   select $1, coalesce(max(version), 0) + 1, 'T', '{}'
                     from highwater.event where stream = $1
                   returning position";
        let row = self
            .client
            .query_typed_one(sql, &[(&stream, Type::TEXT)])
            .await?;
        Ok(row.get(0))
    }

    async fn batch(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(sql).await
    }
}

/// Writers at work.
pub(crate) struct Storm {
    writers: JoinSet<Vec<i64>>,
    stop: Arc<AtomicBool>,
}

impl Storm {
    pub(crate) async fn start(url: &str, pause_ms: u64) -> Storm {
        let stop = Arc::new(AtomicBool::new(false));
        let seed = Random::seed();
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let writer = Writer::new(url, seed.wrapping_add(number), pause_ms).await;
            writers.spawn(writer.run(stop.clone()));
        }
        Storm { writers, stop }
    }

    /// The positions that the writers were told are committed, in order.
    pub(crate) async fn stop(self) -> Vec<i64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut committed = self.writers.join_all().await.concat();
        committed.sort_unstable();
        committed
    }
}

/// An engine that runs by itself until it is stopped.
pub(crate) struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<highwater::Report>>,
}

impl Running {
    pub(crate) fn start(engine: Engine) -> Running {
        let stop = CancellationToken::new();
        let task = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
        Running { stop, task }
    }

    pub(crate) async fn stop(self) -> highwater::Report {
        self.stop.cancel();
        self.task.await.unwrap().unwrap()
    }

    /// Ends it as a kill would: nothing is given back.
    pub(crate) fn abort(self) {
        self.task.abort();
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(self) -> highwater::Report {
        self.task.await.unwrap().unwrap()
    }
}

async fn checkpoint(client: &Client) -> i64 {
    let sql = "select coalesce(min(position), 0)::bigint from highwater.checkpoint";
    positions(client, sql).await[0]
}

pub(crate) async fn caught_up(client: &Client) {
    all_caught_up(client, 1).await;
}

/// As [`caught_up`], where so many projections may still have to be made: each is made for itself.
pub(crate) async fn all_caught_up(client: &Client, projections: i64) {
    let sql = "select max(position) from highwater.event";
    let head = positions(client, sql).await[0];
    let made = "select count(distinct projection) from highwater.checkpoint";
    eventually("the projections are at the head", LIMIT, async || {
        positions(client, made).await[0] >= projections && checkpoint(client).await >= head
    })
    .await;
}

fn settings(listen: bool) -> Settings {
    let mut settings = Settings::default();
    settings.listen = listen;
    settings.lease = Duration::from_secs(1);
    settings
}

/// At least 5,000 events of 16 writers, with everything that writers may do. Returns the committed
/// positions.
async fn storm(database: &TestDatabase) -> Vec<i64> {
    let client = database.client().await;
    let bystander = database.client().await;
    client
        .batch_execute("create table notes (t text)")
        .await
        .unwrap();
    let held_open = "begin; insert into notes values ('held open')";
    bystander.batch_execute(held_open).await.unwrap();
    let name = positions(
        &client,
        "select oid::bigint from pg_database where datname = current_database()",
    )
    .await[0];

    let running = Storm::start(database.url(), 50).await;
    let mut prepared = false;
    let mut own = Vec::new();
    eventually("5,000 events", LIMIT, async || {
        let sql = "select count(*) from highwater.event";
        let count = positions(&client, sql).await[0];
        if count > 1_000 && !prepared {
            prepared = true;
            let sql = "insert into highwater.event (stream, version, type, data)
                       values ('prepared', 1, 'T', '{}') returning position";
            client.batch_execute("begin").await.unwrap();
            own.extend(positions(&client, sql).await);
            let sql = format!("prepare transaction 'storm {name}'");
            client.batch_execute(&sql).await.unwrap();
        }
        if count > 2_000 && prepared {
            let sql = format!("commit prepared 'storm {name}'");
            // Only the first time: then there is none any more.
            let _ = client.batch_execute(&sql).await;
        }
        count >= 5_000
    })
    .await;
    let mut committed = running.stop().await;
    committed.extend(own);
    committed.sort_unstable();
    caught_up(&client).await;
    bystander.batch_execute("rollback").await.unwrap();
    committed
}

async fn everything_is_applied_once_and_in_order(listen: bool) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let engine = Engine::new(database.pooled(), settings(listen))
        .source(database.source())
        .projection(ledger_in_sql("in_sql"))
        .projection(ledger_in_rust("in_rust"));
    let engine = Running::start(engine);
    eventually("both have begun", LIMIT, async || {
        let sql = "select count(*) from highwater.checkpoint where epoch > 0";
        positions(&client, sql).await[0] == 2
    })
    .await;
    let committed = storm(&database).await;
    let report = engine.stop().await;
    for (name, outcome) in &report.outcomes {
        assert!(matches!(outcome, Outcome::Drained), "{name}: {outcome:?}");
    }
    assert!(committed.len() >= 5_000);
    assert_exact(&client, "in_sql", &committed).await;
    assert_exact(&client, "in_rust", &committed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_writers_is_applied_once_and_in_order() {
    everything_is_applied_once_and_in_order(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_writers_is_applied_once_and_in_order_without_listen() {
    everything_is_applied_once_and_in_order(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_mark_replaced_by_the_highest_position_the_same_storm_loses_events() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let naive = EventTable {
        gap: GapPolicy::Dense,
        ..EventTable::own()
    };
    let pool = database.pooled();
    let direct = Some(pool.connector().clone());
    let source: Arc<dyn Source> = Arc::new(TableSource::new("default", pool, direct, naive));
    let engine = Engine::new(database.pooled(), settings(true))
        .source(source)
        .projection(ledger_in_sql("in_sql"));
    let engine = Running::start(engine);
    let committed = storm(&database).await;
    engine.stop().await;
    let sql = "select position from in_sql.ledger order by applied";
    let applied = positions(&client, sql).await;
    let (missing, extra) = compared(&committed, &applied);
    assert!(!missing.is_empty(), "of {} events", committed.len());
    assert!(extra.is_empty(), "{extra:?}");
}
