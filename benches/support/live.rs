//! Live engines, and what is counted of them.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use highwater::internal::engine::Engine;
use highwater::{Error, ErrorKind, Result, Until};
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Db, failed};

/// An engine in this process.
pub(crate) struct LiveEngine {
    stop: CancellationToken,
    task: JoinHandle<Result<highwater::Report>>,
}

impl LiveEngine {
    pub(crate) fn start(engine: Engine) -> LiveEngine {
        let stop = CancellationToken::new();
        let task = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
        LiveEngine { stop, task }
    }

    /// Drains it. An error if a projection had stopped.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        let report = self.task.await.map_err(failed)??;
        match report.outcomes.iter().find_map(|(_, o)| o.error()) {
            Some(error) => Err(Error::new(error.kind(), error.to_string())),
            None => Ok(()),
        }
    }

    /// Ends it as a kill would: nothing is given back.
    pub(crate) fn abort(&self) {
        self.task.abort();
    }

    pub(crate) async fn ended(self) {
        let _ = self.task.await;
    }

    /// Asks it to drain, and does not wait.
    pub(crate) fn drain(&self) {
        self.stop.cancel();
    }
}

/// `highwater run` in a process of its own.
pub(crate) struct LiveProcess(Child);

impl LiveProcess {
    /// Runs what stands in `directory`.
    pub(crate) fn start(db: &Db, directory: &Path) -> Result<LiveProcess> {
        let mut command = db.command(directory, &["run"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(LiveProcess(command.spawn().map_err(failed)?))
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.0.id().and_then(|pid| pid.try_into().ok())
    }

    /// Ends it; nothing that it does then counts.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.0.kill().await.map_err(failed)
    }
}

/// Waits until so many checkpoints are live and at the head.
pub(crate) async fn at_head(db: &Db, checkpoints: i64) -> Result<()> {
    let client = db.client().await?;
    let sql = "select count(*) from highwater.checkpoint
                where owner is not null
                  and position >= (select coalesce(max(position), 0) from highwater.event)";
    until(
        Duration::from_secs(60),
        "the projections at the head",
        || async {
            match client.query_one(sql, &[]).await {
                Ok(row) => Ok(row.get::<_, i64>(0) >= checkpoints),
                Err(error) => Err(failed(error)),
            }
        },
    )
    .await
}

/// Asks every 2 ms whether it is so.
pub(crate) async fn until<F>(limit: Duration, what: &str, is_so: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let asked = async {
        while !is_so().await? {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(asked) => asked,
        Err(_) => {
            let what = format!("waited {} s in vain for {what}", limit.as_secs());
            Err(Error::new(ErrorKind::TimedOut, what))
        }
    }
}

/// Counts the wakes that arrive.
pub(crate) struct Wakes(Arc<AtomicU64>);

impl Wakes {
    pub(crate) async fn count(db: &Db) -> Result<Wakes> {
        let database = db.pooled(&highwater::internal::engine::Settings::default())?;
        let mut arrived = database.connector().listen("highwater_wake").await?;
        let count = Arc::new(AtomicU64::new(0));
        let counting = count.clone();
        tokio::spawn(async move {
            while arrived.recv().await.is_ok() {
                counting.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Wakes(count))
    }

    pub(crate) fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The quantile `q` of samples, in milliseconds.
pub(crate) fn quantile(samples: &mut [Duration], q: f64) -> f64 {
    samples.sort_unstable();
    let last = samples.len().saturating_sub(1);
    let at = (last as f64 * q).round() as usize;
    samples.get(at).map_or(f64::NAN, |s| s.as_secs_f64() * 1e3)
}
