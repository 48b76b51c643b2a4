//! What many tests share.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::projection::file::ProjectionFile;
use highwater::projection::{Runnable, SqlProjection};
use highwater::source::table::{EventTable, TableSource};
use highwater::testing::TestDatabase;
use tokio_postgres::Client;
use tokio_postgres::types::FromSql;

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
pub(crate) fn sql_projection(name: &str, text: &str) -> Arc<dyn Runnable> {
    let path = format!("projections/{name}.sql");
    let file = ProjectionFile::parse(Path::new(&path), text).expect("a projection file");
    Arc::new(SqlProjection::new(file))
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
pub(crate) fn table_source(database: &TestDatabase) -> Arc<TableSource> {
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
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let row = client.query_one("select pg_backend_pid()", &[]).await;
    let pid = nix::unistd::Pid::from_raw(row.unwrap().get(0));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    // Dead, and not only asked to be: the session ends.
    while client.simple_query("select 1").await.is_ok() {}
}
