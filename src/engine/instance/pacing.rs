//! When an instance polls the cluster between two renewals.

use std::time::{Duration, Instant};

/// How often an instance that cannot listen polls while there are others that may leave.
const POLL_PAUSE: Duration = Duration::from_millis(500);
/// The same while it is alone: only operators and joining instances need it.
const POLL_PAUSE_ALONE: Duration = Duration::from_secs(2);
/// The pause between answers to wakes: one poll answers all that arrive in it.
pub(super) const WAKE_PAUSE: Duration = Duration::from_millis(20);

/// When to poll without a wake: a little after the first lease of another ends, because its
/// partitions are free then.
pub(super) fn next_poll(listens: bool, next_lease_end: Option<Duration>) -> Option<Duration> {
    let end = next_lease_end.map(|end| end + WAKE_PAUSE);
    match (listens, end) {
        (true, end) => end,
        (false, None) => Some(POLL_PAUSE_ALONE),
        (false, Some(end)) => Some(end.min(POLL_PAUSE)),
    }
}

/// When wakes are answered: two at once, because a start causes two (LISTEN, a new read model), then
/// [`WAKE_PAUSE`] apart. The generic cell rate algorithm.
#[derive(Default)]
pub(super) struct WakePacer {
    /// When the next would be answered if all were that far apart.
    next: Option<Instant>,
}

impl WakePacer {
    /// When a wake that arrives now is to be answered.
    pub(super) fn due(&self, now: Instant) -> Instant {
        let due = self.next.and_then(|next| next.checked_sub(WAKE_PAUSE));
        due.map_or(now, |due| due.max(now))
    }

    pub(super) fn answered(&mut self, now: Instant) {
        let next = self.next.map_or(now, |next| next.max(now));
        self.next = Some(next + WAKE_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_wakes_are_answered_at_once_and_more_of_them_twenty_milliseconds_apart() {
        let (mut pacer, begin) = (WakePacer::default(), Instant::now());
        let mut due = |after: u64| {
            let due = pacer.due(begin + Duration::from_millis(after));
            pacer.answered(due);
            due.duration_since(begin).as_millis()
        };
        assert_eq!([due(0), due(1), due(2), due(20)], [0, 1, 20, 40]);
        assert_eq!([due(100), due(101)], [100, 101], "the allowance is back");
    }

    #[test]
    fn an_instance_polls_by_itself_where_nobody_wakes_it() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (what, listens, next_lease_end, expected) in [
            ("alone, woken by whoever joins", true, None, None),
            ("alone and deaf", false, None, ms(2_000)),
            (
                "woken by whoever leaves, not by a kill",
                true,
                ms(5_000),
                ms(5_020),
            ),
            ("deaf beside others", false, ms(5_000), ms(500)),
            ("deaf, and a lease ends soon", false, ms(100), ms(120)),
        ] {
            assert_eq!(next_poll(listens, next_lease_end), expected, "{what}");
        }
    }
}
