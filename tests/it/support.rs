//! What many tests share.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::projection::file::ProjectionFile;
use highwater::projection::{Runnable, SqlProjection};
use highwater::source::table::{EventTable, TableSource};
use highwater::testing::TestDatabase;
use tokio_postgres::Client;

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

/// A SQL projection from its text.
pub(crate) fn sql(name: &str, text: &str) -> Arc<dyn Runnable> {
    Arc::new(SqlProjection::new(file(name, text)))
}

/// A projection's file from its text.
pub(crate) fn file(name: &str, text: &str) -> ProjectionFile {
    ProjectionFile::parse(Path::new(&format!("projections/{name}.sql")), text).unwrap()
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
