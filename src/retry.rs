//! From a kind of error to what the runner does about it. The only file that decides so.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::error::ErrorKind;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go away by itself: try again, for ever, ever more slowly.
    Transient,
    /// Some event of the batch causes it: narrow it down and stop there.
    Poison,
    /// Trying again or leaving an event out would not help: stop.
    Fatal,
}

/// The one table from kind to verdict.
pub fn verdict(kind: ErrorKind) -> Verdict {
    match kind {
        ErrorKind::ConnectionLost
        | ErrorKind::Serialization
        | ErrorKind::Locked
        | ErrorKind::Resources
        | ErrorKind::TimedOut => Verdict::Transient,
        ErrorKind::Apply | ErrorKind::Undigestible => Verdict::Poison,
        ErrorKind::Usage
        | ErrorKind::Config
        | ErrorKind::Database
        | ErrorKind::Precondition
        | ErrorKind::VersionConflict
        | ErrorKind::IdConflict
        | ErrorKind::BadEvent
        | ErrorKind::ParkedFull
        | ErrorKind::Changed
        | ErrorKind::Fenced
        | ErrorKind::Diverged
        | ErrorKind::Stranded
        | ErrorKind::NotFound
        | ErrorKind::Io
        | ErrorKind::Internal => Verdict::Fatal,
    }
}

/// Whether a smaller batch may get through where one failed that way.
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
