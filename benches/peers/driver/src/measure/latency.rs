//! How soon an event is visible: one writer, 100 events a second, from the return of its append to the first
//! moment at which another session sees the row.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tokio_postgres::Client;

use super::{Bench, RUN, percentile};
use crate::cluster::connect;
use crate::peer::Writing;
use crate::process::stop;
use crate::size::LATENCY_RATE;
use crate::workload;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Latency {
    pub events: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Never seen, though the projection had as long as `GRACE` after the last one.
    pub lost: usize,
}

const NAME: &str = "placed";
const GRACE: Duration = Duration::from_secs(11);
/// How many of the oldest unseen rows are asked for at once.
const WINDOW: usize = 50;

pub async fn take(bench: &Bench<'_>) -> Result<Latency> {
    let peer = bench.set_up(RUN).await?;
    let client = connect(&peer.url).await?;
    let projection = peer.project()?;
    bench.warm_up(&peer, &client, "warm").await?;

    let count = bench.size.latency.as_secs() as usize * LATENCY_RATE;
    let file = workload::placed(&bench.dir, NAME, count)?;
    let log = bench.dir.join("latency.log");
    let mut prober = Prober::new(client, count);
    let writing = Writing {
        rate: Some(LATENCY_RATE),
        log: Some(&log),
        ..Writing::default()
    };
    tokio::select! {
        written = peer.write(&file, &writing) => { written?; }
        failed = prober.watch() => failed?,
    }
    prober.settle().await?;
    stop(projection).await?;
    figures(&prober.seen, &log)
}

/// Asks every millisecond for the oldest rows that it has not seen.
struct Prober {
    client: Client,
    unseen: BTreeSet<usize>,
    /// Passed over by many later ones: asked for now and then, lest lost ones fill the window.
    late: BTreeSet<usize>,
    late_asked: Instant,
    /// When each was first seen, in seconds since 1970.
    seen: HashMap<String, f64>,
}

impl Prober {
    fn new(client: Client, count: usize) -> Prober {
        Prober {
            client,
            unseen: (0..count).collect(),
            late: BTreeSet::new(),
            late_asked: Instant::now(),
            seen: HashMap::new(),
        }
    }

    /// Goes on until dropped.
    async fn watch(&mut self) -> Result<()> {
        loop {
            self.look().await?;
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn settle(&mut self) -> Result<()> {
        let began = Instant::now();
        while !(self.unseen.is_empty() && self.late.is_empty()) && began.elapsed() < GRACE {
            self.look().await?;
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<()> {
        const QUERY: &str = "select stream from orders.order_summary where stream = any($1)";
        let mut asked: Vec<usize> = self.unseen.iter().copied().take(WINDOW).collect();
        if self.late_asked.elapsed() > Duration::from_millis(100) {
            self.late_asked = Instant::now();
            asked.extend(&self.late);
        }
        let names: HashMap<String, usize> = asked
            .into_iter()
            .map(|i| (workload::stream(NAME, i), i))
            .collect();
        let streams: Vec<&String> = names.keys().collect();
        let rows = self.client.query(QUERY, &[&streams]).await?;

        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let mut newest = 0;
        for row in rows {
            let stream: String = row.get(0);
            let i = names[&stream];
            self.unseen.remove(&i);
            self.late.remove(&i);
            self.seen.insert(stream, now);
            newest = newest.max(i);
        }
        let waiting = self.unseen.split_off(&newest.saturating_sub(WINDOW));
        self.late.append(&mut self.unseen);
        self.unseen = waiting;
        Ok(())
    }
}

fn figures(seen: &HashMap<String, f64>, log: &Path) -> Result<Latency> {
    let mut delays = Vec::new();
    let mut lost = 0;
    for line in fs::read_to_string(log)?.lines() {
        let mut fields = line.split(',');
        let stream = fields.next().context("an empty line in the writer's log")?;
        let committed: f64 = fields
            .next_back()
            .context("a log line without its time")?
            .parse()?;
        match seen.get(stream) {
            // Where the append itself keeps the read model, the row can be seen before the append returns.
            Some(at) => delays.push((at - committed / 1e9).max(0.0) * 1e3),
            None => lost += 1,
        }
    }
    delays.sort_by(f64::total_cmp);
    Ok(Latency {
        events: delays.len() + lost,
        p50_ms: percentile(&delays, 0.5),
        p99_ms: percentile(&delays, 0.99),
        max_ms: percentile(&delays, 1.0),
        lost,
    })
}
