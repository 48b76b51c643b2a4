//! What is watched while it runs: stand-stills, take-overs, instances that end by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use crate::arena::Arena;
use crate::journal::locked;

const LOOK_AGAIN: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(5);
/// A take-over that takes longer is reported as this long.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(60);

/// How long a projection did not move although events waited.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StandStill {
    pub(crate) began: Duration,
    pub(crate) length: Duration,
    /// The longest time while the server was there throughout; another one, maybe.
    pub(crate) with_server: Duration,
}

/// One projection as it was last seen.
struct Seen {
    position: i64,
    since: Duration,
}

/// Looks at every projection, until it is aborted.
pub(crate) async fn stand_stills(arena: Arc<Arena>) {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    loop {
        if let Ok(client) = arena.address.connect().await {
            let up_since = arena.journal.elapsed();
            while let Ok(Ok(())) =
                timeout(PATIENCE, poll(&arena, &client, up_since, &mut seen)).await
            {
                sleep(LOOK_AGAIN).await;
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn poll(
    arena: &Arena,
    client: &Client,
    up_since: Duration,
    seen: &mut BTreeMap<String, Seen>,
) -> Result<(), tokio_postgres::Error> {
    let sql = "select p.name, p.paused_at is not null, min(c.position),
                      (select coalesce(max(position), 0) from highwater.event)
                 from highwater.projection p
                 join highwater.checkpoint c on c.projection = p.name and c.generation = p.generation
                group by p.name";
    for row in client.query(sql, &[]).await? {
        let (name, is_paused): (String, bool) = (row.get(0), row.get(1));
        let (position, head): (i64, i64) = (row.get(2), row.get(3));
        let now = arena.journal.elapsed();
        let known = seen.entry(name.clone()).or_insert(Seen {
            position,
            since: now,
        });
        let moved = position != known.position;
        if moved && !is_paused {
            let length = now.saturating_sub(known.since);
            let with_server = now.saturating_sub(known.since.max(up_since));
            let mut tally = locked(&arena.tally);
            let longest = tally.stand_stills.entry(name).or_default();
            longest.with_server = longest.with_server.max(with_server);
            if length > longest.length {
                (longest.began, longest.length) = (known.since, length);
            }
        }
        if moved || is_paused || position >= head {
            *known = Seen {
                position,
                since: now,
            };
        }
    }
    Ok(())
}

/// Measures how long it takes until everything that an instance has is another's, or its own again
/// under a new epoch. Nothing is reported if the server went down meanwhile.
pub(crate) async fn take_over(arena: Arc<Arena>, pid: i32, how: &'static str) {
    let before = arena.outages();
    let began = Instant::now();
    let Ok(client) = arena.address.connect().await else {
        return;
    };
    let owned = format!(
        "select c.projection, c.partition, c.layout, c.epoch
           from highwater.checkpoint c join highwater.instance i on i.id = c.owner
          where i.pid = {pid}"
    );
    let Ok(rows) = client.query(&owned, &[]).await else {
        return;
    };
    let mut left: Vec<(String, i32, i32, i64)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect();
    if left.is_empty() {
        return;
    }
    while !left.is_empty() && began.elapsed() < TAKE_OVER_LIMIT {
        let sql = "select c.projection, c.partition, c.layout, c.epoch
                     from highwater.checkpoint c join highwater.projection p on p.name = c.projection
                    where p.paused_at is null and c.drain_at is null";
        let Ok(rows) = client.query(sql, &[]).await else {
            return;
        };
        let now: Vec<(String, i32, i32, i64)> = rows
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
            .collect();
        left.retain(|one| now.contains(one));
        sleep(Duration::from_millis(20)).await;
    }
    if arena.outages() == before {
        let mut tally = locked(&arena.tally);
        tally
            .take_overs
            .entry(how)
            .or_default()
            .push(began.elapsed());
    }
}

/// Starts again what ended by itself, as an operator does, and records it.
pub(crate) async fn keep_running(arena: Arc<Arena>) {
    loop {
        sleep(Duration::from_millis(500)).await;
        for instance in &arena.instances {
            let Ok(mut instance) = instance.try_lock() else {
                continue;
            };
            let Ok(Some(code)) = instance.has_ended() else {
                continue;
            };
            arena.ended(instance.number, code);
            if let Err(error) = instance.start(&arena.project).await {
                arena.violation(format!(
                    "instance {} cannot start: {error}",
                    instance.number
                ));
            }
        }
    }
}
