//! How long the transaction of a group is and how large its batches are.

use std::time::Duration;

/// The most events of a batch that shares its transaction.
pub(in crate::engine) const EVENTS_MAX: usize = 8_192;

/// How long a transaction takes further batches and how long one of them should take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) transaction: Duration,
    batch: Duration,
}

impl Pace {
    /// Where nothing is kept from one batch to the next, one transaction updates the same rows
    /// again and again, and the server can remove the dead versions only after it: such a
    /// transaction is shorter.
    pub(super) fn new(transaction_time: Duration, gains_by_many: bool) -> Pace {
        let transaction = match gains_by_many {
            true => transaction_time,
            false => transaction_time / 6,
        };
        Pace {
            transaction,
            batch: transaction_time / 12,
        }
    }

    /// How many events the next batch may have, after one with this many events and this duration.
    pub(super) fn next_events(self, events: usize, took: Duration) -> usize {
        let most = events.saturating_mul(8).clamp(1, EVENTS_MAX);
        let fitting = self.batch.as_nanos() * events as u128 / took.as_nanos().max(1);
        usize::try_from(fitting).unwrap_or(most).clamp(1, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_while_they_are_quick_and_shrink_to_what_a_slow_projection_can_do() {
        let pace = Pace::new(Duration::from_secs(3), true);
        let quick = Duration::from_millis(1);
        assert_eq!(pace.next_events(1_000, quick), 8_000);
        assert_eq!(pace.next_events(8_000, quick), EVENTS_MAX);
        assert_eq!(pace.next_events(1_000, Duration::from_secs(1)), 250);
        assert_eq!(pace.next_events(1, Duration::from_secs(60)), 1);
    }

    #[test]
    fn a_transaction_is_shorter_where_nothing_is_kept_from_one_batch_to_the_next() {
        let second = Duration::from_secs(1);
        assert_eq!(Pace::new(12 * second, true).transaction, 12 * second);
        assert_eq!(Pace::new(12 * second, false).transaction, 2 * second);
        assert_eq!(Pace::new(12 * second, false).batch, second);
    }
}
