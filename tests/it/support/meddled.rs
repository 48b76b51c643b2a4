//! A source with something happening on the way to it.

use highwater::internal::source::{
    Batch, BoxFuture, Filter, Follower, KeyedBatch, Middle, ReadRequest, RemovedIn, Source,
    Standing, Tally, Wakes,
};
use highwater::{Position, Range, Result};
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

    fn standing(&self, at: Position, known: Option<Position>) -> BoxFuture<'_, Result<Standing>> {
        self.source().standing(at, known)
    }

    fn follow(&self, floor: Position) -> BoxFuture<'_, Result<Box<dyn Follower>>> {
        self.0.follow(floor)
    }

    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Batch>> {
        self.0.reads();
        self.source().read(request)
    }

    fn read_keyed<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<KeyedBatch>> {
        self.source().read_keyed(request)
    }

    fn middle<'a>(
        &'a self,
        range: Range,
        filter: Filter<'a>,
    ) -> BoxFuture<'a, Result<Option<Middle>>> {
        self.source().middle(range, filter)
    }

    fn tally(&self, range: Range, events_max: u64) -> BoxFuture<'_, Result<(Position, Tally)>> {
        self.source().tally(range, events_max)
    }

    fn first(&self, range: Range) -> BoxFuture<'_, Result<Option<Position>>> {
        self.source().first(range)
    }

    fn last_at(&self, position: Position) -> BoxFuture<'_, Result<Option<(Position, Uuid)>>> {
        self.source().last_at(position)
    }

    fn wakes(&self) -> BoxFuture<'_, Result<Option<Box<dyn Wakes>>>> {
        self.source().wakes()
    }

    fn removed_in(&self, range: Range) -> BoxFuture<'_, Result<RemovedIn>> {
        self.source().removed_in(range)
    }

    fn removed_through(&self) -> BoxFuture<'_, Result<Position>> {
        self.source().removed_through()
    }

    fn check_unread(&self, read_up_to: Position) -> Option<String> {
        self.source().check_unread(read_up_to)
    }

    fn server(&self) -> BoxFuture<'_, Result<Option<String>>> {
        self.source().server()
    }

    fn relation(&self) -> Option<&str> {
        self.source().relation()
    }
}
