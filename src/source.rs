//! The seam to where events come from: head, batches up to the mark, a wake, an identity.
//!
//! Implement [`Source`] and its [`Follower`] to read events from elsewhere, and give it to
//! [`Highwater::source`](crate::Highwater::source). `testing::conformance` (feature `testing`) shows
//! whether it keeps its promises.

use std::pin::Pin;

use uuid::Uuid;

use crate::error::Result;
use crate::event::RecordedEvent;
use crate::position::{Position, Range};

mod follow;
mod keys;
pub(crate) mod pacing;
mod postgres;
mod select;
#[cfg(feature = "internal")]
pub mod table;
#[cfg(not(feature = "internal"))]
pub(crate) mod table;

pub use crate::block::Tally;
pub use follow::{Follower, OpenGap, RangeSummary, Step, Wakes};
pub use keys::{EventKey, Filter, Keys, Parked, Partition};
pub use postgres::{Blocker, Midpoint, PostgresLog, RemovedIn};

/// A boxed future, for the traits that the engine holds as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where events come from.
///
/// An implementation keeps two promises: positions at or below the mark never change again, and a
/// read sees every event of its range if the range was at or below the mark before it began. The
/// suite `testing::conformance` tests both.
pub trait Source: Send + Sync + 'static {
    /// The name projections refer to it by.
    fn name(&self) -> &str;

    /// The identity of this log, which differs even from a restored copy at the same address.
    fn identity(&self) -> BoxFuture<'_, Result<String>>;

    /// The highest committed position.
    fn head(&self) -> BoxFuture<'_, Result<Position>>;

    /// The events of a range at or below the mark, in order.
    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Batch>>;

    /// The last event at or before `position`.
    fn last_at(&self, position: Position) -> BoxFuture<'_, Result<Option<(Position, Uuid)>>>;

    /// The state of the log at `at`, to compare with a checkpoint there; `known` is the last event
    /// that the checkpoint knows. All of it comes from one server.
    fn log_state(&self, at: Position, known: Option<Position>) -> BoxFuture<'_, Result<LogState>>;

    /// Begins to follow the mark from `proven`, up to which everything is proven.
    fn follow(&self, proven: Position) -> BoxFuture<'_, Result<Box<dyn Follower>>>;

    /// Whether it can be followed at all: refuses what [`Source::follow`] would refuse, for a caller
    /// that has nothing to read.
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// A connection on which wakes arrive; `None` if this source has none and is only polled.
    fn wakes(&self) -> BoxFuture<'_, Result<Option<Box<dyn Wakes>>>> {
        Box::pin(async { Ok(None) })
    }

    /// The oldest events, up to this position, were removed on purpose; the start if none were, or
    /// if the source does not record that.
    fn removed_through(&self) -> BoxFuture<'_, Result<Position>> {
        Box::pin(async { Ok(Position::START) })
    }

    /// The head, and the age of the first event after each position.
    fn lag<'a>(&'a self, positions: &'a [Position]) -> BoxFuture<'a, Result<Lag>> {
        Box::pin(async move {
            Ok(Lag {
                head: self.head().await?,
                ages: vec![None; positions.len()],
            })
        })
    }

    /// What it can do because its events are in a PostgreSQL database; `None` if they are not.
    fn postgres(&self) -> Option<&dyn PostgresLog> {
        None
    }
}

/// The head of a log, and how far behind it positions are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lag {
    /// The highest committed position.
    pub head: Position,
    /// For each position that was asked for, the age of the first event after it in seconds: 0 if
    /// there is none, `None` if the source cannot tell.
    pub ages: Vec<Option<f64>>,
}

/// The state of a log at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogState {
    /// [`Source::identity`].
    pub identity: String,
    /// The highest position that was ever issued, committed or not, as far as the source knows; at
    /// least the head, which is enough if it is not below the given position. It falls below the
    /// position of a checkpoint only when the log goes back.
    pub reached: Position,
    /// The oldest event that exists.
    pub oldest: Option<Position>,
    /// The last event at or before the position.
    pub last: Option<(Position, Uuid)>,
    /// What was removed on purpose; `None` if the source does not record that.
    pub removed: Option<Removed>,
}

impl Lag {
    /// With an age for each position that was asked for.
    pub fn new(head: Position, ages: Vec<Option<f64>>) -> Lag {
        Lag { head, ages }
    }
}

impl LogState {
    /// Of a log without events that does not record what was removed.
    pub fn new(identity: impl Into<String>, reached: Position) -> LogState {
        LogState {
            identity: identity.into(),
            reached,
            oldest: None,
            last: None,
            removed: None,
        }
    }
}

/// What was removed from a log on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The oldest events were, up to this position.
    pub through: Position,
    /// Others of the positions that were asked for.
    pub others: Vec<Position>,
}

impl Removed {
    /// Whether the event at `position` was.
    pub fn contains(&self, position: Position) -> bool {
        position <= self.through || self.others.contains(&position)
    }
}

/// The event types wanted; `None` is all.
pub type Types<'a> = Option<&'a [String]>;

/// What to read of a log.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest<'a> {
    /// The range; its end is at or below the mark.
    pub range: Range,
    /// Which of its events are wanted.
    pub types: Types<'a>,
    /// The most events to return, at least 1.
    pub events_max: usize,
    /// The most bytes of data and metadata to return; a single larger event is returned alone.
    pub bytes_max: usize,
}

/// One read result: the wanted events of a range.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Batch {
    /// What it covers: every wanted event of this range is in `events`.
    pub range: Range,
    /// The events, in the order of their position.
    pub events: Vec<RecordedEvent>,
}

impl Batch {
    /// The wanted events of a range, in the order of their position.
    pub fn new(range: Range, events: Vec<RecordedEvent>) -> Batch {
        Batch { range, events }
    }
}

/// One read result with the key of each event.
#[derive(Clone, Debug)]
pub struct KeyedBatch {
    /// What it covers: every wanted event of this range is in `events`.
    pub range: Range,
    /// The events, in the order of their position.
    pub events: Vec<(EventKey, RecordedEvent)>,
}
