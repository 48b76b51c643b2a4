//! Whether every committed event reaches the read model once and in order, while 16 writers commit slowly,
//! some roll back, and an unrelated transaction stays open.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::SinkExt;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tokio_postgres::Client;

use super::{Bench, RUN};
use crate::cluster::{connect, number};
use crate::peer::Writing;
use crate::process::stop;
use crate::workload;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Exactness {
    pub transactions: i64,
    pub seconds: f64,
    pub events: i64,
    pub missed: i64,
    pub doubled: i64,
    pub out_of_order: i64,
    /// Reached the read model, but no writer knows of their commit.
    pub unknown: i64,
    /// The longest time in which nothing reached the read model.
    pub standstill_seconds: f64,
    pub behind_p50_seconds: f64,
    pub behind_max_seconds: f64,
}

/// How long the projection may stand still at the end before what is missing counts as missed.
const GRACE: Duration = Duration::from_secs(12);

/// The longest that a writer waits before its commit.
pub const PAUSE: Duration = Duration::from_millis(200);
pub const LONG_PAUSE: Duration = Duration::from_secs(3);

pub async fn take(bench: &Bench<'_>, pause: Duration) -> Result<Exactness> {
    let peer = bench.set_up(RUN).await?;
    let client = connect(&peer.url).await?;
    let projection = peer.project()?;
    bench.warm_up(&peer, &client, "warm").await?;
    let pauses = include_str!("../../../sql/pauses.sql")
        .replace("{table}", &bench.peer.about.events)
        .replace("{seconds}", &pause.as_secs_f64().to_string());
    client.batch_execute(&pauses).await?;
    client
        .batch_execute(include_str!("../../../sql/journal.sql"))
        .await?;

    let length = bench.size.exactness;
    // A pause is 100 ms in the middle: no client gets through more than 30 a second.
    let each = length.as_secs() as usize * 30;
    let file = workload::one_to_three(&bench.dir, "slow", each)?;
    let log = bench.dir.join("exactness.log");
    let writing = Writing {
        limit: Some(length),
        log: Some(&log),
        ..Writing::default()
    };
    let bystander = connect(&peer.url).await?;
    let (report, _) = tokio::try_join!(
        peer.write(&file, &writing),
        hold_a_transaction(bystander, length / 4, length / 2)
    )?;
    copy_committed(&client, &log).await?;
    settle(&client).await?;
    stop(projection).await?;
    verdict(&client, report.seconds).await
}

/// A write transaction that has nothing to do with events, as any application has.
async fn hold_a_transaction(mut client: Client, after: Duration, length: Duration) -> Result<()> {
    sleep(after).await;
    let transaction = client.transaction().await?;
    transaction
        .execute("insert into unrelated values (1)", &[])
        .await?;
    sleep(length).await;
    transaction.commit().await?;
    Ok(())
}

async fn copy_committed(client: &Client, log: &Path) -> Result<()> {
    let text = fs::read(log).context("the writer's log")?;
    let sink = client
        .copy_in("copy committed from stdin (format csv)")
        .await?;
    let mut sink = Box::pin(sink);
    sink.send(std::io::Cursor::new(text)).await?;
    sink.close().await?;
    Ok(())
}

async fn settle(client: &Client) -> Result<()> {
    const COMMITTED: &str = "select coalesce(sum(count), 0)::bigint from committed";
    const ARRIVED: &str = "select coalesce(sum(last - first + 1), 0)::bigint from applied";
    let committed = number(client, COMMITTED).await?;
    let mut arrived = number(client, ARRIVED).await?;
    let mut moved = Instant::now();
    while arrived < committed && moved.elapsed() < GRACE {
        sleep(Duration::from_millis(100)).await;
        let now = number(client, ARRIVED).await?;
        if now > arrived {
            arrived = now;
            moved = Instant::now();
        }
    }
    Ok(())
}

async fn verdict(client: &Client, seconds: f64) -> Result<Exactness> {
    let row = client
        .query_one(include_str!("../../../sql/verdict.sql"), &[])
        .await?;
    Ok(Exactness {
        seconds,
        transactions: row.get("transactions"),
        events: row.get("events"),
        missed: row.get("missed"),
        doubled: row.get("doubled"),
        out_of_order: row.get("out_of_order"),
        unknown: row.get("unknown"),
        standstill_seconds: row.get("standstill_seconds"),
        behind_p50_seconds: row.get("behind_p50_seconds"),
        behind_max_seconds: row.get("behind_max_seconds"),
    })
}
