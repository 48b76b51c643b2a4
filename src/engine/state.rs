//! The state of runners and projections, shared with those that watch it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::error::Error;
use crate::metrics;
use crate::name::ProjectionName;
use crate::position::Position;
use crate::runner_state::RunnerState;

/// The status of a runner.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunnerStatus {
    /// The projection.
    pub name: ProjectionName,
    /// The partition, from 0.
    pub partition: i32,
    /// The build of the read model, 0 before it is known.
    pub generation: i32,
    /// What it does.
    pub state: RunnerState,
    /// How far it is, filtered events included.
    pub position: Position,
    /// Its target: the mark, or the head that was fixed at the start.
    pub target: Position,
    /// Positions passed per second, over the last seconds.
    pub rate: f64,
    /// The epoch it holds, 0 before the claim.
    pub epoch: i64,
    /// The last error, until a batch succeeds.
    pub last_error: Option<String>,
}

/// A status that its runner writes and others read.
#[derive(Clone, Debug)]
pub(super) struct SharedStatus {
    inner: Arc<Mutex<Inner>>,
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    status: RunnerStatus,
    since: Instant,
    from: Position,
    /// When the position last moved.
    moved: Instant,
}

impl Inner {
    /// A live runner without new events for a while has no rate; one that catches up may have a
    /// long batch in flight, and keeps its last rate.
    fn at(&self, now: Instant) -> RunnerStatus {
        let mut status = self.status.clone();
        if status.state == RunnerState::Live && now.duration_since(self.moved) > RATE_WINDOW {
            status.rate = 0.0;
        }
        status
    }
}

/// Over how long the rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(2);

impl SharedStatus {
    fn new(name: ProjectionName, partition: i32, changes: watch::Sender<()>) -> SharedStatus {
        let inner = Inner {
            status: RunnerStatus {
                name,
                partition,
                generation: 0,
                state: RunnerState::Starting,
                position: Position::START,
                target: Position::START,
                rate: 0.0,
                epoch: 0,
                last_error: None,
            },
            since: Instant::now(),
            from: Position::START,
            moved: Instant::now(),
        };
        SharedStatus {
            inner: Arc::new(Mutex::new(inner)),
            changes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic leaves a complete status behind: each write is one assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changes.send_replace(());
        changed
    }

    pub(super) fn get(&self) -> RunnerStatus {
        self.lock().at(Instant::now())
    }

    pub(super) fn set_state(&self, state: RunnerState) -> bool {
        self.change(|inner| std::mem::replace(&mut inner.status.state, state) != state)
    }

    pub(super) fn claimed(&self, generation: i32, epoch: i64, position: Position) {
        self.change(|inner| {
            inner.status.generation = generation;
            inner.status.epoch = epoch;
            inner.status.position = position;
            inner.from = position;
            inner.since = Instant::now();
        });
    }

    pub(super) fn set_target(&self, target: Position) {
        self.change(|inner| inner.status.target = target);
    }

    pub(super) fn moved(&self, position: Position) {
        self.change(|inner| inner.moved_to(position));
    }

    pub(super) fn failed(&self, error: &Error) {
        self.change(|inner| inner.status.last_error = Some(error.to_string()));
    }

    /// An error has stopped the runner: the log says so.
    pub(super) fn stopped(&self, error: &Error) {
        self.failed(error);
        self.set_state(RunnerState::Stopped);
        log_stop(&self.get().name, error);
    }
}

/// The only place that logs a stop.
fn log_stop(name: &ProjectionName, error: &Error) {
    metrics::state(name, RunnerState::Stopped);
    tracing::error!(projection = %name, kind = %error.kind(), error = %error, "stopped");
}

impl Inner {
    fn moved_to(&mut self, position: Position) {
        // A checkpoint that was read again says nothing about the error.
        if position > self.status.position {
            self.status.last_error = None;
        }
        self.status.position = position;
        self.moved = Instant::now();
        let elapsed = self.since.elapsed();
        self.status.rate = position.since(self.from) as f64 / elapsed.as_secs_f64().max(0.001);
        if elapsed >= RATE_WINDOW {
            self.since = Instant::now();
            self.from = position;
        }
    }
}

/// The status of a projection in this process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProjectionProgress {
    /// The projection.
    pub name: ProjectionName,
    /// What it does: of several runners, the state that needs attention most.
    pub state: RunnerState,
    /// How far it is: the partition that is furthest behind.
    pub position: Position,
    /// Its target.
    pub target: Position,
    /// Positions passed per second, by the partition that is furthest behind.
    pub rate: f64,
    /// The last error, until a batch succeeds.
    pub last_error: Option<String>,
    /// The runners that this process has of it.
    pub runners: Vec<RunnerStatus>,
}

