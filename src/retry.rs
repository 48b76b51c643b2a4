//! When and how often a failure is retried.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::error::ErrorKind;

pub use crate::error::Verdict;

/// What a runner does about an error of this kind.
pub fn verdict(kind: ErrorKind) -> Verdict {
    kind.verdict()
}

/// Whether a smaller batch may succeed after such an error.
pub(crate) fn is_eased_by_less(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::TimedOut | ErrorKind::Resources)
}

const DELAY_MIN: Duration = Duration::from_millis(50);

/// Delays between attempts: from 50 ms, doubled up to `longest`, each with jitter; no end.
pub fn delays(longest: Duration) -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(DELAY_MIN)
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_stay_within_their_bound_and_jitter() {
        let longest = Duration::from_secs(5);
        let delays: Vec<Duration> = delays(longest).take(50).collect();
        assert_eq!(delays.len(), 50);
        assert!(delays[0] < Duration::from_millis(200));
        assert!(delays.iter().all(|&delay| delay <= 2 * longest));
        assert!(delays[40] >= longest);
    }
}
