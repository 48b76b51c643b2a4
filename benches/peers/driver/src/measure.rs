//! The tests. Each one makes its database anew.

mod append_cost;
mod catch_up;
mod exactness;
mod latency;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tokio_postgres::Client;

pub use self::append_cost::AppendCost;
pub use self::catch_up::CatchUp;
pub use self::exactness::Exactness;
pub use self::latency::Latency;
use crate::cluster::{Cluster, number};
use crate::options::Home;
use crate::peer::{AtWork, Peer, Writing};
use crate::results::Measurement;
use crate::size::Size;
use crate::workload;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    CatchUp,
    Latency,
    Exactness,
    SlowCommits,
    AppendCost,
}

impl Test {
    pub const ALL: [(&'static str, Test); 5] = [
        ("catch-up", Test::CatchUp),
        ("latency", Test::Latency),
        ("exactness", Test::Exactness),
        ("slow-commits", Test::SlowCommits),
        ("append-cost", Test::AppendCost),
    ];
}

impl FromStr for Test {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Test> {
        let known = Test::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, test)| *test).with_context(|| {
            let names: Vec<&str> = Test::ALL.iter().map(|(name, _)| *name).collect();
            format!("no test {name}: {}", names.join(", "))
        })
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Test::ALL.iter().find(|(_, test)| test == self);
        f.write_str(known.map_or("?", |(name, _)| name))
    }
}

/// What one run of one test gave.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "test", rename_all = "kebab-case")]
pub enum Figures {
    CatchUp(CatchUp),
    Latency(Latency),
    Exactness(Exactness),
    /// The same with commits that take longer than any time-out should bet on.
    SlowCommits(Exactness),
    AppendCost(AppendCost),
}

impl Figures {
    pub fn test(&self) -> Test {
        match self {
            Figures::CatchUp(_) => Test::CatchUp,
            Figures::Latency(_) => Test::Latency,
            Figures::Exactness(_) => Test::Exactness,
            Figures::SlowCommits(_) => Test::SlowCommits,
            Figures::AppendCost(_) => Test::AppendCost,
        }
    }
}

/// One peer on one cluster.
pub struct Bench<'a> {
    cluster: &'a Cluster,
    peer: &'a Peer,
    size: Size,
    /// Workloads, logs and the peer's own files.
    dir: PathBuf,
}

/// The database in which each run happens.
const RUN: &str = "run";
/// The database that a run is a copy of.
const LOADED: &str = "loaded";
const EMPTY: &str = "template0";

impl<'a> Bench<'a> {
    pub fn new(home: &Home, cluster: &'a Cluster, peer: &'a Peer, size: Size) -> Bench<'a> {
        let dir = home.target.join("scratch");
        Bench {
            cluster,
            peer,
            size,
            dir,
        }
    }

    /// Takes `test` as often as said and hands over each measurement as soon as it is there.
    pub async fn take(
        &self,
        test: Test,
        runs: usize,
        mut add: impl FnMut(Measurement) -> Result<()>,
    ) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut found = |figures| {
            add(Measurement {
                peer: self.peer.name.clone(),
                version: self.peer.about.version.clone(),
                settings: self.peer.about.settings.clone(),
                at: Timestamp::now(),
                figures,
            })
        };
        match test {
            Test::CatchUp => {
                let loaded = catch_up::load(self).await?;
                for _ in 0..runs {
                    found(Figures::CatchUp(catch_up::take(self, &loaded).await?))?;
                }
            }
            Test::Latency => {
                for _ in 0..runs {
                    found(Figures::Latency(latency::take(self).await?))?;
                }
            }
            Test::Exactness => {
                for _ in 0..runs {
                    let exactness = exactness::take(self, exactness::PAUSE).await?;
                    found(Figures::Exactness(exactness))?;
                }
            }
            Test::SlowCommits => {
                for _ in 0..runs {
                    let exactness = exactness::take(self, exactness::LONG_PAUSE).await?;
                    found(Figures::SlowCommits(exactness))?;
                }
            }
            Test::AppendCost => {
                for _ in 0..runs {
                    for way in &self.peer.about.ways {
                        found(Figures::AppendCost(append_cost::take(self, way).await?))?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn set_up(&self, database: &str) -> Result<AtWork<'a>> {
        let url = self.cluster.create(database, EMPTY).await?;
        let peer = self.peer.on(&url, &self.dir.join(&self.peer.name))?;
        peer.setup().await.context("setup")?;
        Ok(peer)
    }

    /// Some events of their own reach the read model: from here on the projection is live. Not all of them
    /// have to, for some peers lose events with a single writer.
    async fn warm_up(&self, peer: &AtWork<'_>, client: &Client, name: &str) -> Result<()> {
        const EVENTS: i64 = 20;
        const LIMIT: Duration = Duration::from_secs(30);
        const SETTLED: Duration = Duration::from_secs(6);
        let before = number(client, APPLIED).await?;
        let file = workload::placed(&self.dir, name, EVENTS as usize)?;
        peer.write(&file, &Writing::default()).await?;
        let began = Instant::now();
        let mut arrived = 0;
        let mut moved = began;
        while arrived < EVENTS && (arrived == 0 || moved.elapsed() < SETTLED) {
            if began.elapsed() > LIMIT {
                bail!("none of the first events reached the read model in {LIMIT:?}");
            }
            sleep(Duration::from_millis(20)).await;
            let now = number(client, APPLIED).await? - before;
            if now > arrived {
                arrived = now;
                moved = Instant::now();
            }
        }
        Ok(())
    }
}

/// How many events the read model stands for.
const APPLIED: &str = "select coalesce(sum(events), 0)::bigint from orders.order_summary";

fn percentile(sorted: &[f64], part: f64) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        n => sorted[((n - 1) as f64 * part).round() as usize],
    }
}