/// A projection's progress: its supervisor and its runners write it, others read.
#[derive(Clone, Debug)]
pub(super) struct SharedProgress {
    inner: Arc<Mutex<ProjectionState>>,
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct ProjectionState {
    name: ProjectionName,
    /// The state of the projection where no runner reports it.
    state: RunnerState,
    position: Position,
    target: Position,
    last_error: Option<String>,
    /// Others share its partitions with this process.
    able: bool,
    runners: BTreeMap<i32, SharedStatus>,
}

impl SharedProgress {
    pub(super) fn new(name: ProjectionName) -> SharedProgress {
        let inner = ProjectionState {
            name,
            state: RunnerState::Starting,
            position: Position::START,
            target: Position::START,
            last_error: None,
            able: false,
            runners: BTreeMap::new(),
        };
        SharedProgress {
            inner: Arc::new(Mutex::new(inner)),
            changes: watch::Sender::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ProjectionState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut ProjectionState) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changes.send_replace(());
        changed
    }

    /// Is woken by each change.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(super) fn get(&self) -> ProjectionProgress {
        let inner = self.lock();
        let runners: Vec<RunnerStatus> = inner.runners.values().map(SharedStatus::get).collect();
        let behind = runners.iter().min_by_key(|runner| runner.position);
        let state = runners.iter().map(|runner| runner.state);
        let mut errors = runners
            .iter()
            .filter_map(|runner| runner.last_error.clone());
        let ended = inner.state == RunnerState::Stopped;
        ProjectionProgress {
            name: inner.name.clone(),
            state: state
                .max_by_key(|state| state.urgency())
                .filter(|_| !ended)
                .unwrap_or(inner.state),
            position: behind.map_or(inner.position, |runner| runner.position),
            target: behind.map_or(inner.target, |runner| runner.target),
            rate: behind.map_or(0.0, |runner| runner.rate),
            last_error: inner.last_error.clone().or_else(|| errors.next_back()),
            runners,
        }
    }

    /// The name, if this process can run the projection.
    pub(super) fn able(&self) -> Option<String> {
        let inner = self.lock();
        let able = inner.able && inner.state != RunnerState::Stopped;
        able.then(|| inner.name.to_string())
    }

    /// The read model is there: others share its partitions with this process.
    pub(super) fn able_to_run(&self) {
        self.change(|inner| {
            inner.able = true;
            inner.last_error = None;
        });
    }

    /// The run of it is over.
    pub(super) fn over(&self) {
        self.change(|inner| inner.able = false);
    }

    pub(super) fn runners(&self) -> Vec<RunnerStatus> {
        self.lock()
            .runners
            .values()
            .map(SharedStatus::get)
            .collect()
    }

    pub(super) fn set_state(&self, state: RunnerState) {
        self.change(|inner| inner.state = state);
    }

    pub(super) fn failed(&self, error: &Error) {
        self.change(|inner| inner.last_error = Some(error.to_string()));
    }

    /// The run of it was stopped by an error: the log says so, unless it has, for a runner.
    pub(super) fn stopped(&self, error: &Error) {
        self.failed(error);
        self.set_state(RunnerState::Stopped);
        let told = |runner: &RunnerStatus| {
            let last_error = runner.last_error.as_deref();
            runner.state == RunnerState::Stopped && last_error == Some(&error.to_string())
        };
        if !self.runners().iter().any(told) {
            log_stop(&self.lock().name, error);
        }
    }

    /// The position of the projection, by its checkpoints. The view of them may be older than what
    /// a runner here has reported.
    pub(super) fn set_position(&self, position: Position, target: Position) {
        self.change(|inner| {
            inner.position = inner.position.max(position);
            inner.target = target;
        });
    }

    pub(super) fn add(&self, partition: i32) -> SharedStatus {
        self.change(|inner| {
            let shared = SharedStatus::new(inner.name.clone(), partition, self.changes.clone());
            inner.runners.insert(partition, shared.clone());
            shared
        })
    }

    pub(super) fn remove(&self, partition: i32) {
        self.change(|inner| {
            if let Some(shared) = inner.runners.remove(&partition) {
                let last = shared.get();
                inner.position = last.position;
                inner.target = last.target;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_runner_to_which_nothing_comes_has_no_rate() {
        let shared = SharedStatus::new("counts".parse().unwrap(), 0, watch::Sender::new(()));
        shared.moved(Position::new(1_000));
        let rate = |after: Duration| {
            let inner = shared.lock();
            inner.at(inner.moved + after).rate
        };
        let long = RATE_WINDOW * 2;
        shared.set_state(RunnerState::CatchingUp);
        assert!(rate(long) > 0.0);
        shared.set_state(RunnerState::Live);
        assert!(rate(Duration::ZERO) > 0.0);
        assert_eq!(rate(long).to_bits(), 0);
    }
}
