//! What many tests share.

pub(crate) mod hostile;
pub(crate) mod keyed_view;
pub(crate) mod meddled;
pub(crate) mod pooler;
pub(crate) mod proxy;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::internal::engine::Engine;
use highwater::internal::projection::file::ProjectionFile;
use highwater::internal::projection::{DynProjection, SqlProjection};
use highwater::internal::source::Source;
use highwater::internal::source::table::{EventTable, TableSource};
use highwater::testing::TestDatabase;
use highwater::{Report, Settings, Until};
use tokio_postgres::Client;
use tokio_postgres::types::FromSql;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come: no machine is that busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Waits until `condition` holds; after `limit` it panics and says what did not come.
pub(crate) async fn eventually(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A projection from the text of its file.
pub(crate) fn sql_projection(name: &str, text: &str) -> Arc<dyn DynProjection> {
    let path = format!("projections/{name}.sql");
    let file = ProjectionFile::parse(Path::new(&path), text).expect("a projection file");
    Arc::new(SqlProjection::new(file))
}

/// Runs `projections` over `source` until each has passed its head or stopped.
pub(crate) async fn run_to_head(
    database: &TestDatabase,
    source: Arc<dyn Source>,
    projections: Vec<Arc<dyn DynProjection>>,
) -> highwater::Result<Report> {
    let engine = Engine::new(database.pooled(), Settings::default()).source(source);
    let engine = projections.into_iter().fold(engine, Engine::projection);
    engine.run(Until::CaughtUp, CancellationToken::new()).await
}

/// Appends an event of type `T` for each version, as anybody's plain insert does, each in a
/// transaction of its own.
pub(crate) async fn append_rows(client: &Client, stream: &str, versions: RangeInclusive<i64>) {
    let rows: Vec<String> = versions
        .map(|version| {
            format!(
                "insert into highwater.event (stream, version, type, data) \
                 values ('{stream}', {version}, 'T', '{{\"n\": {version}}}'); commit;"
            )
        })
        .collect();
    client
        .batch_execute(&rows.join("\n"))
        .await
        .expect("plain inserts");
}

/// The one value that a query returns.
pub(crate) async fn one<T: for<'a> FromSql<'a>>(client: &Client, sql: &str) -> T {
    let row = client.query_one(sql, &[]).await;
    row.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
}

/// How many events there are of each stream, and the last of them.
pub(crate) const COUNTS: &str = "
-- highwater: up
create table counts (stream text primary key, n bigint not null, last bigint not null);
-- highwater: apply
insert into counts (stream, n, last)
select stream, count(*), max(position) from batch group by stream
on conflict (stream) do update set n = counts.n + excluded.n, last = excluded.last;
";

/// highwater's own event table as the source `default`, only polled.
pub(crate) fn table_source(database: &TestDatabase) -> Arc<dyn Source> {
    let table = EventTable::own();
    Arc::new(TableSource::new("default", database.pooled(), None, table))
}

/// Appends an event of type `T` without data.
pub(crate) async fn append(client: &Client, stream: &str, version: i64) {
    let sql = format!(
        "insert into highwater.event (stream, version, type, data) values ('{stream}', {version}, 'T', '{{}}')"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// Crashes a server that belongs to this test alone: one of its processes is killed, and so all of
/// its memory counts as spoilt. It starts again by itself, with what its log had on disk.
pub(crate) async fn crash(url: &str) {
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let opened = tokio_postgres::connect(url, tokio_postgres::NoTls).await;
        let (client, connection) = opened.unwrap();
        tokio::spawn(connection);
        sessions.push(client);
    }
    let row = sessions[0].query_one("select pg_backend_pid()", &[]).await;
    let pid = nix::unistd::Pid::from_raw(row.unwrap().get(0));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    // The server has noticed when it ends the other session, and from then on lets nobody in.
    while sessions[1].simple_query("select 1").await.is_ok() {}
}

/// Random numbers from a seed that is printed, so that a failure can be played again: set
/// `HIGHWATER_TEST_SEED` to it.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn seed() -> u64 {
        let given = std::env::var("HIGHWATER_TEST_SEED").ok();
        let seed = given.map_or_else(
            || {
                let since = std::time::UNIX_EPOCH.elapsed().unwrap();
                u64::from(since.subsec_nanos())
            },
            |text| text.parse().unwrap(),
        );
        println!("HIGHWATER_TEST_SEED={seed}");
        seed
    }

    /// The next number below `bound` (splitmix64).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
