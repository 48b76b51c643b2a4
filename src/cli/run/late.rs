//! The time that a run has, and why it was not enough.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::engine::Monitor;
use crate::error::Result;
use crate::name::ProjectionName;
use crate::status::{self, State};
use crate::wait::obstacle;

/// How long it may take to find out what blocks the projections, when the time is over already.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// The time that a run has.
pub(super) struct Clock {
    end: Option<Instant>,
    ran_out: Arc<AtomicBool>,
}

impl Clock {
    pub(super) fn start(limit: Option<Duration>) -> Clock {
        // A time that is too long to be counted has no end.
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        let ran_out = Arc::default();
        Clock { end, ran_out }
    }

    /// Waits until the time is over; for ever, if it has no end.
    pub(super) async fn over(&self) {
        match self.end {
            Some(end) => tokio::time::sleep_until(end.into()).await,
            None => std::future::pending().await,
        }
        self.ran_out.store(true, Ordering::SeqCst);
    }

    /// The exit code of a run that was cut short: by the clock or by a signal.
    pub(super) fn exit(&self) -> Exit {
        match self.ran_out.load(Ordering::SeqCst) {
            true => Exit::TimedOut,
            false => Exit::Done,
        }
    }

    #[cfg(test)]
    pub(super) fn run_out() -> Clock {
        let clock = Clock::start(None);
        clock.ran_out.store(true, Ordering::SeqCst);
        clock
    }
}

/// What blocked the projections when the time was over, as far as it is known.
#[derive(Default)]
pub(super) struct Obstacles(HashMap<ProjectionName, String>);

impl Obstacles {
    /// Reads the status while they still run. What it cannot read in time is not reported.
    pub(super) async fn read(ctx: &Context, monitor: &Monitor) -> Obstacles {
        let read = tokio::time::timeout(READ_LIMIT, read(ctx, monitor)).await;
        match read {
            Ok(Ok(obstacles)) => obstacles,
            Ok(Err(_)) | Err(_) => Obstacles::default(),
        }
    }

    /// Why the projection did not get further.
    pub(super) fn why(&self, name: &ProjectionName) -> String {
        let more = "it was making progress; run it again with more time to continue from there";
        self.0.get(name).cloned().unwrap_or_else(|| more.to_owned())
    }
}

async fn read(ctx: &Context, monitor: &Monitor) -> Result<Obstacles> {
    let sources = [ctx.source().await?];
    let status = status::read(&ctx.target().await?, &sources, &[]).await?;
    let mut obstacles = HashMap::new();
    for run in monitor.projections() {
        let Some(projection) = status.projection(run.name.as_str()) else {
            continue;
        };
        let source = status.source(&projection.source);
        let head = source.and_then(|s| s.head).unwrap_or(run.target);
        if let Some(why) = obstacle(projection, source, status.at, head) {
            obstacles.insert(run.name, why);
        } else if projection.state == State::Idle {
            let why = "it had just started; run again with a longer --timeout";
            obstacles.insert(run.name, why.to_owned());
        }
    }
    Ok(Obstacles(obstacles))
}
