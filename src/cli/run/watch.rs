//! The progress of a run: a bar for each projection, or lines in the log.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::task::JoinHandle;

use crate::cli::text::{at, seconds, thousands};
use crate::cli::ui::Ui;
use crate::engine::{Monitor, ProjectionProgress, RunnerState};
use crate::position::Position;

const DRAW_PAUSE: Duration = Duration::from_millis(100);
/// How often the log reports a projection that catches up.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// Watches the runners of an engine until it is stopped.
pub(in crate::cli) struct Watch {
    task: JoinHandle<()>,
    bars: Vec<ProgressBar>,
}

impl Watch {
    /// Shows bars on a terminal, else writes to the log.
    pub(in crate::cli) fn start(monitor: Monitor, ui: &Ui) -> Watch {
        if !ui.shows_bars() {
            return Watch {
                task: tokio::spawn(log(monitor)),
                bars: Vec::new(),
            };
        }
        let statuses = monitor.projections();
        let width = statuses
            .iter()
            .map(|status| status.name.as_str().len())
            .max();
        let bars: Vec<ProgressBar> = statuses
            .iter()
            .map(|status| {
                let bar = ui.bar("{prefix} {bar:24} {msg}");
                bar.set_prefix(format!(
                    "{:width$}",
                    status.name.as_str(),
                    width = width.unwrap_or(0)
                ));
                bar
            })
            .collect();
        Watch {
            task: tokio::spawn(draw(monitor, bars.clone())),
            bars,
        }
    }

    /// Removes the bars.
    pub(in crate::cli) fn end(self) {
        self.task.abort();
        for bar in self.bars {
            bar.finish_and_clear();
        }
    }
}

async fn draw(monitor: Monitor, bars: Vec<ProgressBar>) {
    loop {
        for (status, bar) in monitor.projections().iter().zip(&bars) {
            let text = describe(status);
            // What has not changed is not drawn again.
            if bar.message() != text {
                bar.set_length(status.target.since(Position::START));
                bar.set_position(status.position.since(Position::START));
                bar.set_message(text);
            }
        }
        tokio::time::sleep(DRAW_PAUSE).await;
    }
}

fn describe(status: &ProjectionProgress) -> String {
    let position = at(status.position);
    let behind = status.target.since(status.position);
    if status.state != RunnerState::CatchingUp || behind == 0 {
        return format!("{position} {}", status.state);
    }
    let target = at(status.target);
    let rate = whole(status.rate);
    match eta(behind, status.rate) {
        Some(eta) => format!(
            "{position}/{target} {} {}/s eta {}",
            status.state,
            thousands(rate),
            seconds(eta)
        ),
        None => format!("{position}/{target} {}", status.state),
    }
}

fn eta(behind: u64, rate: f64) -> Option<Duration> {
    if rate < 1.0 {
        return None;
    }
    Duration::try_from_secs_f64((behind as f64 / rate).ceil()).ok()
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is neither negative nor near the end of the numbers"
)]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

/// A line when a projection is live for the first time, and now and then while one catches up.
async fn log(monitor: Monitor) {
    let mut live: Vec<bool> = Vec::new();
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(DRAW_PAUSE).await;
        let statuses = monitor.projections();
        live.resize(statuses.len(), false);
        for (status, live) in statuses.iter().zip(&mut live) {
            if status.state == RunnerState::Live && !*live {
                *live = true;
                tracing::info!(projection = %status.name, position = status.position.get(), "live");
            }
        }
        if last.elapsed() < LOG_PAUSE {
            continue;
        }
        last = Instant::now();
        for status in statuses
            .iter()
            .filter(|s| s.state == RunnerState::CatchingUp)
        {
            tracing::info!(
                projection = %status.name,
                position = status.position.get(),
                target = status.target.get(),
                rate_per_second = whole(status.rate),
                eta_seconds = eta(status.target.since(status.position), status.rate).map(|eta| eta.as_secs()),
                "catching up"
            );
        }
    }
}
