//! Numbers, durations and paths as people read them; some as the status shows them.

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use crate::status::{at, count, thousands};

/// `0.84 s`, `12 s`, `3 min 20 s`.
pub(super) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    match whole {
        0..10 => format!("{:.2} s", duration.as_secs_f64()),
        10..120 => format!("{whole} s"),
        _ => format!("{} min {} s", thousands(whole / 60), whole % 60),
    }
}

/// Whole things per second.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is neither negative nor near the end of the numbers"
)]
pub(super) fn per_second(number: u64, duration: Duration) -> u64 {
    (number as f64 / duration.as_secs_f64().max(0.001)).round() as u64
}

/// The path relative to the working directory, if it lies inside.
pub(super) fn seen_from_here(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(here) {
        Ok(inside) if !inside.as_os_str().is_empty() => inside.to_owned(),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_precision_that_matters() {
        for (millis, text) in [(840, "0.84 s"), (12_900, "12 s"), (200_000, "3 min 20 s")] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
        assert_eq!(per_second(100, Duration::from_millis(500)), 200);
    }
}
