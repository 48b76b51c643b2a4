//! How fast a new projection reads a long log.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{APPLIED, Bench, LOADED, RUN};
use crate::cluster::{connect, number};
use crate::peer::{AtWork, Writing};
use crate::process::stop;
use crate::size::STREAM_EVENTS;
use crate::workload;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CatchUp {
    pub events: i64,
    /// How many of them were in the read model at the end: fewer, where the time ran out.
    pub applied: i64,
    /// From the start of the process.
    pub seconds: f64,
}

impl CatchUp {
    pub fn rate(&self) -> f64 {
        self.applied as f64 / self.seconds
    }
}

/// A database with the whole log, appended by the peer itself, that each run gets a copy of.
pub async fn load<'a>(bench: &Bench<'a>) -> Result<AtWork<'a>> {
    let peer = bench.set_up(LOADED).await?;
    let file = workload::backlog(&bench.dir, bench.size.catch_up_streams)?;
    let writing = Writing {
        way: bench.peer.about.loads.as_deref(),
        ..Writing::default()
    };
    peer.write(&file, &writing)
        .await
        .context("loading the log")?;
    let client = connect(&peer.url).await?;
    client.batch_execute("vacuum analyze").await?;
    Ok(peer)
}

pub async fn take(bench: &Bench<'_>, loaded: &AtWork<'_>) -> Result<CatchUp> {
    let peer = loaded.moved_to(&bench.cluster.create(RUN, LOADED).await?);
    let client = connect(&peer.url).await?;
    let events = (bench.size.catch_up_streams * STREAM_EVENTS) as i64;

    let began = Instant::now();
    let projection = peer.project()?;
    let mut applied = 0;
    let mut seconds = 0.0;
    while applied < events && began.elapsed() < bench.size.catch_up_limit {
        let asked = Instant::now();
        applied = number(&client, APPLIED).await?;
        seconds = began.elapsed().as_secs_f64();
        // Counting must not take what is counted: a twentieth of one core at most.
        sleep((asked.elapsed() * 20).max(Duration::from_millis(5))).await;
    }
    stop(projection).await?;
    Ok(CatchUp {
        events,
        applied,
        seconds,
    })
}
