//! What a runner does next: decisions without I/O.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::pg::transaction::Commit;
use crate::position::{Position, Range};
use crate::projection::OnError;
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

/// What follows from an error. `retries`: dead letters are being retried; `has_read`: reading the
/// checkpoint again has led to this error.
pub(super) fn response(error: &Error, retries: bool, has_read: bool) -> Response {
    match error.kind() {
        ErrorKind::Fenced if error.sqlstate().is_some() && !has_read => Response::ReadAgain,
        ErrorKind::Fenced => Response::Lose,
        ErrorKind::ParkedFull if retries => Response::AwaitRetries,
        kind if verdict(kind) == Verdict::Transient => Response::Retry,
        _ => Response::Stop,
    }
}

/// What becomes of an event that cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poisoned {
    /// The projection stops before it.
    Stop,
    /// The events before it in the batch come first, so that the checkpoint moves over it alone.
    PassBefore,
    /// Its key is parked.
    Park,
}

/// `at` is the position of the event that made the batch over `range` fail.
pub(super) fn poisoned(on_error: OnError, range: Range, at: Position) -> Poisoned {
    match on_error {
        OnError::Stop => Poisoned::Stop,
        OnError::Park if range.after() < at.previous() => Poisoned::PassBefore,
        OnError::Park => Poisoned::Park,
    }
}

/// What follows from the error of a dead letter that was retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retried {
    /// It stays parked, with this error.
    StaysParked,
    /// Its key is retried after all others.
    PutOff,
    /// The checkpoint is not as it was: the next one is read under the present row.
    Later,
    /// The projection stops.
    Stop,
}

pub(super) fn retried(kind: ErrorKind) -> Retried {
    match verdict(kind) {
        _ if kind == ErrorKind::Fenced => Retried::Later,
        Verdict::Poison => Retried::StaysParked,
        Verdict::Transient => Retried::PutOff,
        Verdict::Fatal => Retried::Stop,
    }
}

/// A run that ends by itself reports that it has caught up, and no later run resumes behind it. One
/// that follows resumes wherever a crash left its checkpoint, if the crash also undoes what was
/// removed from the log since: that is, where both are in one database.
pub(super) fn commit(ends_by_itself: bool, in_one_database: bool, await_disk: bool) -> Commit {
    match !ends_by_itself && in_one_database && !await_disk {
        true => Commit::Visible,
        false => Commit::Durable,
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
    fn an_error_is_retried_stops_or_has_the_checkpoint_read_again_once() {
        let error = |kind| Error::new(kind, "an error");
        let by_the_fence = || error(ErrorKind::Fenced).with_sqlstate("HW101");
        for (error, retries, has_read, expected) in [
            (by_the_fence(), false, false, Response::ReadAgain),
            (by_the_fence(), false, true, Response::Lose),
            (error(ErrorKind::Fenced), false, false, Response::Lose),
            (
                error(ErrorKind::ConnectionLost),
                false,
                true,
                Response::Retry,
            ),
            (error(ErrorKind::Locked), true, false, Response::Retry),
            (
                error(ErrorKind::ParkedFull),
                true,
                false,
                Response::AwaitRetries,
            ),
            (error(ErrorKind::ParkedFull), false, false, Response::Stop),
            (error(ErrorKind::Changed), true, true, Response::Stop),
            (error(ErrorKind::Apply), true, false, Response::Stop),
            (error(ErrorKind::Config), false, false, Response::Stop),
        ] {
            let found = response(&error, retries, has_read);
            assert_eq!(found, expected, "{error} {retries} {has_read}");
        }
    }

    #[test]
    fn an_event_that_cannot_be_applied_stops_the_projection_or_is_parked_once_it_is_the_next() {
        use Poisoned::{Park, PassBefore, Stop};
        let range = Range::new(at(10), at(20));
        for (on_error, event, expected) in [
            (OnError::Stop, 11, Stop),
            (OnError::Stop, 15, Stop),
            (OnError::Park, 11, Park),
            (OnError::Park, 12, PassBefore),
            (OnError::Park, 20, PassBefore),
        ] {
            let found = poisoned(on_error, range, at(event));
            assert_eq!(found, expected, "{on_error:?} {event}");
        }
    }

    #[test]
    fn a_retried_dead_letter_that_fails_stays_parked_unless_another_cause_is_known() {
        for (kind, expected) in [
            (ErrorKind::Apply, Retried::StaysParked),
            (ErrorKind::Undigestible, Retried::StaysParked),
            (ErrorKind::Locked, Retried::PutOff),
            (ErrorKind::ConnectionLost, Retried::PutOff),
            (ErrorKind::Fenced, Retried::Later),
            (ErrorKind::Config, Retried::Stop),
            (ErrorKind::Changed, Retried::Stop),
        ] {
            assert_eq!(retried(kind), expected, "{kind}");
        }
    }

    #[test]
    fn a_commit_waits_for_the_disk_unless_a_crash_undoes_all_that_depends_on_it() {
        for (ends_by_itself, in_one_database, await_disk, expected) in [
            (false, true, false, Commit::Visible),
            (true, true, false, Commit::Durable),
            (false, false, false, Commit::Durable),
            (false, true, true, Commit::Durable),
        ] {
            let found = commit(ends_by_itself, in_one_database, await_disk);
            assert_eq!(
                found, expected,
                "{ends_by_itself} {in_one_database} {await_disk}"
            );
        }
    }
}
