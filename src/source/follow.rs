//! How the mark of a source is followed: a step at a time, woken or by polling.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{BoxFuture, Tally, Types};
use crate::error::Result;
use crate::position::{Position, Range};

/// Follows the mark of one source. Everything it knows is void when it fails; then begin again.
pub trait Follower: Send {
    /// Reads what came since the last step and moves the mark as far as is proven.
    fn step(&mut self) -> BoxFuture<'_, Result<Step>>;

    /// From now on an event counts only when no crash of its server can undo it: the read model is
    /// on another server, which would keep it. Nothing to do for a source without such events.
    fn until_durable(&mut self) {}
}

/// What one step found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Step {
    /// The position of the mark.
    pub mark: Position,
    /// The highest committed position seen.
    pub head: Position,
    /// What the mark passed in this step.
    pub passed: Range,
    /// The events in `passed`; `None` if they are not known.
    pub occurred: Option<RangeSummary>,
    /// The gap that holds the mark.
    pub gap: Option<OpenGap>,
    /// When the next step makes sense, if the source knows better than to wait for news.
    pub again: Option<Duration>,
}

impl Step {
    /// The mark moved over `passed`; which events it passed is not known, and no gap holds it.
    pub fn new(passed: Range, head: Position) -> Step {
        Step {
            mark: passed.through(),
            head,
            passed,
            occurred: None,
            gap: None,
            again: None,
        }
    }
}

/// A summary of the events of a range, for an engine that does not read the range itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSummary {
    /// Their types.
    pub types: Vec<Arc<str>>,
    /// The last event.
    pub last: Option<(Position, Uuid)>,
    /// Their number, and their digest.
    pub tally: Tally,
}

impl RangeSummary {
    /// Adds an event after all others.
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
    /// When this follower first saw it.
    pub since: Instant,
    /// The transactions that hold it, by their name in the lock table.
    pub blocked_by: Vec<String>,
}

impl OpenGap {
    /// How long this follower has seen it.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

/// A connection on which wakes arrive.
pub trait Wakes: Send {
    /// Waits for the next wake; an error means that wakes may have been lost.
    fn next(&mut self) -> BoxFuture<'_, Result<()>>;
}
