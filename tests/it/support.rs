//! What many tests share.

use std::time::{Duration, Instant};

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
