//! Clients that append a workload and tell when each append was committed.

use std::fs::File;
use std::future::Future;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::workload::{self, Append};

/// A client: appends one transaction at a time.
pub trait Writer: Send + 'static {
    fn append(&mut self, append: &Append) -> impl Future<Output = Result<()>> + Send;
}

/// How a workload is appended.
#[derive(Debug)]
pub struct Plan {
    pub file: PathBuf,
    /// Appends a second of each client; without it, as fast as they go.
    pub rate: Option<f64>,
    /// Stop after this long; without it, at the end of the file.
    pub limit: Option<Duration>,
    /// Where each committed append is noted.
    pub log: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Report {
    pub committed: usize,
    /// Attempts that failed and were made again.
    pub failed: usize,
    pub seconds: f64,
}

struct Commit {
    stream: String,
    first: u32,
    count: usize,
    unix_nanos: u128,
}

/// What one client did.
#[derive(Default)]
struct Done {
    commits: Vec<Commit>,
    failed: usize,
    refused: Option<anyhow::Error>,
}

/// The most attempts at one append. A peer that refuses as many is broken, not unlucky.
const ATTEMPTS_MAX: usize = 1_000;

/// Appends the file of `plan` with one writer per client, all of them connected before the first begins.
pub async fn write<W: Writer>(
    plan: &Plan,
    mut connect: impl AsyncFnMut() -> Result<W>,
) -> Result<Report> {
    let clients = workload::read(&plan.file)?;
    let mut ready = Vec::new();
    for appends in clients {
        ready.push((connect().await?, appends));
    }

    let began = Instant::now();
    let mut running = JoinSet::new();
    for (writer, appends) in ready {
        running.spawn(client(writer, appends, began, plan.rate, plan.limit));
    }
    let mut report = Report::default();
    let mut commits = Vec::new();
    let mut refused = None;
    while let Some(done) = running.join_next().await {
        let mut done = done??;
        report.failed += done.failed;
        commits.append(&mut done.commits);
        refused = refused.or(done.refused);
    }
    if let Some(e) = refused {
        eprintln!("{} attempts refused, one of them: {e:#}", report.failed);
    }
    report.seconds = began.elapsed().as_secs_f64();
    report.committed = commits.len();
    if let Some(log) = &plan.log {
        save(log, &commits)?;
    }
    Ok(report)
}

async fn client<W: Writer>(
    mut writer: W,
    appends: Vec<Append>,
    began: Instant,
    rate: Option<f64>,
    limit: Option<Duration>,
) -> Result<Done> {
    let mut done = Done::default();
    for (i, append) in appends.iter().enumerate() {
        if let Some(rate) = rate {
            sleep_until((began + Duration::from_secs_f64(i as f64 / rate)).into()).await;
        }
        for attempt in 1.. {
            if limit.is_some_and(|limit| began.elapsed() >= limit) {
                return Ok(done);
            }
            match writer.append(append).await {
                Ok(()) => break,
                Err(e) if attempt == ATTEMPTS_MAX => bail!("append refused for good: {e:#}"),
                Err(e) => {
                    done.refused.get_or_insert(e);
                    done.failed += 1;
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
        done.commits.push(Commit {
            stream: append.stream.clone(),
            first: append.first,
            count: append.events.len(),
            unix_nanos: SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos(),
        });
    }
    Ok(done)
}

/// One line per append: stream, first version, number of events, when its commit had returned.
fn save(log: &Path, commits: &[Commit]) -> Result<()> {
    let mut out = BufWriter::new(File::create(log)?);
    for c in commits {
        writeln!(out, "{},{},{},{}", c.stream, c.first, c.count, c.unix_nanos)?;
    }
    Ok(out.flush()?)
}
