//! Places in the log, and the only arithmetic on them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The place of an event in the log of its source: the number its sequence gave it.
///
/// Positions start at 1. [`Position::START`] (0) is the place before the first event; a checkpoint
/// there has seen nothing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(i64);

impl Position {
    /// The place before the first event.
    pub const START: Position = Position(0);

    /// A position from its number; negative numbers count as [`Position::START`].
    pub const fn new(number: i64) -> Position {
        Position(if number < 0 { 0 } else { number })
    }

    /// The number, as it is in the database.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The position that follows without a hole.
    pub const fn next(self) -> Position {
        Position(self.0.saturating_add(1))
    }

    /// The position just before this one; [`Position::START`] has none and stays.
    pub const fn previous(self) -> Position {
        Position::new(self.0.saturating_sub(1))
    }

    /// The position `count` further on.
    pub const fn forward(self, count: u64) -> Position {
        Position(self.0.saturating_add_unsigned(count))
    }

    /// How many positions lie in `(earlier, self]`, holes included; 0 if `earlier` is ahead.
    pub const fn since(self, earlier: Position) -> u64 {
        if self.0 <= earlier.0 {
            0
        } else {
            self.0.abs_diff(earlier.0)
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A half-open range of positions, `(after, through]`: what one batch covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    after: Position,
    through: Position,
}

impl Range {
    /// The range `(after, through]`; a `through` below `after` gives an empty range at `after`.
    pub fn new(after: Position, through: Position) -> Range {
        Range {
            after,
            through: through.max(after),
        }
    }

    /// The last position that is not in the range.
    pub const fn after(self) -> Position {
        self.after
    }

    /// The last position of the range.
    pub const fn through(self) -> Position {
        self.through
    }

    /// How many positions the range spans, holes included.
    pub const fn width(self) -> u64 {
        self.through.since(self.after)
    }

    /// Whether the range holds no position.
    pub const fn is_empty(self) -> bool {
        self.width() == 0
    }

    /// Whether `position` lies in `(after, through]`.
    pub fn contains(self, position: Position) -> bool {
        self.after < position && position <= self.through
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}]", self.after, self.through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_open_below_and_closed_above() {
        let range = Range::new(Position::new(3), Position::new(5));
        assert!(!range.contains(Position::new(3)));
        assert!(range.contains(Position::new(4)));
        assert!(range.contains(Position::new(5)));
        assert!(!range.contains(Position::new(6)));
        assert_eq!(range.width(), 2);
    }

    #[test]
    fn a_range_that_runs_backwards_is_empty() {
        let range = Range::new(Position::new(5), Position::new(3));
        assert!(range.is_empty());
        assert_eq!(range.through(), Position::new(5));
    }

    #[test]
    fn arithmetic_at_the_ends_of_the_numbers_does_not_wrap() {
        assert_eq!(Position::new(i64::MAX).next(), Position::new(i64::MAX));
        assert_eq!(Position::START.previous(), Position::START);
        assert_eq!(
            Position::new(i64::MAX).since(Position::START),
            i64::MAX as u64
        );
        assert_eq!(Position::new(-7), Position::START);
    }
}
