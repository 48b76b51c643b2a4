//! A source with something happening on the way to it.

use highwater::internal::source::{
    Batch, Blocker, BoxFuture, Filter, Follower, KeyedBatch, Keys, Lag, LogState, Midpoint,
    OpenGap, PostgresLog, ReadRequest, RemovedIn, Source, Tally, Wakes,
};
use highwater::{Position, Range, Result};
use jiff::Timestamp;
use uuid::Uuid;

/// What happens on the way.
pub(crate) trait Meddling: Send + Sync + 'static {
    /// The source itself.
    fn source(&self) -> &dyn Source;

    /// It is followed.
    fn follow(&self, floor: Position) -> BoxFuture<'_, Result<Box<dyn Follower>>> {
        self.source().follow(floor)
    }

    /// Events are read.
    fn reads(&self) {}
}

/// A source that is meddled with, and otherwise the source itself.
pub(crate) struct Meddled<M>(pub(crate) M);

impl<M: Meddling> Meddled<M> {
    fn source(&self) -> &dyn Source {
        self.0.source()
    }

    fn postgres_log(&self) -> &dyn PostgresLog {
        self.source().postgres().expect("a source in PostgreSQL")
    }
}

impl<M: Meddling> Source for Meddled<M> {
    fn name(&self) -> &str {
        self.source().name()
    }

    fn identity(&self) -> BoxFuture<'_, Result<String>> {
        self.source().identity()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position>> {
        self.source().head()
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.source().check()
    }

    fn log_state(&self, at: Position, known: Option<Position>) -> BoxFuture<'_, Result<LogState>> {
        self.source().log_state(at, known)
    }

    fn follow(&self, floor: Position) -> BoxFuture<'_, Result<Box<dyn Follower>>> {
        self.0.follow(floor)
    }

    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Batch>> {
        self.0.reads();
        self.source().read(request)
    }

    fn last_at(&self, position: Position) -> BoxFuture<'_, Result<Option<(Position, Uuid)>>> {
        self.source().last_at(position)
    }

    fn wakes(&self) -> BoxFuture<'_, Result<Option<Box<dyn Wakes>>>> {
        self.source().wakes()
    }

    fn removed_through(&self) -> BoxFuture<'_, Result<Position>> {
        self.source().removed_through()
    }

    fn lag<'a>(&'a self, positions: &'a [Position]) -> BoxFuture<'a, Result<Lag>> {
        self.source().lag(positions)
    }

    fn postgres(&self) -> Option<&dyn PostgresLog> {
        self.source().postgres()?;
        Some(self)
    }
}

impl<M: Meddling> PostgresLog for Meddled<M> {
    fn relation(&self) -> Option<&str> {
        self.postgres_log().relation()
    }

    fn records_removals(&self) -> bool {
        self.postgres_log().records_removals()
    }

    fn read_keys<'a>(
        &'a self,
        request: ReadRequest<'a>,
        keys: Keys<'a>,
    ) -> BoxFuture<'a, Result<Batch>> {
        self.0.reads();
        self.postgres_log().read_keys(request, keys)
    }

    fn read_keyed<'a>(
        &'a self,
        request: ReadRequest<'a>,
        keys: Keys<'a>,
    ) -> BoxFuture<'a, Result<KeyedBatch>> {
        self.postgres_log().read_keyed(request, keys)
    }

    fn first(&self, range: Range) -> BoxFuture<'_, Result<Option<Position>>> {
        self.postgres_log().first(range)
    }

    fn middle<'a>(
        &'a self,
        range: Range,
        filter: Filter<'a>,
    ) -> BoxFuture<'a, Result<Option<Midpoint>>> {
        self.postgres_log().middle(range, filter)
    }

    fn tally(&self, range: Range, events_max: u64) -> BoxFuture<'_, Result<(Position, Tally)>> {
        self.postgres_log().tally(range, events_max)
    }

    fn removed_in(&self, range: Range) -> BoxFuture<'_, Result<Option<RemovedIn>>> {
        self.postgres_log().removed_in(range)
    }

    fn server(&self) -> BoxFuture<'_, Result<String>> {
        self.postgres_log().server()
    }

    fn blockers<'a>(&'a self, gap: &'a OpenGap) -> BoxFuture<'a, Result<Vec<Blocker>>> {
        self.postgres_log().blockers(gap)
    }

    fn recorded_after(&self, position: Position) -> BoxFuture<'_, Result<Option<Timestamp>>> {
        self.postgres_log().recorded_after(position)
    }
}
