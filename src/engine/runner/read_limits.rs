//! How much is read at once, where events are read out of the source.

use tokio::sync::OwnedSemaphorePermit;

use super::claimed::Claimed;
use super::decide::LIVE_WITHIN;
use crate::engine::apply::{self, EVENTS_MAX, Limits};
use crate::position::Range;

/// The most bytes of events that a batch with a transaction of its own is read with.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most events that a batch with a transaction of its own is read with.
const BATCH_READ_MAX: usize = 50_000;
/// The most bytes of events where several batches share a transaction: one is applied while the next
/// is read.
const SHARED_BYTES_MAX: usize = 2 * 1024 * 1024;

impl Claimed {
    /// A permit for the session that reads ahead, if the range is worth one. It never waits: two
    /// runners with one permit each would wait for each other.
    pub(super) fn reading_permit(&self, range: Range) -> Option<OwnedSemaphorePermit> {
        let is_worth_it = self.is_read() && range.width() > LIVE_WITHIN;
        is_worth_it
            .then(|| self.parts.permits.clone().try_acquire_owned().ok())
            .flatten()
    }

    pub(super) fn is_read(&self) -> bool {
        apply::is_read(&*self.parts.projection, &*self.parts.source)
    }

    /// What to read at once, and whether later batches share its transaction.
    pub(super) fn limits(&self, is_shared: bool) -> Limits<'_> {
        let (most, bytes_max) = match is_shared {
            true => (EVENTS_MAX, SHARED_BYTES_MAX),
            false => (BATCH_READ_MAX, BATCH_BYTES_MAX),
        };
        let span = usize::try_from(self.size.span()).unwrap_or(usize::MAX);
        Limits {
            events_max: span.min(most),
            bytes_max,
            read_up_to: self.position,
            group_until: is_shared.then_some(&self.stop),
            last: None,
        }
    }

    /// How many positions to try at once: the range may hold more than is read.
    pub(super) fn tried(&self, range: Range, limits: &Limits<'_>) -> u64 {
        match self.is_read() {
            true => range.width().min(limits.events_max as u64),
            false => range.width(),
        }
    }

    /// How many positions the next batch may span. What is read is cut while it is.
    pub(super) fn span(&self) -> u64 {
        match self.is_read() {
            true => self.size.most(),
            false => self.size.span(),
        }
    }
}
