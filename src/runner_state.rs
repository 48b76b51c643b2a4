//! What a runner is doing, as code, metrics, status and messages name it.

use std::fmt;

/// The states of a runner.
///
/// ```text
///  starting ──▶ catching_up ◀──▶ live ──▶ draining
///     ▲             │  ▲           │
///     └── retrying ◀┘──┴───────────┘        any ──▶ stopped
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunnerState {
    /// Creates its read model or claims its checkpoint.
    Starting,
    /// Another instance runs it.
    Standby,
    /// Behind the mark.
    CatchingUp,
    /// At the mark.
    Live,
    /// Waits to retry after a transient error.
    Retrying,
    /// An operator paused it.
    Paused,
    /// Ended by an error, a divergence or a changed file.
    Stopped,
    /// Finishes its batch to end.
    Draining,
}

impl RunnerState {
    /// Every state.
    pub const ALL: [RunnerState; 8] = [
        RunnerState::Starting,
        RunnerState::Standby,
        RunnerState::CatchingUp,
        RunnerState::Live,
        RunnerState::Retrying,
        RunnerState::Paused,
        RunnerState::Stopped,
        RunnerState::Draining,
    ];

    /// Of several partitions the state that needs attention most is shown: the highest.
    pub const fn urgency(self) -> u8 {
        match self {
            RunnerState::Stopped => 7,
            RunnerState::Retrying => 6,
            RunnerState::Paused => 5,
            RunnerState::Starting => 4,
            RunnerState::CatchingUp => 3,
            RunnerState::Standby => 2,
            RunnerState::Draining => 1,
            RunnerState::Live => 0,
        }
    }

    /// The state's one name.
    pub const fn as_str(self) -> &'static str {
        match self {
            RunnerState::Starting => "starting",
            RunnerState::Standby => "standby",
            RunnerState::CatchingUp => "catching_up",
            RunnerState::Live => "live",
            RunnerState::Retrying => "retrying",
            RunnerState::Paused => "paused",
            RunnerState::Stopped => "stopped",
            RunnerState::Draining => "draining",
        }
    }
}

impl fmt::Display for RunnerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
