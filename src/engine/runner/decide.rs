//! What a runner does next: decisions without I/O.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::position::Position;
use crate::retry::{Verdict, verdict};
use crate::runner_state::RunnerState;

/// How often a range without wanted events moves the stored checkpoint, at most.
const FLUSH_PAUSE: Duration = Duration::from_secs(1);
/// A live runner that is no further behind than this stays `live`.
pub(super) const LIVE_WITHIN: u64 = 1_000;

/// Where a runner is.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepInput {
    /// The stored checkpoint.
    pub(super) stored: Position,
    /// How far the runner is: between `stored` and this there is nothing for it.
    pub(super) position: Position,
    pub(super) mark: Position,
    /// The head that ends the run.
    pub(super) until: Option<Position>,
    /// Where the partition ends.
    pub(super) drain_at: Option<Position>,
    /// Whether a wanted event may lie behind `position`.
    pub(super) may_hold: bool,
    pub(super) state: RunnerState,
    /// How long ago the checkpoint was stored.
    pub(super) stored_for: Duration,
    /// Dead letters are still to be retried.
    pub(super) retries: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunnerAction {
    /// Apply a batch towards this position.
    Apply(Position),
    /// Nothing wanted lies up to this position.
    PassOver(Position),
    /// Store the position.
    Flush,
    /// The head that ends the run is passed.
    CaughtUp,
    /// The end of the partition is reached.
    PartitionEnds,
    /// Wait for news, or until the position is to be stored.
    Wait(Option<Duration>),
}

impl StepInput {
    /// How far it may read now.
    pub(super) fn target(&self) -> Position {
        let bounds = [self.until, self.drain_at];
        bounds.into_iter().flatten().fold(self.mark, Position::min)
    }

    pub(super) fn next(&self) -> RunnerAction {
        let target = self.target();
        if self.position < target {
            return match self.may_hold {
                true => RunnerAction::Apply(target),
                false => RunnerAction::PassOver(target),
            };
        }
        let is_reached = |end: Option<Position>| end.is_some_and(|end| self.position >= end);
        let (caught_up, ends) = (is_reached(self.until), is_reached(self.drain_at));
        let arrives = self.until.is_none() && self.state != RunnerState::Live;
        let is_pending = self.stored < self.position;
        if is_pending && (caught_up || ends || arrives || self.stored_for >= FLUSH_PAUSE) {
            return RunnerAction::Flush;
        }
        if caught_up && !self.retries {
            return RunnerAction::CaughtUp;
        }
        if ends {
            return RunnerAction::PartitionEnds;
        }
        RunnerAction::Wait(is_pending.then(|| FLUSH_PAUSE - self.stored_for))
    }
}

/// The state of a runner that is this many positions behind its target. A run that ends by itself
/// is never live, not even while a gap keeps it waiting.
pub(super) fn state(before: RunnerState, distance: u64, ends_by_itself: bool) -> RunnerState {
    let stays_live = before == RunnerState::Live && distance <= LIVE_WITHIN;
    match !ends_by_itself && (distance == 0 || stays_live) {
        true => RunnerState::Live,
        false => RunnerState::CatchingUp,
    }
}

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// Read the checkpoint again to see whether it is still ours.
    ReadAgain,
    /// End: another instance owns the checkpoint.
    Lose,
    /// Wait for dead letters that are being retried: they make room.
    AwaitRetries,
    /// Try again, after a pause.
    Retry,
    /// Stop, and store the error.
    Stop,
}

