//! A log of our own as a source of events.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater::source::{BoxFuture, Follower, LogState, RangeSummary, ReadRequest, Source, Step};
use highwater::{Batch, NewEvent, Position, Range, RecordedEvent, Result};
use uuid::Uuid;

/// A log in memory whose position is the place in a list. Clones share it.
#[derive(Clone, Default)]
pub struct OwnLog(Arc<Mutex<Vec<RecordedEvent>>>);

impl OwnLog {
    pub fn append(&self, stream: &str, event: NewEvent) -> Position {
        let mut events = self.events();
        let position = events
            .last()
            .map_or(Position::START, |last| last.position)
            .next();
        let version = 1 + events.iter().filter(|event| event.stream == stream).count();
        events.push(RecordedEvent::new(event, position, stream, version as i64));
        position
    }

    fn events(&self) -> MutexGuard<'_, Vec<RecordedEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn within(&self, range: Range) -> Vec<RecordedEvent> {
        let events = self.events();
        let within = events.iter().filter(|event| range.contains(event.position));
        within.cloned().collect()
    }

    /// The last event at or before a position.
    fn last(&self, position: Position) -> Option<(Position, Uuid)> {
        let events = self.within(Range::new(Position::START, position));
        events.last().map(|event| (event.position, event.id))
    }

    fn head_now(&self) -> Position {
        self.events()
            .last()
            .map_or(Position::START, |last| last.position)
    }
}

impl Source for OwnLog {
    fn name(&self) -> &str {
        "own"
    }

    fn identity(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(async { Ok("own".to_owned()) })
    }

    fn head(&self) -> BoxFuture<'_, Result<Position>> {
        Box::pin(async { Ok(self.head_now()) })
    }

    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Batch>> {
        Box::pin(async move {
            let mut wanted = self.within(request.range);
            wanted.retain(|event| {
                request
                    .types
                    .is_none_or(|types| types.contains(&event.event_type))
            });
            let mut bytes = 0;
            let fitting = wanted.iter().take_while(|event| {
                bytes += event.data.get().len() + event.metadata.get().len();
                bytes <= request.bytes_max
            });
            let fitting = fitting.count().max(1).min(request.events_max);
            let is_cut = fitting < wanted.len();
            wanted.truncate(fitting);
            let through = match wanted.last() {
                Some(last) if is_cut => last.position,
                _ => request.range.through(),
            };
            Ok(Batch::new(
                Range::new(request.range.after(), through),
                wanted,
            ))
        })
    }

    fn last_at(&self, position: Position) -> BoxFuture<'_, Result<Option<(Position, Uuid)>>> {
        Box::pin(async move { Ok(self.last(position)) })
    }

    fn log_state(&self, at: Position, _: Option<Position>) -> BoxFuture<'_, Result<LogState>> {
        Box::pin(async move {
            let mut state = LogState::new("own", self.head_now());
            state.oldest = self.events().first().map(|event| event.position);
            state.last = self.last(at);
            Ok(state)
        })
    }

    fn follow(&self, floor: Position) -> BoxFuture<'_, Result<Box<dyn Follower>>> {
        let follower = OwnFollower {
            log: self.clone(),
            mark: floor,
        };
        Box::pin(async { Ok(Box::new(follower) as Box<dyn Follower>) })
    }
}

/// What is appended is committed: the mark is the head.
struct OwnFollower {
    log: OwnLog,
    mark: Position,
}

impl Follower for OwnFollower {
    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(async {
            let head = self.log.head_now();
            let passed = Range::new(self.mark, head);
            let mut occurred = RangeSummary::default();
            for event in self.log.within(passed) {
                occurred.push(event.position, event.id, event.event_type.into());
            }
            self.mark = passed.through();
            let mut step = Step::new(passed, head);
            step.occurred = Some(occurred);
            Ok(step)
        })
    }
}
