//! Durations as people write them: `5s`, `200ms`, `1m30s`.

use std::fmt;
use std::time::Duration;

use serde::Deserializer;
use serde::de::{self, Visitor};

use crate::error::{Error, ErrorKind, Result};

/// Milliseconds of each unit, the largest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The hint of every error about a duration.
pub(super) const FORM: &str = "write it like 200ms, 5s, 1m30s or 2h";

/// A duration from text: whole numbers with the units `d`, `h`, `m`, `s` and `ms`, the largest
/// first; a number without a unit is seconds.
///
/// # Errors
/// [`ErrorKind::Config`] for anything else; a command line makes it a usage error by
/// [`Error::with_kind`].
///
/// ```
/// # use std::time::Duration;
/// let lease = highwater::internal::config::parse_duration("1m30s")?;
/// assert_eq!(lease, Duration::from_secs(90));
/// # Ok::<(), highwater::Error>(())
/// ```
pub fn parse_duration(text: &str) -> Result<Duration> {
    milliseconds(text.trim())
        .map(Duration::from_millis)
        .ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("{text:?} is not a duration")).with_hint(FORM)
        })
}

fn milliseconds(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<u64>() {
        // parse() would take a sign.
        let is_digits = text.bytes().all(|b| b.is_ascii_digit());
        return seconds.checked_mul(1_000).filter(|_| is_digits);
    }
    let mut rest = text;
    let mut sum: u64 = 0;
    let mut units = UNITS.as_slice();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let at = units.iter().position(|(name, _)| *name == unit)?;
        let value = number.parse::<u64>().ok()?.checked_mul(units[at].1)?;
        sum = sum.checked_add(value)?;
        units = &units[at + 1..];
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

/// The text that [`parse_duration`] reads as this duration; fractions of a millisecond are cut off.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, size) in UNITS {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() {
        return "0s".to_owned();
    }
    text
}

/// For serde: text as above, or a whole number of seconds.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration like \"5s\" or \"200ms\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            parse_duration(text).map_err(E::custom)
        }

        fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
            parse_duration(&seconds.to_string()).map_err(E::custom)
        }
    }

    from.deserialize_any(Text)
}

#[cfg(test)]
mod tests;
