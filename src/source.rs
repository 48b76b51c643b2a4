//! The seam to where events come from: head, batches up to the mark, a wake, an identity.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::error::Result;
use crate::event::RecordedEvent;
use crate::position::{Position, Range};

mod keys;
pub mod table;

pub use crate::block::Tally;
pub use keys::{EventKey, Filter, Keys, Parked, Partition};

/// A boxed future, for the traits that the engine holds as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where events come from.
///
/// An implementation keeps two promises: positions at or below the mark never change again, and
/// a read sees every event of its range if the range was at or below the mark before it began.
pub trait Source: Send + Sync + 'static {
    /// The name projections refer to it by.
    fn name(&self) -> &str;

    /// What tells this log from any other, also from a restored copy under the same address.
    fn identity(&self) -> BoxFuture<'_, Result<String>>;

    /// The highest committed position.
    fn head(&self) -> BoxFuture<'_, Result<Position>>;

    /// What the log says of itself at `at`, to compare with a checkpoint that stands there;
    /// `known` is the last event that the checkpoint knows. All of it is from one server.
    fn standing(&self, at: Position, known: Option<Position>) -> BoxFuture<'_, Result<Standing>>;

    /// Begins to follow the mark from `floor`, up to which everything is known to be proven.
    fn follow(&self, floor: Position) -> BoxFuture<'_, Result<Box<dyn Follower>>>;

    /// The wanted events of a range at or below the mark, in order.
    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Batch>>;

    /// As [`Source::read`], with the key of each event.
    fn read_keyed<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<KeyedBatch>>;

    /// How many wanted events a range holds, and the one in the middle.
    fn middle<'a>(
        &'a self,
        range: Range,
        filter: Filter<'a>,
    ) -> BoxFuture<'a, Result<Option<Middle>>>;

    /// How many events of whatever type a range holds, at most `events_max`, and how far they were counted.
    fn tally(&self, range: Range, events_max: u64) -> BoxFuture<'_, Result<(Position, Tally)>>;

    /// What was removed on purpose from a range; nothing if the source does not write that down.
    fn removed_in(&self, _range: Range) -> BoxFuture<'_, Result<RemovedIn>> {
        Box::pin(async { Ok(RemovedIn::default()) })
    }

    /// The first position of a range that holds an event of whatever type.
    fn first(&self, range: Range) -> BoxFuture<'_, Result<Option<Position>>>;

    /// The last event at or before `position`.
    fn last_at(&self, position: Position) -> BoxFuture<'_, Result<Option<(Position, Uuid)>>>;

    /// A connection on which wakes arrive; `None` if this source has none and is only polled.
    fn wakes(&self) -> BoxFuture<'_, Result<Option<Box<dyn Wakes>>>>;

    /// The oldest events, up to this position, were removed on purpose; the start if none were, or if
    /// the source does not write that down.
    fn removed_through(&self) -> BoxFuture<'_, Result<Position>> {
        Box::pin(async { Ok(Position::START) })
    }

    /// A statement as SQL text that raises HW104 if events after `read_up_to` were removed, for a
    /// transaction that reads [`Source::relation`].
    fn check_unread(&self, _read_up_to: Position) -> Option<String> {
        None
    }

    /// The name of the server that the events are in, as long as it runs: what crashes together has
    /// one name. `None` if nothing that was read can be taken back by a crash.
    fn server(&self) -> BoxFuture<'_, Result<Option<String>>> {
        Box::pin(async { Ok(None) })
    }

    /// Whether it can be followed at all: refuses what [`Source::follow`] would refuse, for whoever has
    /// nothing to read.
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// The relation that holds the events, as SQL text with the columns of `highwater.event`, if
    /// projections may read it inside the database of their read model.
    fn relation(&self) -> Option<&str>;
}

/// What a log says of itself at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// [`Source::identity`].
    pub identity: String,
    /// The highest position that was ever given, committed or not, as far as the source can tell;
    /// at least the head, which will do where it is not below the position asked for. It falls below
    /// one that a checkpoint had only when the log goes back.
    pub reached: Position,
    /// The oldest event there is.
    pub oldest: Option<Position>,
    /// The last event at or before the position.
    pub last: Option<(Position, Uuid)>,
    /// What was removed on purpose; `None` if the source does not write that down.
    pub removed: Option<Removed>,
}

