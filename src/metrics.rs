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
/// Seconds of a phase of a batch. Labels `projection`, `phase` ([`Phase`]).
pub const PHASE_SECONDS: &str = "highwater_batch_phase_seconds";
/// Round trips to the server for batches, opening of sessions aside. Label `projection`.
pub const ROUND_TRIPS: &str = "highwater_batch_round_trips_total";
/// Seconds of a step of a source's reader: new rows, and the locks at a gap. Label `source`.
pub const STEP_SECONDS: &str = "highwater_source_step_seconds";
/// Committed positions that a live runner may not read yet. Label `projection`.
pub const LAG: &str = "highwater_lag_events";
/// Attempts that failed. Labels `projection`, `kind`.
pub const FAILURES: &str = "highwater_failures_total";
/// 1 for the state a runner is in. Labels `projection`, `state`.
pub const STATE: &str = "highwater_runner_state";

/// What a batch spends its time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Events are read out of the source, where the server does not read them by itself.
    Read,
    /// The transaction is opened and the checkpoint moves.
    Checkpoint,
    /// The projection's own statements or code.
    Apply,
    /// The commit, and the way to the server and back.
    Commit,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Phase; 4] = [Phase::Read, Phase::Checkpoint, Phase::Apply, Phase::Commit];

    /// As the label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Read => "read",
            Phase::Checkpoint => "checkpoint",
            Phase::Apply => "apply",
            Phase::Commit => "commit",
        }
    }
}

/// Gives every metric its unit and description; call it after installing a recorder.
pub fn describe() {
    metrics::describe_counter!(BATCHES, metrics::Unit::Count, "Batches applied");
    metrics::describe_counter!(
        POSITIONS,
        metrics::Unit::Count,
        "Positions passed by batches"
    );
    metrics::describe_histogram!(BATCH_SECONDS, metrics::Unit::Seconds, "Time of a batch");
    metrics::describe_histogram!(
        PHASE_SECONDS,
        metrics::Unit::Seconds,
        "Time of a phase of a batch"
    );
    metrics::describe_counter!(ROUND_TRIPS, metrics::Unit::Count, "Round trips for batches");
    metrics::describe_histogram!(
        STEP_SECONDS,
        metrics::Unit::Seconds,
        "Time of a step of a reader"
    );
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

pub(crate) fn phase(name: &ProjectionName, phase: Phase, took: Duration) {
    metrics::histogram!(PHASE_SECONDS, "projection" => name.to_string(), "phase" => phase.as_str())
        .record(took.as_secs_f64());
}

pub(crate) fn round_trips(name: &ProjectionName, count: u64) {
    metrics::counter!(ROUND_TRIPS, "projection" => name.to_string()).increment(count);
}

pub(crate) fn step(source: &str, took: Duration) {
    metrics::histogram!(STEP_SECONDS, "source" => source.to_owned()).record(took.as_secs_f64());
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
