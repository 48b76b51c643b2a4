//! Blocks: what a log held when it was read, so that `audit` can compare it with what the log holds
//! later. A block is up to [`EVENTS_MAX`] events, counted and digested.

use jiff::Timestamp;
use uuid::Uuid;

use crate::key_hash;
use crate::position::{Position, Range};

/// The most events of a block: an audit that finds a difference cannot narrow it down further.
pub(crate) const EVENTS_MAX: u64 = 10_000;

/// The number of events of a range, and their digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of events.
    pub events: u64,
    /// Exclusive or over a hash of each event's position and id, as `uuid_hash_extended(id, position)` in
    /// PostgreSQL. It does not depend on their order.
    pub digest: u64,
}

impl Tally {
    /// Adds an event.
    pub fn add(&mut self, position: Position, id: Uuid) {
        self.events += 1;
        self.digest ^= digest(position, id);
    }

    /// The events of both.
    pub(crate) fn and(self, other: Tally) -> Tally {
        Tally {
            events: self.events + other.events,
            digest: self.digest ^ other.digest,
        }
    }

    /// Without events that were removed.
    pub(crate) fn without(self, removed: &[(Position, Uuid)]) -> Tally {
        let digest = removed.iter().map(|(position, id)| digest(*position, *id));
        Tally {
            events: self.events.saturating_sub(removed.len() as u64),
            digest: digest.fold(self.digest, |all, one| all ^ one),
        }
    }
}

fn digest(position: Position, id: Uuid) -> u64 {
    key_hash::hash_seeded(id.as_bytes(), position.get().cast_unsigned())
}

/// A block that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The positions of the block.
    pub range: Range,
    /// How many events it held, without those that were removed on purpose since.
    pub events_before: u64,
    /// How many it holds.
    pub events_now: u64,
    /// When that was found.
    pub found_at: Timestamp,
}

/// The events of a range as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) range: Range,
    pub(crate) tally: Tally,
    /// It was counted some time after the mark had passed it, and proves nothing about the time
    /// before.
    pub(crate) counted_later: bool,
}

/// The blocks that a reader builds from its rows while the mark moves.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Full or ended, and not taken yet.
    ended: Vec<Block>,
    open: Option<Block>,
    /// The open one has grown since it was taken.
    is_changed: bool,
}

/// The most ended blocks that wait for the recorder; older ones are counted later.
const ENDED_MAX: usize = 64;

impl Blocks {
    /// The mark passed a range, and the reader had read these events of it.
    pub(crate) fn passed(&mut self, range: Range, tally: Tally) {
        if range.is_empty() {
            return;
        }
        self.is_changed = true;
        if let Some(open) = &mut self.open
            && open.range.through() == range.after()
            && open.tally.events + tally.events <= EVENTS_MAX
        {
            open.range = Range::new(open.range.after(), range.through());
            open.tally = open.tally.and(tally);
            return;
        }
        self.end();
        self.open = Some(Block {
            range,
            tally,
            counted_later: false,
        });
    }

    /// The next range does not follow the last one.
    pub(crate) fn end(&mut self) {
        self.ended.extend(self.open.take());
        if self.ended.len() > ENDED_MAX {
            self.ended.drain(..self.ended.len() - ENDED_MAX);
        }
    }

    /// Where the open block begins, which is stored while it grows.
    pub(crate) fn open_from(&self) -> Option<Position> {
        self.open.map(|open| open.range.after())
    }

    /// The blocks since the last call, the open block last.
    pub(crate) fn take(&mut self) -> Vec<Block> {
        let mut blocks = std::mem::take(&mut self.ended);
        if std::mem::take(&mut self.is_changed) {
            blocks.extend(self.open);
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(after: i64, through: i64) -> Range {
        Range::new(Position::new(after), Position::new(through))
    }

    fn events(events: u64) -> Tally {
        Tally {
            events,
            digest: events,
        }
    }

    fn taken(blocks: &mut Blocks) -> Vec<(i64, i64, u64)> {
        let blocks = blocks.take().into_iter();
        blocks
            .map(|b| {
                let (after, through) = (b.range.after().get(), b.range.through().get());
                (after, through, b.tally.events)
            })
            .collect()
    }

    /// As `select uuid_hash_extended(id, position)` answers.
    #[test]
    fn the_digest_is_the_one_of_the_server() {
        let id: Uuid = "13db215e-9a36-4f52-89f1-41d873fec787".parse().unwrap();
        for (position, expected) in [
            (0, -4_688_899_516_758_644_864),
            (1, 3_594_993_456_544_433_136),
            (7_236_013_172_850_516_334, -7_385_865_656_472_929_801),
        ] {
            let found = digest(Position::new(position), id).cast_signed();
            assert_eq!(found, expected, "position {position}");
        }
    }

    #[test]
    fn a_block_grows_while_ranges_follow_each_other_and_it_has_room() {
        let mut blocks = Blocks::default();
        blocks.passed(range(10, 12), events(2));
        blocks.passed(range(12, 20), events(5));
        assert_eq!(taken(&mut blocks), [(10, 20, 7)]);
        assert_eq!(taken(&mut blocks), [], "nothing new");
        blocks.passed(range(20, 20), events(0));
        assert_eq!(taken(&mut blocks), [], "nothing was passed");
        blocks.passed(range(20, 21), events(1));
        assert_eq!(taken(&mut blocks), [(10, 21, 8)]);
        assert_eq!(blocks.open_from(), Some(Position::new(10)));
        blocks.passed(range(21, 10_021), events(9_993));
        assert_eq!(taken(&mut blocks), [(10, 21, 8), (21, 10_021, 9_993)]);
    }

    #[test]
    fn a_range_that_does_not_follow_begins_a_block_of_its_own() {
        let mut blocks = Blocks::default();
        blocks.passed(range(10, 12), events(2));
        blocks.passed(range(50, 51), events(1));
        blocks.end();
        blocks.passed(range(51, 52), events(1));
        assert_eq!(taken(&mut blocks), [(10, 12, 2), (50, 51, 1), (51, 52, 1)]);
    }

    #[test]
    fn blocks_that_nobody_takes_are_forgotten_beyond_a_number() {
        let mut blocks = Blocks::default();
        for at in 0..200 {
            blocks.passed(range(at * 10, at * 10 + 1), events(1));
        }
        let taken = taken(&mut blocks);
        assert_eq!(taken.len(), ENDED_MAX + 1);
        assert_eq!(taken.last(), Some(&(1_990, 1_991, 1)));
    }

    #[test]
    fn what_was_removed_on_purpose_is_taken_off() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (mut both, mut one) = (Tally::default(), Tally::default());
        both.add(Position::new(1), a);
        both.add(Position::new(2), b);
        one.add(Position::new(1), a);
        assert_eq!(both.without(&[(Position::new(2), b)]), one);
    }
}
