//! Metric names, labels and units, each a constant described once.

use std::time::Duration;

use crate::error::ErrorKind;
use crate::name::ProjectionName;
use crate::runner_state::RunnerState;

/// Batches applied. Label `projection`.
pub const BATCHES: &str = "highwater_batches_total";
/// Positions passed by applied batches, holes included. Label `projection`.
pub const POSITIONS: &str = "highwater_positions_total";
/// Seconds from the start of a batch to its commit. Label `projection`.
pub const BATCH_SECONDS: &str = "highwater_batch_seconds";
/// Committed positions that a live runner may not read yet. Label `projection`.
pub const LAG: &str = "highwater_lag_events";
/// Attempts that failed. Labels `projection`, `kind`.
pub const FAILURES: &str = "highwater_failures_total";
/// 1 for the state a runner is in. Labels `projection`, `state`.
pub const STATE: &str = "highwater_runner_state";

/// Gives every metric its unit and description; call it after installing a recorder.
pub fn describe() {
    metrics::describe_counter!(BATCHES, metrics::Unit::Count, "Batches applied");
    metrics::describe_counter!(
        POSITIONS,
        metrics::Unit::Count,
        "Positions passed by batches"
    );
    metrics::describe_histogram!(BATCH_SECONDS, metrics::Unit::Seconds, "Time of a batch");
    metrics::describe_gauge!(
        LAG,
        metrics::Unit::Count,
        "Committed positions not read yet"
    );
    metrics::describe_counter!(FAILURES, metrics::Unit::Count, "Attempts that failed");
    metrics::describe_gauge!(STATE, metrics::Unit::Count, "1 for a runner's state");
}

pub(crate) fn batch(name: &ProjectionName, positions: u64, elapsed: Duration) {
    let label = name.to_string();
    metrics::counter!(BATCHES, "projection" => label.clone()).increment(1);
    metrics::counter!(POSITIONS, "projection" => label.clone()).increment(positions);
    metrics::histogram!(BATCH_SECONDS, "projection" => label).record(elapsed.as_secs_f64());
}

pub(crate) fn lag(name: &ProjectionName, events: u64) {
    metrics::gauge!(LAG, "projection" => name.to_string()).set(events as f64);
}

pub(crate) fn failure(name: &ProjectionName, kind: ErrorKind) {
    metrics::counter!(FAILURES, "projection" => name.to_string(), "kind" => kind.as_str())
        .increment(1);
}

pub(crate) fn state(name: &ProjectionName, now: RunnerState) {
    for state in RunnerState::ALL {
        let value = if state == now { 1.0 } else { 0.0 };
        metrics::gauge!(STATE, "projection" => name.to_string(), "state" => state.as_str())
            .set(value);
    }
}
