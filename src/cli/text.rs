//! Numbers, durations and paths as people read them.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 event`, `2,000 events`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

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
    fn numbers_have_a_comma_after_every_third_digit_from_the_end() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(count(1, "event"), "1 event");
        assert_eq!(count(24_935, "event"), "24,935 events");
    }

    #[test]
    fn durations_have_the_precision_that_matters() {
        for (millis, text) in [(840, "0.84 s"), (12_900, "12 s"), (200_000, "3 min 20 s")] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
        assert_eq!(per_second(100, Duration::from_millis(500)), 200);
    }
}
