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
