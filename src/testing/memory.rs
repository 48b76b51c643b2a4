//! A source in memory, for the tests of projections in Rust.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

use crate::error::Result;
use crate::event::{NewEvent, RecordedEvent};
use crate::position::{Position, Range};
use crate::source::{
    Batch, BoxFuture, Follower, LogState, RangeSummary, ReadRequest, Removed, Source, Step, Types,
    Wakes,
};

/// A source in memory. Clones share their events.
///
/// An append is committed at once, so its mark is its head. Holes in the positions, as rollbacks
/// leave them, are made with [`MemorySource::burn`].
#[derive(Clone)]
pub struct MemorySource(Arc<Shared>);

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySource")
            .field("name", &self.0.name)
            .field("head", &*self.0.head.borrow())
            .finish_non_exhaustive()
    }
}

struct Shared {
    name: String,
    identity: String,
    log: Mutex<Log>,
    head: watch::Sender<Position>,
}

#[derive(Default)]
struct Log {
    last: Position,
    events: Vec<RecordedEvent>,
}

impl MemorySource {
    /// An empty source under this name; projections read `default` unless they name another.
    pub fn new(name: impl Into<String>) -> MemorySource {
        MemorySource(Arc::new(Shared {
            name: name.into(),
            identity: Uuid::new_v4().to_string(),
            log: Mutex::default(),
            head: watch::Sender::new(Position::START),
        }))
    }

    /// Appends an event to a stream and wakes its followers. Returns its position.
    pub fn append(&self, stream: &str, event: NewEvent) -> Position {
        let mut log = self.log();
        let version = 1 + log.events.iter().filter(|e| e.stream == stream).count();
        let position = log.last.next();
        log.last = position;
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        let event = RecordedEvent::new(event, position, stream, version);
        log.events.push(event);
        drop(log);
        self.0.head.send_replace(position);
        position
    }

    /// Uses up `count` positions, as rolled back appends do.
    pub fn burn(&self, count: u64) {
        let mut log = self.log();
        log.last = log.last.forward(count);
    }

    /// Undoes everything after a position, as a restored backup does: its positions are issued
    /// again.
    pub fn rewind(&self, to: Position) {
        let mut log = self.log();
        log.events.retain(|event| event.position <= to);
        log.last = to;
        let head = log.events.last().map(|event| event.position);
        drop(log);
        self.0.head.send_replace(head.unwrap_or_default());
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_in(&self, range: Range) -> Vec<RecordedEvent> {
        let log = self.log();
        let within = |event: &&RecordedEvent| range.contains(event.position);
        log.events.iter().filter(within).cloned().collect()
    }

    fn wanted_in(&self, range: Range, types: Types<'_>) -> Vec<RecordedEvent> {
        let mut events = self.all_in(range);
        events.retain(|event| types.is_none_or(|types| types.contains(&event.event_type)));
        events
    }

    fn batch(&self, request: ReadRequest<'_>) -> Batch {
        let mut events = self.wanted_in(request.range, request.types);
        let mut bytes = 0;
        let fitting = events.iter().take_while(|event| {
            bytes += event.data.get().len() + event.metadata.get().len();
            bytes <= request.bytes_max
        });
        let fitting = fitting.count().max(1).min(request.events_max.max(1));
        let cut = fitting < events.len();
        events.truncate(fitting);
        let through = match events.last() {
            Some(last) if cut => last.position,
            _ => request.range.through(),
        };
        Batch {
            range: Range::new(request.range.after(), through),
            events,
        }
    }
}

impl Source for MemorySource {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn identity(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(async { Ok(self.0.identity.clone()) })
    }

    fn head(&self) -> BoxFuture<'_, Result<Position>> {
        Box::pin(async { Ok(*self.0.head.borrow()) })
    }

    fn log_state(&self, at: Position, _: Option<Position>) -> BoxFuture<'_, Result<LogState>> {
        Box::pin(async move {
            let last = self.last_at(at).await?;
            let log = self.log();
            Ok(LogState {
                identity: self.0.identity.clone(),
                reached: log.last,
                oldest: log.events.first().map(|event| event.position),
                last,
                removed: Some(Removed::default()),
            })
        })
    }

    fn follow(&self, proven: Position) -> BoxFuture<'_, Result<Box<dyn Follower>>> {
        let follower = MemoryFollower {
            source: self.clone(),
            mark: proven,
        };
        Box::pin(async { Ok(Box::new(follower) as Box<dyn Follower>) })
    }

    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Batch>> {
        Box::pin(async move { Ok(self.batch(request)) })
    }

    fn last_at(&self, position: Position) -> BoxFuture<'_, Result<Option<(Position, Uuid)>>> {
        Box::pin(async move {
            let events = self.all_in(Range::new(Position::START, position));
            Ok(events.last().map(|event| (event.position, event.id)))
        })
    }

    fn wakes(&self) -> BoxFuture<'_, Result<Option<Box<dyn Wakes>>>> {
        let wakes = MemoryWakes(self.0.head.subscribe());
        Box::pin(async { Ok(Some(Box::new(wakes) as Box<dyn Wakes>)) })
    }
}

struct MemoryFollower {
    source: MemorySource,
    mark: Position,
}

impl Follower for MemoryFollower {
    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(async move {
            let head = (*self.source.0.head.borrow()).max(self.mark);
            let passed = Range::new(self.mark, head);
            let mut occurred = RangeSummary::default();
            for event in self.source.all_in(passed) {
                occurred.push(event.position, event.id, event.event_type.into());
            }
            self.mark = head;
            Ok(Step {
                mark: head,
                head,
                passed,
                occurred: Some(occurred),
                gap: None,
                again: None,
            })
        })
    }
}

struct MemoryWakes(watch::Receiver<Position>);

impl Wakes for MemoryWakes {
    fn next(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.0.changed().await.map_err(|closed| {
                crate::Error::new(crate::ErrorKind::ConnectionLost, closed.to_string())
            })
        })
    }
}