/// What was removed from a log on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The oldest events were, up to this position.
    pub through: Position,
    /// Others of the positions that were asked for.
    pub others: Vec<Position>,
}

/// What was removed on purpose from a range of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedIn {
    /// The oldest events of the log were, up to this position; which these were is not known.
    pub through: Position,
    /// Others of the range.
    pub others: Vec<(Position, Uuid)>,
}

impl Removed {
    /// Whether the event at `position` was.
    pub fn contains(&self, position: Position) -> bool {
        position <= self.through || self.others.contains(&position)
    }
}

/// The event types wanted; `None` is all.
pub type Types<'a> = Option<&'a [String]>;

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest<'a> {
    /// The range; its end is at or below the mark.
    pub range: Range,
    /// Which of its events are wanted.
    pub filter: Filter<'a>,
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

/// One read result with the key of each event.
#[derive(Clone, Debug)]
pub struct KeyedBatch {
    /// What it covers: every wanted event of this range is in `events`.
    pub range: Range,
    /// The events, in the order of their position.
    pub events: Vec<(EventKey, RecordedEvent)>,
}

/// The events of a range, counted: for halving a batch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Middle {
    /// How many wanted events the range holds, at least 1.
    pub count: u64,
    /// The first of them.
    pub first: Position,
    /// The one in the middle; the first of two.
    pub middle: Position,
}

/// Follows the mark of one source. What it knows is void when it fails; begin again.
pub trait Follower: Send {
    /// Reads what came since the last step and moves the mark as far as is proven.
    fn step(&mut self) -> BoxFuture<'_, Result<Step>>;

    /// From now on an event counts only when no crash of its server can take it back: the read
    /// model is in another one, which would keep it. Nothing to do for a source without such events.
    fn until_durable(&mut self) {}
}

/// After so many positions passed in one step more are most likely on their way.
pub(crate) const BUSY_FROM: u64 = 16;

/// What one step found.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where the mark stands now.
    pub mark: Position,
    /// The highest committed position seen.
    pub head: Position,
    /// What the mark passed in this step.
    pub passed: Range,
    /// What occurs in `passed`; `None` if that is not known.
    pub occurred: Option<Occurred>,
    /// The gap that holds the mark.
    pub gap: Option<OpenGap>,
    /// When the next step would be worth it, if the source knows better than to wait for news.
    pub again: Option<Duration>,
}

/// The events of a range, as far as the engine needs them where it does not read the range itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occurred {
    /// Their types.
    pub types: Vec<Arc<str>>,
    /// The last event.
    pub last: Option<(Position, Uuid)>,
    /// How many they are, and their digest.
    pub tally: Tally,
}

impl Occurred {
    /// One more event, behind all others.
    pub fn push(&mut self, position: Position, id: Uuid, event_type: Arc<str>) {
        self.last = Some((position, id));
        self.tally.add(position, id);
        if !self.types.contains(&event_type) {
            self.types.push(event_type);
        }
    }

    /// Whether an event of the wanted types is among them.
    pub fn holds(&self, types: Types<'_>) -> bool {
        let is_wanted = |name: &Arc<str>| {
            types.is_none_or(|types| types.iter().any(|wanted| **wanted == **name))
        };
        self.types.iter().any(is_wanted)
    }
}

/// A gap below head that may still be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenGap {
    /// Its first missing position.
    pub from: Position,
    /// Its last missing position.
    pub to: Position,
    /// Since when this follower has seen it.
    pub since: Instant,
    /// The transactions that hold it, by their name in the lock table.
    pub held_by: Vec<String>,
}

/// A connection on which wakes arrive.
pub trait Wakes: Send {
    /// Waits for the next wake; an error means that wakes may have been lost.
    fn next(&mut self) -> BoxFuture<'_, Result<()>>;
}