pub(super) fn response(error: &Error, retries: bool) -> Response {
    match error.kind() {
        ErrorKind::Fenced if error.sqlstate().is_some() => Response::ReadAgain,
        ErrorKind::Fenced => Response::Lose,
        ErrorKind::ParkedFull if retries => Response::AwaitRetries,
        kind if verdict(kind) == Verdict::Transient => Response::Retry,
        _ => Response::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_AGO: Duration = Duration::from_secs(60);

    fn at(position: i64) -> Position {
        Position::new(position)
    }

    /// Live at position 10, which was stored just now, with nothing new.
    fn live() -> StepInput {
        StepInput {
            stored: at(10),
            position: at(10),
            mark: at(10),
            until: None,
            drain_at: None,
            may_hold: true,
            state: RunnerState::Live,
            stored_for: Duration::ZERO,
            retries: false,
        }
    }

    #[test]
    fn what_is_new_is_applied_up_to_the_nearest_end_or_passed_over_where_nothing_is_wanted() {
        let behind = StepInput {
            mark: at(30),
            ..live()
        };
        let until = |until| StepInput {
            until: Some(at(until)),
            ..behind
        };
        let ends_at = |end| StepInput {
            drain_at: Some(at(end)),
            ..until(25)
        };
        assert_eq!(behind.next(), RunnerAction::Apply(at(30)));
        assert_eq!(until(25).next(), RunnerAction::Apply(at(25)));
        assert_eq!(until(40).next(), RunnerAction::Apply(at(30)));
        assert_eq!(ends_at(20).next(), RunnerAction::Apply(at(20)));
        let unwanted = StepInput {
            may_hold: false,
            ..behind
        };
        assert_eq!(unwanted.next(), RunnerAction::PassOver(at(30)));
    }

    #[test]
    fn a_position_is_stored_at_an_end_at_the_head_and_once_a_second() {
        let passed = StepInput {
            stored: at(5),
            ..live()
        };
        assert_eq!(passed.next(), RunnerAction::Wait(Some(FLUSH_PAUSE)));
        let flushes = [
            StepInput {
                stored_for: LONG_AGO,
                ..passed
            },
            StepInput {
                state: RunnerState::CatchingUp,
                ..passed
            },
            StepInput {
                until: Some(at(10)),
                ..passed
            },
            StepInput {
                drain_at: Some(at(10)),
                ..passed
            },
        ];
        for input in flushes {
            assert_eq!(input.next(), RunnerAction::Flush, "{input:?}");
        }
        let nothing_passed = StepInput {
            stored_for: LONG_AGO,
            ..live()
        };
        assert_eq!(nothing_passed.next(), RunnerAction::Wait(None));
    }

    #[test]
    fn a_run_ends_when_its_head_is_passed_and_no_dead_letter_is_to_be_retried() {
        let caught_up = StepInput {
            until: Some(at(10)),
            state: RunnerState::CatchingUp,
            ..live()
        };
        assert_eq!(caught_up.next(), RunnerAction::CaughtUp);
        let retries = StepInput {
            retries: true,
            ..caught_up
        };
        assert_eq!(retries.next(), RunnerAction::Wait(None));
        let held_up = StepInput {
            until: Some(at(20)),
            ..caught_up
        };
        assert_eq!(
            held_up.next(),
            RunnerAction::Wait(None),
            "a gap holds the mark"
        );
        let ends = StepInput {
            drain_at: Some(at(10)),
            ..live()
        };
        assert_eq!(ends.next(), RunnerAction::PartitionEnds);
    }

    #[test]
    fn a_runner_is_live_at_the_head_and_stays_so_a_little_behind_it() {
        use RunnerState::{CatchingUp, Live, Retrying};
        for (before, distance, ends_by_itself, expected) in [
            (CatchingUp, 0, false, Live),
            (Retrying, 0, false, Live),
            (CatchingUp, 0, true, CatchingUp),
            (CatchingUp, 1, false, CatchingUp),
            (Live, LIVE_WITHIN, false, Live),
            (Live, LIVE_WITHIN + 1, false, CatchingUp),
            (Retrying, 1, false, CatchingUp),
        ] {
            let state = state(before, distance, ends_by_itself);
            assert_eq!(state, expected, "{before} {distance} {ends_by_itself}");
        }
    }

    #[test]
    fn an_error_is_retried_stops_or_has_the_checkpoint_read_again() {
        let error = |kind| Error::new(kind, "an error");
        for (error, retries, expected) in [
            (
                error(ErrorKind::Fenced).with_sqlstate("HW101"),
                false,
                Response::ReadAgain,
            ),
            (error(ErrorKind::Fenced), false, Response::Lose),
            (error(ErrorKind::ConnectionLost), false, Response::Retry),
            (error(ErrorKind::Locked), true, Response::Retry),
            (error(ErrorKind::ParkedFull), true, Response::AwaitRetries),
            (error(ErrorKind::ParkedFull), false, Response::Stop),
            (error(ErrorKind::Apply), true, Response::Stop),
            (error(ErrorKind::Config), false, Response::Stop),
        ] {
            assert_eq!(response(&error, retries), expected, "{error} {retries}");
        }
    }
}
