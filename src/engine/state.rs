//! How a runner fares, shared between it and whoever watches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::name::ProjectionName;
use crate::position::Position;
use crate::runner_state::RunnerState;

/// How a runner fares.
#[derive(Clone, Debug)]
pub struct RunnerStatus {
    /// The projection.
    pub name: ProjectionName,
    /// The build of the read model, 0 before it is known.
    pub generation: i32,
    /// What it does.
    pub state: RunnerState,
    /// How far it is, filtered events included.
    pub position: Position,
    /// Where it wants to get: the mark, or the head that was fixed at the start.
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
pub(super) struct Shared(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    status: RunnerStatus,
    since: Instant,
    from: Position,
    /// When the position last moved.
    moved: Instant,
}

impl Inner {
    /// A live runner that nothing came to for a while has no rate; one that catches up may have a
    /// long batch in flight, and keeps that of the last.
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

impl Shared {
    pub(super) fn new(name: ProjectionName) -> Shared {
        Shared(Arc::new(Mutex::new(Inner {
            status: RunnerStatus {
                name,
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
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked left a whole status behind: each write is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> RunnerStatus {
        self.lock().at(Instant::now())
    }

    pub(super) fn set_state(&self, state: RunnerState) -> bool {
        let mut inner = self.lock();
        let changed = inner.status.state != state;
        inner.status.state = state;
        changed
    }

    pub(super) fn claimed(&self, generation: i32, epoch: i64, position: Position) {
        let mut inner = self.lock();
        inner.status.generation = generation;
        inner.status.epoch = epoch;
        inner.status.position = position;
        inner.from = position;
        inner.since = Instant::now();
    }

    pub(super) fn set_target(&self, target: Position) {
        self.lock().status.target = target;
    }

    pub(super) fn moved(&self, position: Position) {
        let mut inner = self.lock();
        inner.status.position = position;
        inner.status.last_error = None;
        inner.moved = Instant::now();
        let elapsed = inner.since.elapsed();
        inner.status.rate = position.since(inner.from) as f64 / elapsed.as_secs_f64().max(0.001);
        if elapsed >= RATE_WINDOW {
            inner.since = Instant::now();
            inner.from = position;
        }
    }

    pub(super) fn failed(&self, error: &crate::error::Error) {
        self.lock().status.last_error = Some(error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_runner_to_which_nothing_comes_has_no_rate() {
        let shared = Shared::new("counts".parse().unwrap());
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
