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
