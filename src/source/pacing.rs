//! How often a source is polled while it is followed: every rule in one place, without a clock.
//!
//! A poll takes time from the writers, and a lock snapshot costs a saturated server up to 5 ms. So
//! new rows are read often, locks less often, and both ever less often while nothing changes.

use std::time::Duration;

/// A step over this many positions shows a busy source.
const BUSY_FROM: u64 = 16;

/// New rows are read cheaply: a gap that a commit fills is seen by the next poll.
const GAP_POLL_MIN: Duration = Duration::from_millis(2);
const GAP_POLL_MAX: Duration = Duration::from_millis(100);

/// At most 50 lock snapshots a second, fewer as a gap gets older.
const LOCKS_PAUSE_MIN: Duration = Duration::from_millis(20);
const LOCKS_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How often a follower checks that positions did not go back.
const SEQUENCE_PAUSE: Duration = Duration::from_secs(5);

/// Poll interval of an active source with LISTEN, and without; timers are up to 1.5 ms late.
const WOKEN_POLL: Duration = Duration::from_millis(1);
const ACTIVE_POLL: Duration = Duration::from_micros(500);
/// How long a source is active after its last event.
const ACTIVE_FOR: Duration = Duration::from_secs(1);

/// How often a busy source is polled, however many wakes arrive. 600 polls a second took 12 % of
/// two cores from its 32 writers; 90 polls take 3 %.
const BUSY_POLL: Duration = Duration::from_millis(10);

/// Whether a step over this many positions shows a busy source.
fn is_busy(positions: u64) -> bool {
    positions >= BUSY_FROM
}

/// When a follower wants to be polled again: at once if there is more or something was just proven, soon
/// while a gap of this age is open. `None` leaves it to the reader.
pub(crate) fn follower_poll(at_once: bool, gap_age: Option<Duration>) -> Option<Duration> {
    if at_once {
        return Some(Duration::ZERO);
    }
    gap_age.map(|age| (age / 8).clamp(GAP_POLL_MIN, GAP_POLL_MAX))
}

/// Whether a lock snapshot is worth its price: a gap of this age is open after a step over this
/// many positions, and the last snapshot has this age. In a busy source a gap is most likely a
/// commit in flight, and the next rows show that for less.
pub(crate) fn are_locks_due(positions: u64, gap_age: Duration, since: Option<Duration>) -> bool {
    let pause = (gap_age / 4).clamp(LOCKS_PAUSE_MIN, LOCKS_PAUSE_MAX);
    !is_busy(positions) && since.is_none_or(|since| since >= pause)
}

/// Whether it is time to check that positions did not go back.
pub(crate) fn is_sequence_due(since: Duration) -> bool {
    since >= SEQUENCE_PAUSE
}

/// What the reader of a source knows after a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollFacts {
    /// How many positions the mark passed.
    pub(crate) positions: u64,
    /// When the follower wants to be polled.
    pub(crate) follower_poll: Option<Duration>,
    /// How long ago the last event came.
    pub(crate) since_event: Duration,
    /// Wakes arrive.
    pub(crate) is_woken: bool,
    /// A runner waits for the next step.
    pub(crate) is_awaited: bool,
}

/// The pause between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// This long, whatever arrives.
    Whole(Duration),
    /// This long at most: a wake or a runner that begins to wait ends it.
    UntilNews(Duration),
}

/// How long an idle source is not polled, after a pause of `before`.
pub(crate) fn idle_poll(stepped: &PollFacts, before: Duration, slowest: Duration) -> Duration {
    let pause = match (stepped.since_event < ACTIVE_FOR, stepped.is_woken) {
        (true, true) => WOKEN_POLL,
        (true, false) => ACTIVE_POLL,
        (false, _) => before.max(ACTIVE_POLL) * 2,
    };
    pause.min(slowest)
}

