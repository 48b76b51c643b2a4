//! The source in memory under test.

use std::future::ready;
use std::sync::Arc;

use highwater::internal::source::{BoxFuture, Source};
use highwater::testing::MemorySource;
use highwater::testing::conformance::SourceUnderTest;
use highwater::{NewEvent, Position};

pub(super) struct InMemory(pub(super) MemorySource);

impl SourceUnderTest for InMemory {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.0.clone())
    }

    fn append<'a>(&'a self, stream: &'a str, event: NewEvent) -> BoxFuture<'a, Position> {
        Box::pin(ready(self.0.append(stream, event)))
    }

    fn burn(&self, count: u32) -> BoxFuture<'_, bool> {
        self.0.burn(u64::from(count));
        Box::pin(ready(true))
    }

    fn rewind(&self, to: Position) -> BoxFuture<'_, bool> {
        self.0.rewind(to);
        Box::pin(ready(true))
    }
}