/// When the reader polls next: at once if that tells something new, every 10 ms while the source is
/// busy, at the pace of an idle source while no runner waits for it.
pub(crate) fn reader_pause(stepped: &PollFacts, idle: Duration, slowest: Duration) -> Pause {
    match stepped.follower_poll {
        Some(pause) if pause.is_zero() => Pause::UntilNews(pause),
        None if !stepped.is_awaited => Pause::UntilNews(slowest),
        _ if is_busy(stepped.positions) => Pause::Whole(BUSY_POLL.min(slowest)),
        follower_poll => Pause::UntilNews(follower_poll.unwrap_or(idle)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOWEST: Duration = Duration::from_millis(200);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_gap_is_polled_less_often_the_older_it_is() {
        for (at_once, gap_age, expected) in [
            (true, None, Some(ms(0))),
            (true, Some(ms(500)), Some(ms(0))),
            (false, None, None),
            (false, Some(ms(0)), Some(ms(2))),
            (false, Some(ms(80)), Some(ms(10))),
            (false, Some(ms(60_000)), Some(ms(100))),
        ] {
            assert_eq!(follower_poll(at_once, gap_age), expected, "{gap_age:?}");
        }
    }

    #[test]
    fn locks_are_read_at_once_and_then_less_often_and_never_while_a_source_is_busy() {
        for (positions, gap_age, since, expected) in [
            (0, 0, None, true),
            (15, 0, None, true),
            (16, 0, None, false),
            (0, 10, Some(19), false),
            (0, 10, Some(20), true),
            (0, 400, Some(99), false),
            (0, 400, Some(100), true),
            (0, 60_000, Some(199), false),
            (0, 60_000, Some(200), true),
        ] {
            let since = since.map(ms);
            let due = are_locks_due(positions, ms(gap_age), since);
            assert_eq!(due, expected, "{positions} {gap_age} {since:?}");
        }
    }

    #[test]
    fn the_sequence_is_read_every_five_seconds() {
        assert!(!is_sequence_due(ms(4_999)));
        assert!(is_sequence_due(ms(5_000)));
    }

    #[test]
    fn a_source_is_active_for_a_second_and_then_left_alone_ever_longer() {
        for (since_event, is_woken, before, expected) in [
            (0, true, ms(7), WOKEN_POLL),
            (0, false, ms(7), ACTIVE_POLL),
            (999, false, ms(7), ACTIVE_POLL),
            (1_000, false, ms(7), ms(14)),
            (1_000, true, ms(150), SLOWEST),
            (1_000, true, ms(0), WOKEN_POLL),
        ] {
            let stepped = PollFacts {
                positions: 0,
                follower_poll: None,
                since_event: ms(since_event),
                is_woken,
                is_awaited: true,
            };
            let pause = idle_poll(&stepped, before, SLOWEST);
            assert_eq!(pause, expected, "{since_event} {is_woken} {before:?}");
        }
        let slow = PollFacts {
            positions: 1,
            follower_poll: None,
            since_event: ms(0),
            is_woken: true,
            is_awaited: true,
        };
        let fastest = Duration::from_micros(1);
        assert_eq!(idle_poll(&slow, ms(1), fastest), fastest);
    }

    #[test]
    fn the_reader_polls_at_the_pace_that_the_step_and_the_runners_ask_for() {
        for (why, positions, follower_poll, is_awaited, expected) in [
            ("few events", 15, None, true, Pause::UntilNews(ms(3))),
            ("a busy source", 16, None, true, Pause::Whole(BUSY_POLL)),
            (
                "a busy source with a gap",
                16,
                Some(ms(2)),
                true,
                Pause::Whole(BUSY_POLL),
            ),
            ("a gap", 0, Some(ms(2)), true, Pause::UntilNews(ms(2))),
            (
                "a gap, and nobody waits",
                0,
                Some(ms(2)),
                false,
                Pause::UntilNews(ms(2)),
            ),
            (
                "more is known to be there",
                10_000,
                Some(ms(0)),
                false,
                Pause::UntilNews(ms(0)),
            ),
            (
                "nobody waits for an event",
                1,
                None,
                false,
                Pause::UntilNews(SLOWEST),
            ),
            (
                "nobody waits for many",
                99,
                None,
                false,
                Pause::UntilNews(SLOWEST),
            ),
        ] {
            let stepped = PollFacts {
                positions,
                follower_poll,
                since_event: ms(0),
                is_woken: false,
                is_awaited,
            };
            let pause = reader_pause(&stepped, ms(3), SLOWEST);
            assert_eq!(pause, expected, "{why}");
        }
    }
}
